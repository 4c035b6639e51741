"""Calibration reads examples of every kind, keeps its table, and refuses what it cannot use."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from int8_models import captured_of, data, residual, settings_of

import fxtrt
from fxtrt.diagnostics.bisect import bisect
from fxtrt.errors import SettingsError
from fxtrt.graph.fake_quantize import PER_TENSOR
from fxtrt.quantization import calibration
from fxtrt.quantization.calibration import calibrate
from fxtrt.quantization.observer import MagnitudeObserver
from fxtrt.quantization.value_keys import scale_keys

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the graphs are run with."""
    found: list[Any] = []
    run = calibration._Run.run

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(args)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(calibration._Run, "run", noted)
    return found


def test_second_calibration_of_the_same_model_and_data_runs_nothing(
    tmp_path: Path, runs: list[Any]
) -> None:
    settings = settings_of(cache_dir=tmp_path)
    table = calibrate(captured_of(residual(), settings), data(), settings)
    assert len(runs) == 4
    # The order of the examples and the names of nodes do not count.
    again = calibrate(captured_of(residual(), settings), data()[::-1], settings)
    assert len(runs) == 4
    assert again == table
    calibrate(captured_of(residual(), settings), data(3), settings)
    assert len(runs) == 7
    with torch.no_grad():
        other = residual()
        other.first.weight[0, 0, 0, 0] += 1.0
    calibrate(captured_of(other, settings), data(), settings)
    assert len(runs) == 11


def test_iterator_is_read_once_and_streamed(runs: list[Any], tmp_path: Path) -> None:

    def examples() -> Iterator[Any]:
        for number, one in enumerate(data()):
            assert len(runs) == number, "an example was read before the one ahead of it had run"
            yield one

    settings = settings_of(cache_dir=tmp_path)
    table = calibrate(captured_of(residual(), settings), examples(), settings)
    assert table == calibrate(captured_of(residual(), settings), data(), settings)
    assert len(runs) == 4


def test_every_value_has_a_positive_scale() -> None:
    settings = settings_of()
    captured = captured_of(residual(), settings)
    table = calibrate(captured, data(), settings)
    assert table.scales.keys() == set(scale_keys(captured.parts[0].graph).values())
    assert all(math.isfinite(scale) and scale > 0 for scale in table.scales.values())


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "calibration has no examples"),
        (iter(()), "calibration has no examples"),
        (7, "must be an iterable of examples, not 7"),
        ([("picture",)], "example 0 of calibration does not fit.*is a str"),
        ([*data(1), (torch.zeros(2, 3, 8, 8),)], "example 1 .*shape.*expected 2x3x32x32"),
        ([data(1)[0] * 2], "example 0 of calibration is not written like inputs"),
        ([(torch.full((2, 3, 32, 32), math.nan),)], "example 0 of calibration has a NaN"),
    ],
)
def test_bad_examples_are_refused(examples: Any, message: str) -> None:
    settings = settings_of()
    with pytest.raises(SettingsError, match=message):
        calibrate(captured_of(residual(), settings), examples, settings)


def test_model_that_computes_infinities_is_refused() -> None:
    model = residual()
    with torch.no_grad():
        model.stem.weight *= 1e38
    settings = settings_of()
    with pytest.raises(SettingsError, match="has a NaN or an infinity, as the model computes it"):
        calibrate(captured_of(model, settings), data(), settings)


def test_missing_torchao_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.pt2e.quantize_pt2e", None)
    settings = settings_of()
    with pytest.raises(SettingsError, match=r"pip install fxtrt\[quantize\]"):
        calibrate(captured_of(residual(), settings), data(), settings)


def test_observer_clamps_outliers_where_that_loses_less() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40_000, generator=generator)
    values[0] = 30.0
    observer = MagnitudeObserver()
    for part in torch.split(values, 10_000):
        observer(part)
    found = observer.scale()
    assert found < 0.9 * 30.0 / 127

    def loss(scale: float) -> float:
        return float(((values - (values / scale).round().clamp(-128, 127) * scale) ** 2).sum())

    best = min(loss(30.0 / 127 * share / 200) for share in range(1, 201))
    assert loss(found) < 1.03 * best
    assert loss(found) < 0.9 * loss(30.0 / 127)


def test_observer_keeps_the_largest_number_of_an_even_spread() -> None:
    observer = MagnitudeObserver()
    observer(torch.linspace(-0.01, 0.01, 1001))
    observer(torch.linspace(-6.0, 6.0, 100_001))
    assert observer.scale() == pytest.approx(6.0 / 127, rel=0.02)
    assert MagnitudeObserver().scale() == 1.0


def test_torch_compile_takes_the_scales_of_an_earlier_calibration(tmp_path: Path) -> None:
    model, (x,) = residual(), data(1)[0]
    options: Any = {"engine": "reference", "precision": "int8", "cache_dir": tmp_path}
    torch._dynamo.reset()
    jit = torch.compile(model, backend="fxtrt", options=options)
    with pytest.raises(Exception, match=r"needs examples of what the model will see"):
        jit(x)
    compiled = fxtrt.compile(model, (x,), **options, calibration=data())
    torch._dynamo.reset()
    torch.testing.assert_close(
        torch.compile(model, backend="fxtrt", options=options)(x), compiled(x)
    )


def test_table_in_a_file_of_ones_own(tmp_path: Path) -> None:
    model, (x,) = residual(), data(1)[0]
    table = tmp_path / "scales.json"
    options: Any = {"engine": "reference", "precision": "int8", "cache_dir": None}
    options["calibration_table"] = table
    compiled = fxtrt.compile(model, (x,), **options, calibration=data())
    torch._dynamo.reset()
    jit = torch.compile(model, backend="fxtrt", options=options)
    torch.testing.assert_close(jit(x), compiled(x))
    other = residual()
    with torch.no_grad():
        other.first.weight += 1.0
    with pytest.raises(SettingsError, match="of another graph than this one"):
        fxtrt.compile(other, (x,), **options)


def test_saved_model_has_its_scales(tmp_path: Path) -> None:
    model, (x,) = residual(), data(1)[0]
    compiled = fxtrt.compile(
        model, (x,), engine="reference", precision="int8", cache_dir=None, calibration=data()
    )
    fxtrt.save(compiled, tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", residual(), cache_dir=None)
    assert torch.equal(loaded(x), compiled(x))
    assert fxtrt.report(loaded).int8 == fxtrt.report(compiled).int8 == 5


def test_saved_plans_are_found_again(rtx: Any, tmp_path: Path) -> None:
    options: Any = {"engine": "tensorrt_rtx", "precision": "int8", "cache_dir": tmp_path / "cache"}
    compiled = fxtrt.compile(residual(), data(1)[0], **options, calibration=data())
    fxtrt.save(compiled, tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", residual(), cache_dir=None)
    (row,) = fxtrt.report(loaded).clusters
    assert row.build is not None
    assert row.build.cached


def test_engine_key_depends_on_the_scales(int8_rtx: Any, tmp_path: Path) -> None:
    options: Any = {"engine": "tensorrt_rtx", "precision": "int8", "cache_dir": tmp_path}
    for examples, cached in ((data(), False), (data(), True), (data(2), False)):
        compiled = fxtrt.compile(residual(), data(1)[0], **options, calibration=examples)
        (row,) = fxtrt.report(compiled).clusters
        assert row.build is not None
        assert row.build.cached is cached


def test_bisection_compares_with_the_quantized_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(cache_dir=tmp_path)
    with pytest.raises(SettingsError, match="needs examples"):
        bisect(residual(), data(1)[0], settings)
    calibrate(captured_of(residual(), settings), data(), settings)
    compared: list[Any] = []

    def noted(module: Any, arguments: Any) -> Any:
        compared.extend(module.fallback.graph.find_nodes(op="call_function", target=PER_TENSOR))
        return ()

    monkeypatch.setattr("fxtrt.diagnostics.bisect._compare", noted)
    assert bisect(residual(), data(1)[0], settings) is None
    assert compared
