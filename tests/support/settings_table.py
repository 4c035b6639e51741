"""The table of docs/reference/settings.md, from `Settings`; run it to write the table."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from fxtrt import Settings

__all__ = ["DOCUMENT", "field_texts", "in_document", "table"]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "settings.md"
HEADER = "| setting | type | default | meaning |\n| --- | --- | --- | --- |\n"

_ENTRY = re.compile(r"^([a-z]\w*(?:, [a-z]\w*)*): +(?=\S)", re.MULTILINE)
_GIB = 1 << 30
_DEFAULTS = {"cache_dir": "`$XDG_CACHE_HOME/fxtrt` or `~/.cache/fxtrt`"}
"""The fields whose default depends on the machine."""


def field_texts() -> dict[tuple[str, ...], str]:
    """What the docstring of `Settings` says of each field, or of several together."""
    pieces = _ENTRY.split(inspect.cleandoc(Settings.__doc__ or ""))[1:]
    names, texts = pieces[::2], pieces[1::2]
    return {
        tuple(of.split(", ")): " ".join(text.split()) for of, text in zip(names, texts, strict=True)
    }


def table() -> str:
    """One row for each entry of the docstring, in its order."""
    by_name = {field.name: field for field in fields(Settings)}
    return HEADER + "\n".join(
        _row([by_name[name] for name in names], text) for names, text in field_texts().items()
    )


def in_document() -> str:
    """The table that docs/reference/settings.md has."""
    _, _, rest = DOCUMENT.read_text().partition(HEADER)
    rows = (line for line in rest.splitlines(keepends=True))
    found = []
    for row in rows:
        if not row.startswith("|"):
            break
        found.append(row)
    return HEADER + "".join(found).rstrip("\n")


def _row(of: list[Field[Any]], text: str) -> str:
    names = ", ".join(f"`{field.name}`" for field in of)
    types = ", ".join(dict.fromkeys(f"`{_escaped(str(field.type))}`" for field in of))
    defaults = ", ".join(dict.fromkeys(_default(field) for field in of))
    return f"| {names} | {types} | {defaults} | {_escaped(text)} |"


def _default(field: Field[Any]) -> str:
    if field.name in _DEFAULTS:
        return _DEFAULTS[field.name]
    made = field.default_factory
    value = field.default if made is MISSING else made()
    if isinstance(value, int) and value >= _GIB and value % _GIB == 0:
        return f"{value // _GIB} GiB"
    return f"`{value!r}`".replace("'", '"')


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("(with *,", r"(with \*,")


if __name__ == "__main__":
    DOCUMENT.write_text(DOCUMENT.read_text().replace(in_document(), table()))
