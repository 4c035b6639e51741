"""A cluster that int8 does not make faster computes in float16, and that is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from failing_engine import FailingPlanner
from int8_models import data, residual
from lying_engine import LyingPlanner

pytest.importorskip("torchao", reason="fxtrt[quantize] is not installed")

import fxtrt
from fxtrt.engines import target
from fxtrt.lowering import int8_race
from fxtrt.runtime.timing import Race

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[Race]:
    """The results of the races to come; engines have plans, as TensorRT's do."""
    coming: list[Race] = []

    def run(int8: Any, fp16: Any, inputs: Any) -> Race:
        for module in (int8, fp16):
            assert module(*inputs)[0].isfinite().all()
        return coming.pop(0)

    planner = LyingPlanner(lambda layer, kind: False)
    monkeypatch.setattr(target, "select", lambda name: planner)
    monkeypatch.setattr(int8_race, "race", run)
    return coming


def compiled(cache_dir: Path | None = None, **options: Any) -> Any:
    examples = data()
    options = {"precision": "int8", "calibration": examples, "self_check": "off", **options}
    return fxtrt.compile(residual(), examples[0], cache_dir=cache_dir, **options)


def test_int8_stays_where_it_is_faster(races: list[Race]) -> None:
    races.append(Race(1.0, 1.5))
    coverage = fxtrt.report(compiled())
    assert coverage.int8 == 5
    assert not any("not faster" in why for why in coverage.kept_fp16)


def test_float16_stays_where_int8_is_not_faster(races: list[Race]) -> None:
    races.append(Race(1.15, 0.98))
    fast = compiled()
    coverage = fxtrt.report(fast)
    assert coverage.int8 == 0
    slow = [why for why in coverage.kept_fp16 if "not faster: 1.150 ms, fp16 0.980 ms" in why]
    assert len(slow) == 5
    (x,) = data(1)[0]
    in_fp16 = fxtrt.compile(residual(), (x,), precision="fp16", cache_dir=None)
    torch.testing.assert_close(fast(x), in_fp16(x), rtol=0, atol=0)


def test_each_component_has_a_race_of_its_own(races: list[Race]) -> None:
    races += [Race(1.0, 2.0), Race(2.0, 1.0)]
    parts = {name: {"precision": "int8"} for name in ("first", "wide")}
    fast = compiled(precision="model", components=parts, min_cluster_size=1)
    coverage = fxtrt.report(fast)
    assert coverage.int8 == 1
    assert [why.split(":")[1] for why in coverage.kept_fp16 if "faster" in why] == [
        " int8 is not faster"
    ]


def test_a_race_is_run_once(races: list[Race], tmp_path: Path) -> None:
    races.append(Race(1.15, 0.98))
    first = fxtrt.report(compiled(tmp_path))
    again = fxtrt.report(compiled(tmp_path))
    assert first.kept_fp16 == again.kept_fp16


def test_a_saved_model_knows_the_result(races: list[Race], tmp_path: Path) -> None:
    races.append(Race(1.15, 0.98))
    fast = compiled(tmp_path / "cache")
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", residual(), cache_dir=None)
    assert fxtrt.report(loaded).kept_fp16 == fxtrt.report(fast).kept_fp16
    assert all(row.build is not None and row.build.cached for row in fxtrt.report(loaded).clusters)
    (x,) = data(1)[0]
    assert torch.equal(loaded(x), fast(x))


def test_what_does_not_build_in_int8_computes_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with TensorRT-RTX 1.4, which has no kernels for convolutions in int8."""

    def message(layers: Sequence[str]) -> str:
        return "no kernel" if any("fake_quantize" in name for name in layers) else ""

    planner = FailingPlanner(message)
    monkeypatch.setattr(target, "select", lambda name: planner)
    coverage = fxtrt.report(compiled())
    assert coverage.int8 == 0
    assert coverage.flops_share == 1.0
    kept = [why for why in coverage.kept_fp16 if "does not build in int8" in why]
    assert len(kept) == 5
    assert len(planner.builds) == 2


def test_the_race_can_be_turned_off(races: list[Race]) -> None:
    assert fxtrt.report(compiled(int8_if_faster=False)).int8 == 5
