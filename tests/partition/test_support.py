"""A cluster whose nodes are all supported converts, however its sizes are computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sizes import may_run
from torch import Tensor

from fxtrt.capture.export import trace
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.lowering.lower import lower
from fxtrt.runtime.engine_module import EngineModule
from fxtrt.settings import Settings

SETTINGS = Settings(engine="reference", min_cluster_size=1, on_build_failure="raise")
EXAMPLE, OTHERS = (24, 35), ((35, 24), (13, 60))
LARGEST = 90

Number = Any
"""An int, or a SymInt while it is traced."""

ROUNDINGS: tuple[Callable[[Any], Number], ...] = (torch.sym_int, math.floor, math.ceil)
FACTORS = (0.3, 0.1, 0.5, 0.7, 1.3, -0.3)
OFFSETS = (0, 0, 2, -3)

STEPS: dict[str, Callable[[Tensor, Tensor, Number], Tensor]] = {
    "relu": lambda a, b, n: a.relu(),
    "stays in PyTorch": lambda a, b, n: torch.special.bessel_j0(a),
    "up to": lambda a, b, n: a[:, :, :n],
    "from": lambda a, b, n: a[:, :, n:],
    "pad": lambda a, b, n: F.pad(a, (0, 0, 0, n), value=2.0),
    "pad before": lambda a, b, n: F.pad(a, (n, 1)),
    "pad to another": lambda a, b, n: F.pad(a, (0, 0, 0, b.shape[2] - a.shape[2])),
    "resize": lambda a, b, n: F.interpolate(a, size=(n, n + 1)),
    "resize like another": lambda a, b, n: F.interpolate(a, size=b.shape[2:], mode="bilinear"),
    "scale": lambda a, b, n: F.interpolate(a, scale_factor=0.7, recompute_scale_factor=True),
    "scale by": lambda a, b, n: F.interpolate(a, scale_factor=0.5),
    "roll": lambda a, b, n: a.roll(n, 2),
    "times": lambda a, b, n: a * n,
    "divide": lambda a, b, n: a / (b.shape[2] * b.shape[3]),
    "ramp": lambda a, b, n: a + torch.arange(a.shape[2])[:, None],
    "broadcast": lambda a, b, n: a.mean(2, keepdim=True).expand(-1, -1, n, -1),
    "fill": lambda a, b, n: a + a.new_ones(a.shape[2:]),
    "flatten": lambda a, b, n: a.flatten(2).unsqueeze(1),
    "cat": lambda a, b, n: torch.cat([a, a * 2], 2),
}


@dataclass(frozen=True)
class Program:
    """Steps by name, each with two operands, whose size is rounded to a number, and how."""

    steps: tuple[tuple[str, int, int, int, float, int], ...] = ()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Every value that no step reads."""
        values, read = [x], {0}
        for name, first, second, rounding, factor, offset in self.steps:
            a, b = values[first], values[second]
            number = ROUNDINGS[rounding](torch.sym_float(b.shape[2]) * factor) + offset
            values.append(STEPS[name](a, b, number))
            read.add(first)
        return tuple(value for place, value in enumerate(values) if place not in read)


@st.composite
def programs(draw: Callable[[Any], Any]) -> Program:
    """Programs that run in eager with no empty tensor."""
    program, count = Program(), 1
    for _ in range(draw(st.integers(2, 7))):
        step = (
            draw(st.sampled_from(sorted(STEPS))),
            draw(st.one_of(st.just(count - 1), st.integers(0, count - 1))),
            draw(st.integers(0, count - 1)),
            draw(st.integers(0, len(ROUNDINGS) - 1)),
            draw(st.sampled_from(FACTORS)),
            draw(st.sampled_from(OFFSETS)),
        )
        longer = Program((*program.steps, step))
        if _runs(longer, EXAMPLE):
            program, count = longer, count + 1
    return program if program.steps else Program((("relu", 0, 0, 0, 1.0, 0),))


def _runs(program: Program, size: tuple[int, int]) -> bool:
    try:
        results = program(_image(size))
    except (RuntimeError, ValueError, IndexError):
        return False
    return all(y.numel() > 0 and max(y.shape) <= LARGEST**2 and y.dim() == 4 for y in results)


def _image(size: tuple[int, int]) -> Tensor:
    return torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_what_is_supported_converts(
    reference: EngineBackend, request: pytest.FixtureRequest
) -> None:
    engines = compared = fallbacks = 0

    def check(program: Program) -> None:
        nonlocal engines, compared, fallbacks
        try:
            gm = trace(program, (_image(EXAMPLE),), dynamic=True)
        except TypeError:
            return  # torch cannot bound a product of a float and an infinity
        compiled = lower(gm, Target(reference, SETTINGS)).graph
        modules = [module for module in compiled.modules() if isinstance(module, EngineModule)]
        engines += len(modules)
        for size in (EXAMPLE, *OTHERS):
            x = _image(size)
            if not _runs(program, size) or not may_run(compiled, (x,)):
                continue
            compared += 1
            for actual, expected in zip(compiled(x), program(x), strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
        fallbacks += sum(sum(module.fallbacks.values()) for module in modules)

    count = 1500 if request.config.getoption("--all-samples") else 20
    configure = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    configure(given(programs())(check))()
    assert engines >= count // 2
    assert compared >= count
    assert fallbacks <= compared // 10, "sizes of 1 and more run in engines"
