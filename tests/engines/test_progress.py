"""A build's phases become a fraction that only grows, and a false answer ends the build."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

import fxtrt
from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.network import Network
from fxtrt.engines.progress import Phases, monitor
from fxtrt.engines.tensorrt import TensorRTBackend
from fxtrt.errors import BuildError


def test_a_phase_fills_one_step_of_its_parent() -> None:
    phases = Phases()
    phases.start("building", None, 4)
    phases.step("building")
    assert phases.fraction == pytest.approx(1 / 4)
    phases.start("optimizing", "building", 2)
    phases.step("optimizing")
    assert phases.fraction == pytest.approx(1 / 4 + 1 / 2 / 4)
    phases.finish("optimizing")
    assert phases.fraction == pytest.approx(1 / 4 + 1 / 2 / 4), "it never goes back"
    for _ in range(3):
        phases.step("building")
    assert phases.fraction == 1


def test_a_module_without_monitors_has_none() -> None:
    assert monitor(ModuleType("tensorrt"), lambda fraction: True) is None


def network(backend: TensorRTBackend) -> Network:
    layers = (torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    gm = trace(torch.nn.Sequential(*layers).eval(), (torch.randn(1, 3, 16, 16),))
    return convert(gm, backend.features)


def test_tensorrt_tells_how_far_it_is(rtx: TensorRTBackend) -> None:
    seen: list[float] = []

    def progress(fraction: float) -> bool:
        seen.append(fraction)
        return True

    plan = rtx.build(network(rtx), fxtrt.Settings(), progress)
    assert plan
    assert len(seen) > 10
    assert seen == sorted(seen)
    assert 0 <= seen[0] < 0.5 < seen[-1] <= 1


def test_a_false_answer_ends_the_build(rtx: TensorRTBackend) -> None:
    answers = iter([True, True, False])
    with pytest.raises(BuildError, match="BuildCanceled"):
        rtx.build(network(rtx), fxtrt.Settings(), lambda fraction: next(answers, False))
