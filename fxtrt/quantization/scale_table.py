"""Holds the scales that a calibration found, and turns them into JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..files.atomic_file import written_at_once

__all__ = ["ScaleTable"]

_FORMAT = "fxtrt scales 1"


@dataclass(frozen=True, slots=True)
class ScaleTable:
    """The scale of each value that may be quantized: a step of int8 stands for so much.

    scales: by the keys of `value_keys`, which a second capture of the same model gives again.
    names:  the names that the values have in the graph, for people.
    data:   the digest of the examples.
    """

    scales: Mapping[str, float]
    names: Mapping[str, str] = field(default_factory=dict)
    data: str = ""

    def lacks(self, keys: Iterable[str]) -> list[str]:
        """Return those of `keys` that have no scale here."""
        return [key for key in keys if key not in self.scales]

    def to_json(self) -> str:
        """Return the table as JSON, which `from_json` reads."""
        rows = {key: [scale, self.names.get(key, "")] for key, scale in self.scales.items()}
        return json.dumps({"format": _FORMAT, "data": self.data, "scales": rows}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, what: str) -> ScaleTable:
        """Read what `to_json` wrote.

        Args:
            what: a name of the text, for the message.

        Raises:
            SettingsError: the text is something else, or a scale cannot be one.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{what} is no table of scales: {error}") from error
        if not isinstance(values, dict) or values.get("format") != _FORMAT:
            raise SettingsError(f"{what} is no table of scales of this version of fxtrt")
        rows, data = values.get("scales"), values.get("data")
        if not isinstance(rows, dict) or not isinstance(data, str):
            raise SettingsError(f"{what} is damaged: calibrate again")
        for key, row in rows.items():
            if not _is_row(row):
                raise SettingsError(f"{what} is damaged: the scale of {key:.16} is {row!r:.80}")
        scales = {key: float(row[0]) for key, row in rows.items()}
        return cls(scales, {key: row[1] for key, row in rows.items()}, data)

    @classmethod
    def merged(cls, tables: Sequence[ScaleTable]) -> ScaleTable:
        """Return one table with the scales of several graphs of a model."""
        scales: dict[str, float] = {}
        names: dict[str, str] = {}
        for table in tables:
            scales |= table.scales
            names |= table.names
        return cls(scales, names, tables[0].data if tables else "")

    def write(self, path: Path) -> None:
        """Write the table to a file, which is complete or absent.

        Raises:
            OSError: the file cannot be written.
        """
        with written_at_once(path) as file:
            file.write(self.to_json().encode())

    @classmethod
    def read(cls, path: Path) -> ScaleTable:
        """Read the file at `path`.

        Raises:
            SettingsError: there is no such file, or it is no table.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"the calibration table {path} cannot be read: {error}") from error
        return cls.from_json(text, str(path))


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 2
        and isinstance(row[1], str)
        and isinstance(row[0], (int, float))
        and not isinstance(row[0], bool)
        and math.isfinite(row[0])
        and row[0] > 0
    )
