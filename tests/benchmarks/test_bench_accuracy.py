"""A trained detector is judged in each precision, and a precision that fails stops no other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bench_accuracy
import pytest
from bench_accuracy import KEY, measure_detector, show
from result_file import ResultFile
from train_shapes import write
from trained_detector import LEAST_AP, trained_detector

import fxtrt
from fxtrt.errors import SettingsError

SETUP = {"gpu": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "small"
    write(trained_detector(), path, ap=0.0, seconds=0.0)
    return path


@pytest.fixture
def results(tmp_path: Path) -> ResultFile:
    return ResultFile(tmp_path / "accuracy.json", KEY)


def arguments(folder: Path, *precisions: str) -> argparse.Namespace:
    quick = ["--seconds", "0", "--batch", "1", "2", "--engine", "reference", "--calibration", "3"]
    return bench_accuracy._parser().parse_args([str(folder), *quick, "--precisions", *precisions])


@pytest.mark.slow
def test_precisions_are_judged_like_eager(folder: Path, results: ResultFile) -> None:
    measure_detector(folder, arguments(folder, "fp32", "fp16"), results, SETUP)
    eager, full, half = results.rows_of(SETUP)
    assert [row["precision"] for row in results.rows] == ["eager", "fp32", "fp16"]
    assert eager["box_ap"] >= LEAST_AP
    assert full["box_ap"] == pytest.approx(eager["box_ap"], abs=1e-4)
    assert half["box_ap"] == pytest.approx(eager["box_ap"], abs=0.01)
    assert (eager["agreement"], full["agreement"]) == (1.0, 1.0)
    assert half["agreement"] > 0.97
    assert all(set(row["ms"]) == {"1", "2"} for row in results.rows)
    assert full["coverage"]["flops_share"] > 0.95
    assert f"{half['box_ap']:.4f}" in show(results.rows)


def test_int8_is_asked_for_with_pictures_of_its_own(
    folder: Path, results: ResultFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A precision that does not compile is a row with its problem."""
    given: dict[str, Any] = {}

    def refuse(model: Any, inputs: Any, *, calibration: Any, **options: Any) -> Any:
        given.update(options, calibration=calibration)
        raise SettingsError("precision='int8':\nexpected another")

    monkeypatch.setattr(fxtrt, "compile", refuse)
    trained = trained_detector()
    measure_detector(folder, arguments(folder, "int8"), results, SETUP)
    *_, row = results.rows_of(SETUP)
    assert row["problem"] == "SettingsError: precision='int8': expected another"
    assert "box_ap" not in row
    items = [inputs[0][0] for inputs in given.pop("calibration")]
    assert given == {"engine": "reference", "precision": "int8", "most_images": 2}
    assert len(items) == 3
    judged = trained.architecture.inputs(trained.pictures, "cpu")
    assert not any((item == one).all() for item in items for one in judged)


def test_a_version_without_int8_says_so(
    folder: Path, results: ResultFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_without(model: Any, inputs: Any, **options: Any) -> Any:
        raise AssertionError("it was called")

    monkeypatch.setattr(fxtrt, "compile", compile_without)
    measure_detector(folder, arguments(folder, "int8"), results, SETUP)
    *_, row = results.rows_of(SETUP)
    assert row["problem"] == (
        "SettingsError: this version of fxtrt cannot calibrate: it has no INT8"
    )
