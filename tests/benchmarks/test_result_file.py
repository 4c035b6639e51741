"""Several short runs of a benchmark make one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from result_file import ResultFile, main, setup_of

KEY = ("family", "batch")


def test_runs_complete_each_other(tmp_path: Path) -> None:
    path = tmp_path / "gpu" / "rows.json"
    setup = {"gpu": "A"}
    ResultFile(path, KEY).add(setup, {"family": "mask", "batch": 1, "ms": 3.0})
    ResultFile(path, KEY).add(setup, {"family": "mask", "batch": 8, "ms": 2.0})
    found = ResultFile(path, KEY)
    assert [row["ms"] for row in found.rows_of(setup)] == [3.0, 2.0]
    assert found.has(setup, {"family": "mask", "batch": 8, "ms": None})
    assert not found.has(setup, {"family": "mask", "batch": 4})
    assert [p.name for p in path.parent.iterdir()] == ["rows.json"]


def test_a_row_of_another_setup_stays_beside(tmp_path: Path) -> None:
    results = ResultFile(tmp_path / "rows.json", KEY)
    for gpu in ("A", "B", "A"):
        results.add({"gpu": gpu}, {"family": "mask", "batch": 1, "on": gpu})
    assert [row["on"] for row in results.rows] == ["A", "B"]
    assert len(results.setups) == 2
    assert not results.has({"gpu": "C"}, {"family": "mask", "batch": 1})


def test_a_newer_row_replaces_the_older_one(tmp_path: Path) -> None:
    results = ResultFile(tmp_path / "rows.json", KEY)
    for ms in (5.0, 4.0):
        results.add({}, {"family": "mask", "batch": 1, "ms": ms})
    assert [row["ms"] for row in results.rows] == [4.0]


def test_files_of_two_machines_are_merged(tmp_path: Path) -> None:
    for name, gpu in (("a.json", "A"), ("b.json", "B")):
        ResultFile(tmp_path / name, KEY).add({"gpu": gpu}, {"family": name, "batch": 1})
    merged = ResultFile(tmp_path / "a.json", KEY)
    merged.merge(tmp_path / "b.json")
    record = json.loads((tmp_path / "a.json").read_text())
    assert [record["setups"][row["setup"]]["gpu"] for row in record["rows"]] == ["A", "B"]


def test_files_are_merged_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for file in files:
        ResultFile(Path(file), KEY).add({}, {"family": file, "batch": 1})
    into = tmp_path / "new" / "all.json"
    monkeypatch.setattr("sys.argv", ["result_file.py", str(into), *files])
    main()
    assert [row["family"] for row in ResultFile(into, KEY).rows] == files


def test_a_setup_reads_back_as_it_was_written(tmp_path: Path) -> None:
    setup = setup_of("reference", {"tactic_sources": ("CUBLAS",), "precision": None}, size=(8, 9))
    assert setup["options"] == {"tactic_sources": ["CUBLAS"]}
    ResultFile(tmp_path / "rows.json", KEY).add(setup, {"family": "mask", "batch": 1})
    assert ResultFile(tmp_path / "rows.json", KEY).rows_of(setup)
