"""Operators without a converter become parts that have one, or stay whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from passcheck import check_changes, check_keeps, targets, weights
from torch._ops import OpOverload

from fxtrt.capture.export import trace
from fxtrt.passes import decompose_unconverted

aten = torch.ops.aten

A, B, C = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3)

Convert = Callable[[Iterable[OpOverload]], None]


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch) -> Convert:
    """Says which targets have a converter, whatever the catalogue has."""

    def set_targets(converted: Iterable[OpOverload]) -> None:
        table = dict.fromkeys(converted)
        module = sys.modules["fxtrt.passes.decompose_unconverted"]
        monkeypatch.setattr(module, "registered", lambda: table)

    return set_targets


def addcmul(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> Any:
    return aten.addcmul.default(a, b, c, value=2)


@pytest.mark.parametrize("dynamic", [False, True])
def test_takes_apart_where_every_part_converts(convert: Convert, dynamic: bool) -> None:
    convert([aten.mul.Tensor, aten.add.Tensor])
    gm = trace(addcmul, (A, B, C), dynamic=dynamic)
    assert targets(gm) == ["addcmul.default"]
    check_changes(decompose_unconverted, gm, (A, B, C), tolerance=1e-6)
    assert set(targets(gm)) == {"mul.Tensor", "add.Tensor"}


@pytest.mark.parametrize("converted", [[], [aten.add.Tensor], [aten.mul.Tensor]])
def test_stays_whole_where_a_part_does_not(convert: Convert, converted: list[OpOverload]) -> None:
    convert(converted)
    check_keeps(decompose_unconverted, trace(addcmul, (A, B, C)))


def test_keeps_what_converts(convert: Convert) -> None:
    convert([aten.mul.Tensor, aten.add.Tensor, aten.addcmul.default])
    check_keeps(decompose_unconverted, trace(addcmul, (A, B, C)))


def test_takes_parts_apart_in_turn(convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_parts(a: Any, b: Any, c: Any, *, value: Any = 1) -> Any:
        return aten.rsub.Tensor(b * c * -value, a)

    module = sys.modules["fxtrt.passes.decompose_unconverted"]
    rsub = module.decomposition_table[aten.rsub.Tensor]
    table = {aten.addcmul.default: by_parts, aten.rsub.Tensor: rsub}
    monkeypatch.setattr(module, "decomposition_table", table)
    convert([aten.mul.Tensor, aten.sub.Tensor])
    gm = trace(addcmul, (A, B, C))
    check_changes(decompose_unconverted, gm, (A, B, C), tolerance=1e-6)
    assert targets(gm) == ["mul.Tensor", "mul.Tensor", "sub.Tensor"]


def test_log_softmax_is_decomposed(convert: Convert) -> None:
    convert(
        [
            aten.amax.default,
            aten.sub.Tensor,
            aten.exp.default,
            aten.sum.dim_IntList,
            aten.log.default,
        ]
    )
    gm = trace(lambda x: aten._log_softmax.default(x, -1, False), (A,))
    check_changes(decompose_unconverted, gm, (A,), tolerance=1e-6)
    assert "_log_softmax.default" not in targets(gm)


def test_an_operator_with_several_outputs_is_decomposed(convert: Convert) -> None:
    convert(
        [
            aten.var_mean.correction,
            aten.add.Tensor,
            aten.rsqrt.default,
            aten.sub.Tensor,
            aten.mul.Tensor,
            aten.squeeze.dims,
        ]
    )
    w = torch.randn(3)
    gm = trace(lambda x: aten.native_layer_norm.default(x, [3], w, w, 1e-5)[0], (A,))
    check_changes(decompose_unconverted, gm, (A,), tolerance=1e-6)
    assert "native_layer_norm.default" not in targets(gm)
    assert weights(gm)


def test_parts_have_the_source_of_the_whole(convert: Convert) -> None:
    convert([aten.mul.Tensor, aten.add.Tensor])
    gm = trace(addcmul, (A, B, C))
    (node,) = gm.graph.find_nodes(op="call_function", target=aten.addcmul.default)
    node.meta["stack_trace"] = 'File "model.py", line 12, in forward'
    node.meta["nn_module_stack"] = {"head": ("head", torch.nn.Module)}
    source = dict(node.meta)
    assert decompose_unconverted(gm)
    parts = [node for node in gm.graph.nodes if node.op == "call_function"]
    assert all(part.meta["stack_trace"] == source["stack_trace"] for part in parts)
    assert all(part.meta["nn_module_stack"] == source["nn_module_stack"] for part in parts)
    shapes = {(tuple(part.meta["val"].shape), part.meta["val"].dtype) for part in parts}
    assert shapes == {((2, 3), torch.float32)}


def test_random_operators_stay_whole(convert: Convert) -> None:
    convert([aten.mul.Tensor, aten.rand_like.default, aten.gt.Scalar, aten._to_copy.default])
    check_keeps(
        decompose_unconverted, trace(lambda x: aten.native_dropout.default(x, 0.5, True)[0], (A,))
    )


def test_guards_keep_an_operator_whole(convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decomposition that asks for the example's size is wrong for other sizes."""

    def by_size(a: Any, b: Any, c: Any, *, value: Any = 1) -> Any:
        return a + b * c * (value if a.shape[0] % 2 == 0 else -value)

    convert([aten.mul.Tensor, aten.add.Tensor])
    module = sys.modules["fxtrt.passes.decompose_unconverted"]
    monkeypatch.setattr(module, "decomposition_table", {aten.addcmul.default: by_size})
    gm = trace(addcmul, (A, B, C), dynamic=True)
    shape_env = next(iter(gm.graph.nodes)).meta["val"].fake_mode.shape_env
    guards = len(shape_env.guards)
    check_keeps(decompose_unconverted, gm)
    check_keeps(decompose_unconverted, gm)
    assert len(shape_env.guards) == guards
    assert decompose_unconverted(trace(addcmul, (A, B, C)))


def test_a_decomposition_that_changes_the_dtype_is_not_used(
    convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert([aten.mul.Tensor, aten._to_copy.default])
    module = sys.modules["fxtrt.passes.decompose_unconverted"]
    table = {aten.addcmul.default: lambda a, b, c, value: (b * c).double()}
    monkeypatch.setattr(module, "decomposition_table", table)
    check_keeps(decompose_unconverted, trace(addcmul, (A, B, C)))


def test_equal_calls_are_traced_once(convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[Any] = []

    def decomposition(a: Any, b: Any, c: Any, *, value: Any = 1) -> Any:
        traced.append(a.shape)
        return a + b * c * value

    convert([aten.mul.Tensor, aten.add.Tensor])
    module = sys.modules["fxtrt.passes.decompose_unconverted"]
    monkeypatch.setattr(module, "decomposition_table", {aten.addcmul.default: decomposition})

    def chain(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> Any:
        for _ in range(100):
            a = aten.addcmul.default(a, b, c, value=0.5)
        return a + aten.addcmul.default(a, a, c, value=0.5)

    gm = trace(chain, (A, B, C))
    assert decompose_unconverted(gm)
    assert len(traced) == 2
    gm.recompile()
    torch.testing.assert_close(gm(A, B, C)[0], chain(A, B, C), atol=1e-4, rtol=1e-4)
