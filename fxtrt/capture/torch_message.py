"""Turns an error message of torch's into the lines that help the author of a model."""

from __future__ import annotations

import re

__all__ = ["message_of"]

_CALL = "The following call raised this error:"
_HEADINGS = ("Suggested fixes:", "To fix the error", _CALL)
"""Headings that are kept together with the indented lines below them."""

_MANUAL = re.compile(r"\s*For more information, run with TORCH_LOGS\S*")


def message_of(error: BaseException) -> str:
    """Return the first line, list items, the place in the user's code, and the suggested fixes.

    Advice on how to debug torch itself is left out.
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
        # If torch also shows the user's call, that says more than this line.
        is_cause = line.startswith("Caused by: ") and _CALL not in lines
        if in_section or is_listed or is_cause:
            kept.append(line.rstrip())
    return "\n".join(kept)
