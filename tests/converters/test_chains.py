"""Random chains and DAGs of operators go through the whole pipeline and equal eager."""

from __future__ import annotations

import pytest
import torch
from chains import Program, programs
from hypothesis import HealthCheck, given, settings
from sizes import may_run
from torch.fx import GraphModule

from fxtrt.capture.export import trace
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.lowering.lower import lower
from fxtrt.runtime.engine_module import EngineModule
from fxtrt.settings import Settings

FEW, MANY = 40, 1500
"""Programs per test, without and with --all-samples."""
OTHER_SIZES = {2: 4, 3: 7, 5: 6}
SETTINGS = Settings(engine="reference", min_cluster_size=1, on_build_failure="raise")


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_equals_eager(
    dynamic: bool, reference: EngineBackend, request: pytest.FixtureRequest
) -> None:
    clusters = 0

    def check(program: Program) -> None:
        nonlocal clusters
        compiled = _compile(program, reference, dynamic=dynamic)
        clusters += len(_engines(compiled))
        _compare(compiled, program)
        other = program.resized(OTHER_SIZES)
        if dynamic and may_run(compiled, other.inputs):
            _compare(compiled, other)

    count = MANY if request.config.getoption("--all-samples") else FEW
    configure = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    configure(given(programs())(check))()
    assert clusters >= count // 2


def _compile(program: Program, backend: EngineBackend, *, dynamic: bool) -> GraphModule:
    gm = trace(program, program.inputs, dynamic=dynamic)
    return lower(gm, Target(backend, SETTINGS)).graph


def _engines(compiled: GraphModule) -> list[EngineModule]:
    return [module for module in compiled.modules() if isinstance(module, EngineModule)]


def _compare(compiled: GraphModule, program: Program) -> None:
    expected, actual = program(*program.inputs), compiled(*program.inputs)
    for a, e in zip(actual, expected, strict=True):
        finite = e[e.isfinite()]
        largest = float(finite.abs().max()) if e.is_floating_point() and finite.numel() else 1.0
        exact = not e.is_floating_point()
        rtol, atol = (0.0, 0.0) if exact else (1e-4, 1e-5 * max(1.0, largest))
        torch.testing.assert_close(a, e, rtol=rtol, atol=atol, equal_nan=True)
    assert [engine.fallbacks for engine in _engines(compiled) if engine.fallbacks] == []
