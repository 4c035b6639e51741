"""Plans are found again only for the same cluster, and a damaged file loses nothing."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from fxtrt.cache import EngineKey, PlanCache, _code_digest, _symbols
from fxtrt.capture import trace
from fxtrt.engines.base import EngineBackend
from fxtrt.registry import Converter, registered
from fxtrt.settings import Settings

X, Y = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
W, V = torch.randn(4), torch.randn(4)
KEY = EngineKey("0" * 64)


def key(function: Callable[..., Any], backend: EngineBackend, **options: Any) -> EngineKey:
    return EngineKey.of(trace(function, (X, Y)), backend, Settings(**options))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(lambda x, y: x - y, lambda x, y: y - x, id="operand order"),
        pytest.param(lambda x, y: x.softmax(0), lambda x, y: x.softmax(1), id="axis"),
        pytest.param(
            lambda x, y: F.max_pool2d(x, 2), lambda x, y: F.max_pool2d(x, 2, 1), id="stride"
        ),
        pytest.param(lambda x, y: x.clamp(0, 1), lambda x, y: x.clamp(0, 6), id="bounds"),
        pytest.param(lambda x, y: x * 2, lambda x, y: x * 2.0, id="scalar type"),
        pytest.param(lambda x, y: x.flatten(1) @ W.new_ones(144), lambda x, y: x * 3, id="target"),
        pytest.param(lambda x, y: x[..., :4] * W, lambda x, y: x[..., :4] * V, id="weights"),
        pytest.param(lambda x, y: (x * 2, x + y), lambda x, y: (x + y, x * 2), id="output order"),
    ],
)
def test_different_clusters_have_different_keys(
    one: Any, other: Any, reference: EngineBackend
) -> None:
    assert key(one, reference) == key(one, reference)
    assert key(one, reference) != key(other, reference)


def test_the_key_covers_settings_and_engine(reference: EngineBackend) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    base = key(function, reference)
    assert base != key(function, reference, optimization_level=1)
    assert base == key(function, reference, min_cluster_size=7)


def test_the_key_covers_shapes_and_ranges(reference: EngineBackend) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    def of(x: torch.Tensor, dynamic: bool = False) -> EngineKey:
        return EngineKey.of(trace(function, (x,), dynamic=dynamic), reference, Settings())

    assert of(X) != of(X[..., :3])
    assert of(X) != of(X.half())
    assert of(X) != of(X, dynamic=True)


def test_a_plan_comes_back_as_it_went_in(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, b"plan")
    assert cache.get(KEY) == b"plan"
    assert [path.name for path in (tmp_path / "plans").iterdir()] == [f"{KEY.digest}.plan"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="cut short"),
        pytest.param(lambda data: data[:10], id="no header"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1] + b"X", id="changed"),
        pytest.param(lambda data: b"x" + data[1:], id="another format"),
    ],
)
def test_a_damaged_file_counts_as_absent(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan")
    (file,) = (tmp_path / "plans").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    assert "built again" in caplog.text
    assert not file.exists()
    cache.put(KEY, b"plan")
    assert cache.get(KEY) == b"plan"


def test_a_directory_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        PlanCache(blocked).put(KEY, b"plan")
    assert "could not be written" in caplog.text


def test_the_key_covers_the_code_that_makes_networks(
    reference: EngineBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def of_source(source: str) -> EngineKey:
        (tmp_path / "fxtrt_third_party.py").write_text(source)
        _code_digest.cache_clear()
        return key(function, reference)

    monkeypatch.syspath_prepend(tmp_path)
    first = of_source("def build(ctx, x):\n    return x\n")
    module = importlib.import_module("fxtrt_third_party")
    erfinv = torch.ops.aten.erfinv.default
    extra = Converter(erfinv, module.build, parameters={"self": "x"})
    monkeypatch.setattr("fxtrt.registry._CONVERTERS", {**registered(), erfinv: extra})
    second = of_source("def build(ctx, x):\n    return x\n")
    assert first != second == of_source("def build(ctx, x):\n    return x\n")
    assert second != of_source("def build(ctx, x):\n    return ctx.unary('SIN', x)\n")
    monkeypatch.undo()
    _code_digest.cache_clear()


def test_symbols_may_swap_their_names() -> None:
    s0, s1 = (sympy.Symbol(name, integer=True, positive=True) for name in ("s0", "s1"))
    graph, environment = torch.fx.Graph(), ShapeEnv()
    for number, size in enumerate((s1, s0, s1 + 2 * s0)):
        value = environment.create_symintnode(size, hint=number)
        graph.placeholder(f"x{number}").meta["val"] = value
    graph.output(())
    assert _symbols(torch.fx.GraphModule({}, graph)) == ["s0", "s1", "s0 + 2*s1"]
