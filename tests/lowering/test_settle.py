"""Clusters that fail or lose go to PyTorch, alone, with the reason; figures are kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import replace_converter
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fxtrt.capture.export import trace
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.errors import CaptureError, ConversionError
from fxtrt.lowering.cluster_inputs import recorded_values
from fxtrt.lowering.divide import divide
from fxtrt.lowering.settle import Settled, settle
from fxtrt.lowering.stitch import stitch
from fxtrt.runtime.timing import Timing, measure
from fxtrt.settings import Settings

aten = torch.ops.aten
X = torch.rand(4, 4)


def two_clusters() -> GraphModule:
    """Two clusters around an `erfinv`, which has no converter."""

    def function(x: torch.Tensor) -> torch.Tensor:
        a = torch.tanh(torch.relu(x) * 0.5)
        return torch.exp(torch.erfinv(a).sin().cos())

    return trace(function, (X,))


def rejected(settled: Settled) -> dict[str, str]:
    return {node.name: rejection.code for node, rejection in settled.partition.rejections.items()}


def clusters(settled: Settled) -> list[list[str]]:
    return [[node.name for node in one.extracted.cluster.nodes] for one in settled.built]


def no_sine(ctx: Any, x: Any) -> Any:
    raise ValueError("no sine today")


def options(**overrides: Any) -> Settings:
    return Settings(**{"cache_dir": None, **overrides})


def test_a_failing_cluster_falls_back_alone(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_converter(monkeypatch, aten.sin.default, no_sine)
    settled = settle(two_clusters(), Target(reference, options()))
    assert clusters(settled) == [["relu", "mul", "tanh"]]
    assert rejected(settled) == {
        "erfinv": "no_converter",
        "sin": "build_failed",
        "cos": "too_small",
        "exp": "too_small",
    }
    assert settled.partition.cuts == 1


def test_bisection_puts_out_no_more_than_fails(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(6):
            x = torch.relu(x) * 0.5
        x = x.sin()
        for _ in range(6):
            x = torch.tanh(x) + 1
        return x

    replace_converter(monkeypatch, aten.sin.default, no_sine)
    gm = trace(function, (X,))
    expected = gm(X)
    settled = settle(gm, Target(reference, options(on_build_failure="bisect")))
    assert [len(names) for names in clusters(settled)] == [12, 12]
    assert rejected(settled) == {"sin": "build_failed"}
    (rejection,) = settled.partition.rejections.values()
    assert "no sine today" in rejection.detail
    stitch(gm, [one.extracted for one in settled.built], [one.module for one in settled.built])
    assert [one.module.name for one in settled.built] == ["cluster_0", "cluster_1"]
    torch.testing.assert_close(gm(X), expected)


def test_a_failure_can_be_an_error(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_converter(monkeypatch, aten.sin.default, no_sine)
    with pytest.raises(ConversionError, match="no sine today"):
        settle(two_clusters(), Target(reference, options(on_build_failure="raise")))


@pytest.mark.parametrize(("fuel", "left"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_fuel_bounds_the_clusters(reference: EngineBackend, fuel: int, left: int) -> None:
    divided = divide(two_clusters(), Target(reference, options(fuel=fuel)))
    assert len(divided.clusters) == left
    codes = [rejection.code for rejection in divided.rejections.values()]
    assert codes.count("fuel") == 3 * (2 - left)


class Stopwatch:
    """Stands in for `measure`: the figures to give, and what it was asked to time."""

    def __init__(self, *timings: Timing) -> None:
        self.timings = list(timings)
        self.inputs: list[Sequence[Any]] = []

    def __call__(self, module: Any, inputs: Sequence[Any]) -> Timing:
        self.inputs.append(inputs)
        module(*inputs)
        return self.timings.pop(0)


def test_a_cluster_that_loses_stays_in_pytorch(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watch = Stopwatch(Timing(0.5, 2.0), Timing(1.2, 0.8))
    monkeypatch.setattr("fxtrt.lowering.settle.measure", watch)
    settings = options(partition="measured", cache_dir=tmp_path)
    settled = settle(two_clusters(), Target(reference, settings), [X])
    assert clusters(settled) == [["relu", "mul", "tanh"]]
    assert settled.built[0].timing == Timing(0.5, 2.0)
    slower = [r for r in settled.partition.rejections.values() if r.code == "slower"]
    assert len(slower) == 3
    assert slower[0].detail == "engine 1.200 ms, PyTorch 0.800 ms"
    expected = [[X], [torch.erfinv(torch.tanh(torch.relu(X) * 0.5))]]
    torch.testing.assert_close(watch.inputs, expected)

    # The figures are kept: the second time nothing is left to give, and nothing is asked for.
    again = settle(two_clusters(), Target(reference, settings), [X])
    assert rejected(again) == rejected(settled)
    assert again.built[0].timing == Timing(0.5, 2.0)
    assert len(watch.inputs) == 2


def test_the_whitelist_is_exempt_from_measuring(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fxtrt.lowering.settle.measure", Stopwatch(Timing(2, 1), Timing(2, 1)))
    settings = options(partition="measured", whitelist=("aten.exp",))
    settled = settle(two_clusters(), Target(reference, settings), [X])
    assert clusters(settled) == [["sin", "cos", "exp"]]


def test_without_inputs_values_are_made_up(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Stopwatch(Timing(1, 2))
    monkeypatch.setattr("fxtrt.lowering.settle.measure", watch)
    table = torch.rand(5, 3)
    gm = trace(lambda i: torch.relu(table[i] * 2) + 1, (torch.tensor([4, 2]),))
    assert len(settle(gm, Target(reference, options(partition="measured"))).built) == 1
    torch.testing.assert_close(watch.inputs, [[torch.tensor([0, 0])]])


def test_inputs_must_be_the_graphs(reference: EngineBackend) -> None:
    with pytest.raises(CaptureError, match="takes 1 values, not 2"):
        settle(two_clusters(), Target(reference, options(partition="measured")), [X, X])


def test_a_timing_is_the_median_of_calls_in_turn(reference: EngineBackend) -> None:
    module = settle(two_clusters(), Target(reference, options())).built[0].module
    spans = [span for i in range(13) for span in (0.001 * (i + 1), 0.002 * (i + 1))]
    ticks = accumulate(part for span in spans for part in (0.5, span))
    timing = measure(module, [X], lambda: next(ticks))
    # The first three are warm-up; the median of 4 ... 13 is 8.5.
    assert timing.engine_ms == pytest.approx(8.5)
    assert timing.pytorch_ms == pytest.approx(17)
    assert timing.wins
    assert Timing.from_bytes(timing.to_bytes()) == timing


def test_reference_engines_are_timed_for_real(reference: EngineBackend) -> None:
    settled = settle(two_clusters(), Target(reference, options(partition="measured")), [X])
    assert len(settled.built) + list(rejected(settled).values()).count("slower") / 3 == 2


def test_a_run_for_values_leaves_nothing_behind() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x)
        x.add_(1)
        return y * x

    gm = make_fx(function)(X)
    x = X.clone()
    (product,) = gm.graph.find_nodes(op="call_function", target=aten.mul.Tensor)
    values = recorded_values(gm, [x], [product])
    assert torch.equal(x, X)
    assert list(values) == [product]
