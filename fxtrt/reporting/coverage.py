"""Gives the values of a report their forms: text, Markdown, JSON and HTML."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike

from .html import write_html
from .markdown import markdown
from .schema import from_json, to_json
from .text import text as as_text
from .values import CoverageValues

__all__ = ["Coverage"]


@dataclass(frozen=True, slots=True)
class Coverage(CoverageValues):
    """What runs where: of one graph, or of all graphs of a model."""

    def __str__(self) -> str:
        return as_text(self)

    def to_markdown(self) -> str:
        """Return the report as tables of GitHub's Markdown."""
        return markdown(self)

    def to_json(self) -> str:
        """Return the report as JSON; `fxtrt/reporting/coverage.schema.json` is its schema."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Coverage:
        """Read what `to_json` wrote.

        Raises:
            ReportError: `text` is something else, or of a version that this fxtrt does not read.
        """
        values = from_json(text)
        return cls(**{field.name: getattr(values, field.name) for field in fields(values)})

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write one page, with a picture of the graphs, that needs no other file and no network."""
        write_html(self, path)
