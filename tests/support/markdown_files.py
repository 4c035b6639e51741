"""The Markdown files of the project: their headings, links and Python blocks."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

__all__ = ["DOCUMENTS", "ROOT", "anchors", "links", "name_of"]

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_HEADING = re.compile(r"^#{1,6} +(.*?)[ \t]*$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_KEPT = set(string.ascii_lowercase + string.digits + "-_")


def name_of(path: Path) -> str:
    """The path as tests show it."""
    return path.relative_to(ROOT).as_posix()


def links(text: str) -> Iterator[str]:
    """The targets of all links outside of code, in order."""
    prose = _CODE.sub("", _COMMENT.sub("", _FENCE.sub("", text)))
    yield from _LINK.findall(prose)


def anchors(text: str) -> set[str]:
    """What follows `#` in links to the headings of a document, as GitHub makes it."""
    found: dict[str, int] = {}
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        slug = "".join(c for c in heading.lower().replace(" ", "-") if c in _KEPT)
        found[slug] = found.get(slug, 0) + 1
    repeated = {f"{slug}-{n}" for slug, count in found.items() for n in range(1, count)}
    return set(found) | repeated
