"""Picks from torch's error messages what helps the author of a model."""

from __future__ import annotations

import re

__all__ = ["message_of"]

_CALL = "The following call raised this error:"
_HEADINGS = ("Suggested fixes:", "To fix the error", _CALL)
"""Of these, the indented lines that follow are of use too."""

_MANUAL = re.compile(r"\s*For more information, run with TORCH_LOGS\S*")


def message_of(error: BaseException) -> str:
    """The first line, what torch lists, where in the user's code it was, and the suggested fixes.

    It leaves out how to debug torch.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    kept = [_MANUAL.sub("", lines[0])]
    in_section = False
    for line in lines[1:]:
        is_indented = line[0].isspace()
        if not is_indented:
            in_section = line.startswith(_HEADINGS)
        is_listed = is_indented and line.lstrip().startswith("- ")
        # Where torch also shows the user's call, this is a line of its own.
        is_cause = line.startswith("Caused by: ") and _CALL not in lines
        if in_section or is_listed or is_cause:
            kept.append(line.rstrip())
    return "\n".join(kept)
