"""The serving benchmark checks answers, raises the rate until it is too much, and goes on."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import bench_serving
import pytest

pytest.importorskip("uvicorn", reason="fxtrt[serve] is not installed")
pytest.importorskip("simpy", reason="fxtrt[serve] is not installed")

import torch
from bench_serving import KEY, measure_cases
from detector_cases import Case
from loadgen_witness import witness
from result_file import ResultFile
from serving_cases import CASES, GROUPS, cases_of
from serving_report import headline, plot, saved, show
from torchvision.models.detection import FasterRCNN

import fxtrt

SETUP = {"gpu": "none"}


def small() -> Case:
    from small_torchvision import small_rcnn

    return Case("small", "", "torchvision", lambda size: copy.deepcopy(small_rcnn(FasterRCNN)))


def arguments(folder: Path, *given: str) -> argparse.Namespace:
    quick = ["--size", "128", "160", "--seconds", "0.4", "--fewest", "1", "--points", "2"]
    where = ["--cache-dir", str(folder), "--engine", "reference", "--p99", "5"]
    return bench_serving.parse([*quick, *where, *given])


@pytest.fixture
def results(tmp_path: Path) -> ResultFile:
    return ResultFile(tmp_path / "serving.json", KEY)


@pytest.mark.slow
def test_ways_to_serve_are_measured_and_not_again(
    results: ResultFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    keys = ["eager-pool", "jpeg", "fxtrt-2-batched", "http-jpeg", "http-uint8"]
    given = arguments(tmp_path, "--cases", *keys)
    measure_cases(small(), given, results, SETUP)
    rows = results.rows_of(SETUP)
    assert [row["case"] for row in rows] == keys
    for row in rows:
        assert row.get("problem", "no rate was too much").startswith("no rate was too much")
        assert row["agreement"] == 1.0
        assert len(row["points"]) == 2
        assert row["power_missing"] == "there is no NVIDIA GPU here"
        for point in row["points"]:
            assert (point["refused"], point["failed"]) == (0, {})
            assert 0.0 < point["p50_ms"] <= point["p95_ms"] <= point["p99_ms"]
            assert point["queue_ms"] >= 0.0
            assert 1.0 <= point["batch"] <= CASES[row["case"]].max_batch
    batched = rows[2]
    assert {(images, threads) for images, threads, _ in batched["service"]} == {
        (images, threads) for images in (1, 2, 4, 8) for threads in (1, 2)
    }
    assert len(batched["simulated"]) == 2
    assert show(rows).count("\n") == len(rows) + 1
    assert plot(rows, tmp_path / "serving", 5.0)[0].stat().st_size > 1000

    def refuse(*_: Any) -> None:
        raise AssertionError("it was measured before")

    monkeypatch.setattr(bench_serving, "Subject", refuse)
    measure_cases(small(), given, ResultFile(results.path, KEY), SETUP)


def test_a_model_that_answers_otherwise_is_not_measured(
    results: ResultFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(self: Any, case: Any) -> Any:
        def call(images: list[torch.Tensor]) -> Any:
            return [{**one, "boxes": one["boxes"] + 20} for one in self._built.model(images)]

        return call, lambda: None

    monkeypatch.setattr(bench_serving.Subject, "_model", moved)
    measure_cases(small(), arguments(tmp_path, "--cases", "eager-pool"), results, SETUP)
    (row,) = results.rows_of(SETUP)
    assert row["problem"] == "only 0.0% of the detections are those of eager"
    assert "points" not in row


def test_no_case_begins_without_time(results: ResultFile, tmp_path: Path, capsys: Any) -> None:
    given = arguments(tmp_path, "--cases", "main", "--deadline", "1")
    measure_cases(small(), given, results, SETUP)
    assert results.rows == []
    assert "eager-one-thread and what follows is left out" in capsys.readouterr().out


def test_the_headline_compares_the_best_rates() -> None:
    best = {"eager-one-thread": 30.0, "eager-pool": 40.0, "eager-streams": 50.0, "http-jpeg": 180.0}
    rows = [{"model": "m", "case": case, "best": rate} for case, rate in best.items()]
    rows += [{"model": "m", "case": "fxtrt-2", "best": 200.0}, {"model": "m", "case": "jpeg"}]
    inside, outside = headline(rows, 0.05).splitlines()
    assert inside == (
        "m, in process: 200/s with p99 <= 50 ms (fxtrt-2); eager as served 40.0/s (eager-pool): "
        "80% of GPUs saved; the best eager 50.0/s (eager-streams): 75% of GPUs saved"
    )
    assert outside.startswith("m, over HTTP: 180/s with p99 <= 50 ms (http-jpeg); eager as served")
    assert saved(10.0, 28.6) == pytest.approx(0.65, abs=0.001)


def test_cases_are_named_once() -> None:
    everything = cases_of(["all"])
    assert [case.key for case in everything] == list(GROUPS["all"])
    assert set(GROUPS["all"]) == set(CASES)
    slots = {(c.workers, c.max_batch, c.graphs) for c in everything if c.key.startswith("fxtrt-")}
    assert slots == {(s, b, g) for s in (1, 2, 4, 8) for b in (1, 8) for g in (True, False)}


def test_another_load_generator_counts_the_same() -> None:
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")
    asked: list[int] = []

    def model(images: list[int]) -> list[int]:
        asked.extend(images)
        return images

    with fxtrt.Server(model) as server:
        found = witness(server.submit, [1, 2, 3], 1000.0, p99=5.0, seconds=0.5)
        assert found["result"] == "VALID"
        assert 0.0 < found["p99_ms"] < 5000.0
        assert len(asked) >= 1000

        def refuses(image: int) -> Any:
            raise RuntimeError("no")

        assert witness(refuses, [1], 5000.0, p99=2.0, seconds=0.2)["failures"]
