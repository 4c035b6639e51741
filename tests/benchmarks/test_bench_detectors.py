"""The sides of a detector are compared with eager, and timed only where they agree."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bench_detectors
import pytest
import torch
from bench_detectors import KEY, measure_case, show
from detector_cases import CASES, Built, Case
from detector_sides import GROUPS, SIDES, Side, sides_of
from result_file import ResultFile
from torchvision.models.detection import FasterRCNN

SETUP = {"gpu": "none"}


def small() -> Case:
    from small_torchvision import small_rcnn

    return Case("small", "", "torchvision", lambda size: copy.deepcopy(small_rcnn(FasterRCNN)))


def arguments(*given: str) -> argparse.Namespace:
    quick = ["--seconds", "0", "--threads", "--batch", "1", "--size", "128", "160"]
    return bench_detectors._parser().parse_args([*quick, "--engine", "reference", *given])


@pytest.fixture
def results(tmp_path: Path) -> ResultFile:
    return ResultFile(tmp_path / "detectors.json", KEY)


@pytest.mark.slow
def test_sides_are_timed_and_covered(results: ResultFile, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_case(small(), arguments("--sides", "eager-tf32", "fxtrt-fixed"), results, SETUP)
    eager, fixed = results.rows_of(SETUP)
    for row in (eager, fixed):
        assert "problem" not in row
        assert row["agreement"]["share"] == 1.0
        assert row["ms_per_image"] > 0
    assert fixed["coverage"]["flops_share"] > 0.9
    assert set(fixed["seconds"]) == {"cold"}
    assert show(results.rows).count("\n") == 3

    def refuse(*_: Any) -> Side:
        raise AssertionError("it was measured before")

    monkeypatch.setattr(bench_detectors, "make_side", refuse)
    measure_case(small(), arguments("--sides", "eager-tf32", "fxtrt-fixed"), results, SETUP)
    assert results.rows_of(SETUP) == [eager, fixed]


@pytest.mark.slow
def test_starts_are_timed_with_the_defaults(results: ResultFile) -> None:
    measure_case(small(), arguments("--sides", "fxtrt"), results, SETUP)
    (row,) = results.rows_of(SETUP)
    assert set(row["seconds"]) == {"cold", "cached", "load"}
    assert row["coverage"]["graphs"] >= 1
    assert row["coverage"]["fallbacks"] == []


def with_side(monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    def make(name: str, built: Built, *_: Any) -> Side:
        return Side(lambda batch: call(built.model, batch))

    monkeypatch.setattr(bench_detectors, "make_side", make)


def test_a_side_that_answers_otherwise_is_not_timed(
    results: ResultFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(model: torch.nn.Module, batch: Any) -> Any:
        with torch.no_grad():
            return [{**one, "boxes": one["boxes"] + 20} for one in model(batch)]

    with_side(monkeypatch, moved)
    measure_case(small(), arguments("--sides", "eager-tf32"), results, SETUP)
    (row,) = results.rows_of(SETUP)
    assert row["problem"] == "only 0.0% of the detections are those of eager"
    assert "ms_per_image" not in row


def test_a_side_that_fails_does_not_stop_the_others(
    results: ResultFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fails_at_first(model: torch.nn.Module, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no\nmemory")
        with torch.no_grad():
            return model(batch)

    with_side(monkeypatch, fails_at_first)
    measure_case(small(), arguments("--sides", "eager-tf32", "eager-autocast"), results, SETUP)
    first, second = results.rows_of(SETUP)
    assert first["problem"] == "RuntimeError: no memory"
    assert second["ms_per_image"] > 0


def test_a_side_of_another_number_of_images_is_made_anew() -> None:
    assert bench_detectors._made_for("fxtrt-fixed", 8, [1, 8]) == 8
    assert bench_detectors._made_for("fxtrt", 8, [1, 8]) == 1


def test_groups_name_sides() -> None:
    assert all(side in SIDES for group in GROUPS.values() for side in group)
    assert sides_of(["eager", "fxtrt-jit"]) == [*GROUPS["eager"], "fxtrt-jit"]


@pytest.mark.parametrize("package", ["detectron2", "torchvision"])
def test_batches_have_different_images(package: str) -> None:
    case = Case("any", "", package, lambda size: torch.nn.Identity())
    images = case.images(8, (30, 40))
    pixels = [one["image"] if package == "detectron2" else one for one in images]
    assert all(one.shape == (3, 30, 40) for one in pixels)
    assert len({one.numpy().tobytes() for one in pixels}) == 8
    assert float(max(one.max() for one in pixels)) > (100 if package == "detectron2" else 0.5)


def test_families_of_the_benchmark_are_those_of_the_zoo() -> None:
    from detector_families import FAMILIES

    names: Mapping[str, Any] = {family.name: family for family in FAMILIES}
    assert all(c.name in names for c in CASES.values() if c.package == "detectron2")
    assert len(CASES) == 13
