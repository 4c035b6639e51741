"""Two clusters have one key exactly when they compute the same."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from graphs import shuffle
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph, GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from fxtrt.cache.engine_key import EngineKey, _Symbols
from fxtrt.capture.export import trace
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.engines.target import Target
from fxtrt.registry import Converter, registered
from fxtrt.serialization.digests import code_digest
from fxtrt.settings import Settings

aten = torch.ops.aten
X, Y = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
W, V = torch.randn(4), torch.randn(4)
BACKEND = ReferenceBackend()


def key(function: Callable[..., Any], **options: Any) -> EngineKey:
    return EngineKey.of(trace(function, (X, Y)), Target(BACKEND, Settings(**options)))


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
def test_different_clusters_have_different_keys(one: Any, other: Any) -> None:
    assert key(one) == key(one)
    assert key(one) != key(other)


@dataclass(frozen=True)
class Use:
    """An argument that is the input (0), the weight (1) or the result of a call (2 and up)."""

    value: int


@dataclass(frozen=True)
class Program:
    """Calls of (target, arguments), on an input and a weight; results nobody reads are outputs."""

    calls: tuple[tuple[Any, tuple[Any, ...]], ...]
    weight: float

    def graph_module(self, prefix: str = "n") -> GraphModule:
        graph, value = Graph(), torch.empty(2, 3, device="meta")
        values = [graph.placeholder(f"{prefix}_in"), graph.get_attr(f"{prefix}_weight")]

        def resolved(argument: Any) -> Any:
            if isinstance(argument, list):
                return [resolved(item) for item in argument]
            return values[argument.value] if isinstance(argument, Use) else argument

        for number, (target, arguments) in enumerate(self.calls):
            args = tuple(map(resolved, arguments))
            name = f"{prefix}_{number}"
            values.append(graph.create_node("call_function", target, args, {}, name))
        for node in values:
            node.meta["val"] = value
        graph.output(tuple(node for node in values if not node.users))
        root = torch.nn.Module()
        root.register_buffer(f"{prefix}_weight", torch.full((2, 3), self.weight))
        return GraphModule(root, graph)

    def key(self, prefix: str = "n") -> EngineKey:
        return EngineKey.of(self.graph_module(prefix), Target(BACKEND, Settings()))

    def expressions(self) -> Any:
        """What the outputs are, written out in full, with the type of every argument."""
        values: list[Any] = ["input", f"weight {self.weight}"]
        read: set[int] = set()

        def written(argument: Any) -> Any:
            if isinstance(argument, list):
                return [written(item) for item in argument]
            if isinstance(argument, Use):
                read.add(argument.value)
                return values[argument.value]
            return f"{type(argument)} {argument!r}"

        for target, arguments in self.calls:
            values.append([str(target), *map(written, arguments)])
        return [value for i, value in enumerate(values) if i not in read]


TARGETS = (aten.add.Tensor, aten.sub.Tensor, aten.softmax.int, aten.max_pool2d.default)
LITERALS = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, float("inf"), float("nan")]),
    st.booleans(),
    st.none(),
    st.sampled_from(["", "mean", "node", "int:1"]),
    st.sampled_from([torch.float32, torch.float16, torch.channels_last]),
)


def arguments_of_call(known: int) -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.integers(0, known - 1).map(Use), LITERALS)
    return st.one_of(leaves, st.lists(leaves, max_size=3))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    calls = []
    for number in range(draw(st.integers(1, 5))):
        arguments = draw(st.lists(arguments_of_call(number + 2), min_size=1, max_size=3))
        calls.append((draw(st.sampled_from(TARGETS)), tuple(arguments)))
    return Program(tuple(calls), draw(st.sampled_from([0.0, 1.0])))


@st.composite
def changed(draw: st.DrawFn) -> tuple[Program, Program]:
    """A program, and the same with another argument, target or weight."""
    program = draw(programs())
    number = draw(st.integers(0, len(program.calls) - 1))
    target, arguments = program.calls[number]
    what = draw(st.sampled_from(["argument", "one more", "target", "weight"]))
    if what == "weight":
        return program, replace(program, weight=1.5)
    if what == "target":
        target = draw(st.sampled_from(TARGETS))
    else:
        place = draw(st.integers(0, len(arguments) - (what == "argument")))
        after = arguments[place + (what == "argument") :]
        arguments = (*arguments[:place], draw(arguments_of_call(number + 2)), *after)
    calls = (*program.calls[:number], (target, arguments), *program.calls[number + 1 :])
    return program, replace(program, calls=calls)


@given(changed())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_change_of_what_is_computed_changes_the_key(pair: tuple[Program, Program]) -> None:
    one, other = pair
    same = str(one.expressions()) == str(other.expressions())
    assert (one.key() == other.key()) == same


@given(programs())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_names_do_not_count(program: Program) -> None:
    assert program.key() == program.key("other")


@given(programs(), st.integers(0, 100))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_order_that_nodes_stand_in_does_not_count(program: Program, seed: int) -> None:
    gm = program.graph_module()
    shuffle(gm, seed)
    assert EngineKey.of(gm, Target(BACKEND, Settings())) == program.key()


PROGRAM = Program(((aten.add.Tensor, (Use(0), Use(1), 2.0)), (torch.sym_max, (Use(2), 1))), 1.0)


def test_another_process_gives_the_same_key() -> None:
    code = "from test_engine_key import PROGRAM; print(PROGRAM.key().digest)"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": path}
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert printed.strip() == PROGRAM.key().digest


def test_the_key_covers_settings_versions_and_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    base = key(function)
    assert base != key(function, optimization_level=1)
    assert base == key(function, min_cluster_size=7)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        assert base != key(function)
    monkeypatch.setattr(BACKEND, "fingerprint", "TensorRT 99 for another GPU")
    assert base != key(function)


def test_names_count_where_they_keep_a_call_in_float32() -> None:
    def of(name: str, **options: Any) -> EngineKey:
        gm = trace(lambda x, y: x * 2 + y, (X, Y))
        (product,) = gm.graph.find_nodes(op="call_function", target=aten.mul.Tensor)
        product._rename(name)
        return EngineKey.of(gm, Target(BACKEND, Settings(**options)))

    assert of("mul") == of("product")
    assert of("mul", keep_fp32=("mul",)) != of("product", keep_fp32=("mul",))
    assert of("mul", keep_fp32=("mul", "product")) == of("product", keep_fp32=("mul", "product"))


def test_the_key_covers_shapes_and_ranges() -> None:
    def of(x: torch.Tensor, dynamic: bool = False) -> EngineKey:
        return EngineKey.of(
            trace(lambda x: x + 1, (x,), dynamic=dynamic), Target(BACKEND, Settings())
        )

    assert of(X) != of(X[..., :3])
    assert of(X) != of(X.half())
    assert of(X) != of(X, dynamic=True)


def test_the_key_covers_the_value_of_a_fixed_size() -> None:
    def of(size: int) -> EngineKey:
        graph = Graph()
        x, n = graph.placeholder("x"), graph.placeholder("n")
        x.meta["val"], n.meta["val"] = torch.empty(2, device="meta"), size
        call = graph.call_function(aten.add.Tensor, (x, n))
        call.meta["val"] = x.meta["val"]
        graph.output((call,))
        return EngineKey.of(GraphModule({}, graph), Target(BACKEND, Settings()))

    assert of(3) == of(3) != of(4)


def test_symbols_may_swap_their_names_but_not_their_places() -> None:
    s0, s1 = (sympy.Symbol(name, integer=True, positive=True) for name in ("s0", "s1"))

    def of(*expressions: sympy.Expr) -> list[str]:
        environment, symbols = ShapeEnv(), _Symbols()
        sizes = [environment.create_symintnode(expr, hint=3) for expr in expressions]
        return [symbols.describe(size) for size in sizes]

    assert of(s0, s1, s0 + 2 * s1) == of(s1, s0, s1 + 2 * s0)
    assert of(s0, s1, s0 + 2 * s1) != of(s0, s1, s1 + 2 * s0)


def test_the_key_covers_the_code_that_makes_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_source(source: str) -> EngineKey:
        (tmp_path / "fxtrt_third_party.py").write_text(source)
        code_digest.cache_clear()
        return key(lambda x, y: x + y)

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
    code_digest.cache_clear()
