"""Tables of scales survive JSON, and damaged ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fxtrt.errors import SettingsError
from fxtrt.quantization.scale_table import ScaleTable

TABLE = ScaleTable({"a": 0.5, "b": 1e-7}, {"a": "relu", "b": "add"}, "digest")


def test_table_survives_a_file(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "table.json")
    assert ScaleTable.read(tmp_path / "table.json") == TABLE
    assert TABLE.lacks(["a", "c"]) == ["c"]


def test_tables_of_graphs_are_merged() -> None:
    merged = ScaleTable.merged([TABLE, ScaleTable({"c": 2.0}, {"c": "mul"}, "digest")])
    assert merged.scales == {"a": 0.5, "b": 1e-7, "c": 2.0}
    assert ScaleTable.merged([]) == ScaleTable({})


@pytest.mark.parametrize("row", [[0, "x"], [-1.0, "x"], [True, "x"], [1.0], [1.0, 2], "x", None])
def test_wrong_scale_is_refused(row: Any) -> None:
    text = json.dumps({**json.loads(TABLE.to_json()), "scales": {"key": row}})
    with pytest.raises(SettingsError, match="the table is damaged: the scale of key is"):
        ScaleTable.from_json(text, "the table")


@pytest.mark.parametrize("scale", ["NaN", "Infinity", "1e999"])
def test_number_that_is_not_finite_is_refused(scale: str) -> None:
    with pytest.raises(SettingsError, match="damaged"):
        ScaleTable.from_json(TABLE.to_json().replace("0.5", scale), "the table")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no table of scales"),
        ("[]", "is no table of scales of this version"),
        ('{"format": "fxtrt scales 0"}', "is no table of scales of this version"),
        ('{"format": "fxtrt scales 1", "data": "", "scales": []}', "is damaged"),
        ("[" * 100_000, "is no table of scales"),
    ],
)
def test_other_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ScaleTable.from_json(text, "it")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.json cannot be read"):
        ScaleTable.read(tmp_path / "none.json")
