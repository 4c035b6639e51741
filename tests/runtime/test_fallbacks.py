"""Calls in PyTorch are counted and logged within bounds, without contents, and reported."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import nn

import fxtrt
from fxtrt.reporting import Coverage, GuardRow
from fxtrt.runtime.fallbacks import OTHERS, Fallbacks

X = torch.randn(2, 4)


class Model(nn.Module):
    """Takes a constant beside its tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.Sigmoid())

    def forward(self, x: torch.Tensor, note: object = None) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y


class Parts(nn.Module):
    """Does not export as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Model().layers, nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(x)
        y = y[y[:, 0] > -1] if y.sum() < 1e9 else y[:1]
        z: torch.Tensor = self.second(y)
        return z


def compiled(model: nn.Module, *inputs: object, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    options = {"engine": "reference", "min_cluster_size": 1, **options}
    return fxtrt.compile(model.eval(), inputs, **options)


def test_the_log_and_the_counts_are_bounded_and_without_contents(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fast = compiled(Model(), X, "a note")
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for i in range(500):
            fast(X, f"secret {i}")
            fast(X, i)
            fast(X[:, : 1 + i % 3].repeat(i + 3, 4)[:, :4], "a note")
    guard = fast.forward
    assert len(guard.fallbacks) <= 33  # type: ignore[attr-defined]  # a GuardedForward
    assert sum(guard.fallbacks.values()) == 1500  # type: ignore[attr-defined]
    lines = [record for record in caplog.records if "runs in PyTorch" in record.message]
    assert 1 <= len(lines) <= 5
    shown = caplog.text + str(fxtrt.report(fast)) + fxtrt.report(fast).to_json()
    assert "secret" not in shown
    assert "further reasons are counted only" in caplog.text
    reasons = dict(fxtrt.report(fast).guards[0].reasons)
    assert reasons["an argument of type str has another value than in the example"] == 500
    assert reasons["an argument is int, in the example it was str"] == 500
    assert reasons[OTHERS] == 500 - 30


def test_frequent_reasons_stay() -> None:
    fallbacks = Fallbacks("it runs in PyTorch")
    for i in range(1000):
        fallbacks.record(f"shape {i}")
        if i > 500:
            fallbacks.record("often")
    assert len(fallbacks) <= 33
    assert fallbacks.most_frequent()[0] == ("often", 499)
    assert fallbacks.most_frequent()[-1] == (OTHERS, 1000 - 31)
    assert sum(fallbacks.values()) == 1499


def test_lines_come_slowly_and_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    fallbacks = Fallbacks("it runs in PyTorch")
    with caplog.at_level(logging.WARNING):
        for i in range(6000):
            now = i / 10
            fallbacks.record(f"shape {i}")
            if i == 599:
                assert len(caplog.records) == 5
    assert len(caplog.records) == 33
    assert max(len(record.message) for record in caplog.records) < 400


def test_threads_count_exactly() -> None:
    fallbacks = Fallbacks("it runs in PyTorch")

    def count(number: int) -> None:
        for i in range(500):
            fallbacks.record(f"reason {(number + i) % 50}")
            fallbacks.count_compiled()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert sum(fallbacks.values()) == fallbacks.compiled == 2000


def test_the_report_shows_the_share_of_calls(tmp_path: Path) -> None:
    fast = compiled(Model(), X)
    assert fxtrt.report(fast).guards == (GuardRow("", 0, 0),)
    assert "ran as compiled" not in str(fxtrt.report(fast))
    with torch.no_grad():
        fast(X)
        assert "1 of 1 calls ran as compiled (100.0%)" in str(fxtrt.report(fast))
        for rows in (3, 3, 3, 5):
            fast(torch.randn(rows, 4))
        fast(X.double().float(), note=3)
        fast(X, "a note")
    coverage = fxtrt.report(fast)
    (row,) = coverage.guards
    assert (row.calls, row.compiled) == (7, 1)
    assert row.reasons[0] == ("x0 has shape (3, 4), expected 2x4", 3)
    assert sum(calls for _, calls in row.reasons) == 6
    coverage.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for shown in (str(coverage), coverage.to_markdown(), page):
        assert "1 of 7 calls ran as compiled (14.3%)" in shown.partition("\n\n")[0] or shown is page
        assert shown.count("1 of 7 calls ran as compiled (14.3%)") == 2
        assert "3 in PyTorch: x0 has shape (3, 4), expected 2x4" in shown
    schema = json.loads((resources.files("fxtrt.reporting") / "coverage.schema.json").read_text())
    jsonschema.validate(json.loads(coverage.to_json()), schema)
    assert Coverage.from_json(coverage.to_json()) == coverage


def test_each_part_has_its_share() -> None:
    fast = compiled(Parts(), X)
    with torch.no_grad():
        for rows in (2, 2, 3):
            fast(torch.randn(rows, 4))
    coverage = fxtrt.report(fast)
    shares = {row.module: (row.compiled, row.calls) for row in coverage.guards}
    assert shares["first"] == (2, 3)
    assert "first: 2 of 3 calls ran as compiled (66.7%)" in str(coverage)


def test_older_reports_are_read() -> None:
    value = json.loads(fxtrt.report(compiled(Model(), X)).to_json())
    del value["guards"]
    assert Coverage.from_json(json.dumps(value)).guards == ()
