"""Calls that give their input back leave the graph; those that give new memory away stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from passcheck import check_changes, check_keeps, targets

from fxtrt.capture.export import capture_module, trace
from fxtrt.passes import drop_identities

aten = torch.ops.aten

X = torch.randn(2, 3, 4)
SPECIAL = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-42, 2.5, -3.0])

IDENTITIES: dict[str, Callable[[torch.Tensor], Any]] = {
    "alias": aten.alias.default,
    "detach": aten.detach.default,
    "clone": aten.clone.default,
    "lift_fresh_copy": aten.lift_fresh_copy.default,
    "to_copy": lambda x: aten._to_copy.default(x, dtype=torch.float32),
    "native_dropout": lambda x: aten.native_dropout.default(x, 0.5, False)[0],
    "view": lambda x: aten.view.default(x, [2, 3, 4]),
    "unsafe_view": lambda x: aten._unsafe_view.default(x, [2, 3, 4]),
    "expand": lambda x: aten.expand.default(x, [-1, 3, 4]),
    "permute": lambda x: aten.permute.default(x, [0, 1, 2]),
    "transpose": lambda x: aten.transpose.int(x, 1, -2),
    "slice": lambda x: aten.slice.Tensor(x, 1, 0, 9223372036854775807),
    "squeeze": lambda x: aten.squeeze.dim(x, 1),
    "mul": lambda x: aten.mul.Tensor(x, 1),
    "div": lambda x: aten.div.Tensor(x, 1.0),
    "sub": lambda x: aten.sub.Tensor(x, 0),
}


def around(identity: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    return lambda x: identity(x.neg()).exp()


@pytest.mark.parametrize("name", IDENTITIES)
def test_an_identity_is_dropped(name: str) -> None:
    gm = trace(around(IDENTITIES[name]), (X,))
    assert len(targets(gm)) > 2
    check_changes(drop_identities, gm, (X,))
    assert targets(gm) == ["neg.default", "exp.default"]


def test_drops_a_whole_dropout() -> None:
    """Tracing takes this composite apart, so the graph is made from one with a clone."""
    gm = trace(around(aten.clone.default), (X,))
    (node,) = gm.graph.find_nodes(op="call_function", target=aten.clone.default)
    node.target, node.args = aten.dropout.default, (node.args[0], 0.5, True)
    check_keeps(drop_identities, gm)
    node.args = (node.args[0], 0.5, False)
    gm.recompile()
    check_changes(drop_identities, gm, (X,))
    assert targets(gm) == ["neg.default", "exp.default"]


@pytest.mark.parametrize("name", ["clone", "view", "permute", "slice", "mul", "sub", "to_copy"])
def test_drops_with_symbolic_sizes(name: str) -> None:
    identity = IDENTITIES[name]
    if name == "view":
        identity = lambda x: aten.view.default(x, list(x.shape))  # noqa: E731
    gm = trace(around(identity), (X,), dynamic=True)
    check_changes(drop_identities, gm, (X,))
    gm.graph.eliminate_dead_code()
    assert targets(gm) == ["neg.default", "exp.default"]


@pytest.mark.parametrize("name", ["mul", "div", "sub"])
def test_neutral_numbers_are_exact(name: str) -> None:
    """Bit by bit, with signed zeros and NaN: that is why `x + 0` is not among them."""
    actual = IDENTITIES[name](SPECIAL)
    assert torch.equal(actual.view(torch.int32), SPECIAL.view(torch.int32))
    assert not torch.equal((SPECIAL + 0).view(torch.int32), SPECIAL.view(torch.int32))


def test_drops_integer_addition_of_zero() -> None:
    x = torch.arange(6)
    gm = trace(lambda x: aten.neg(aten.add.Tensor(x.neg(), 0)), (x,))
    check_changes(drop_identities, gm, (x,))
    assert targets(gm) == ["neg.default", "neg.default"]


KEPT: dict[str, Callable[[torch.Tensor], Any]] = {
    "training dropout": lambda x: aten.native_dropout.default(x, 0.5, True)[0],
    "native_dropout's None is training": lambda x: aten.native_dropout.default(x, 0.5, None)[0],
    "cast": lambda x: aten._to_copy.default(x, dtype=torch.float64),
    "other memory format": lambda x: aten.clone.default(
        x.transpose(0, 1), memory_format=torch.contiguous_format
    ),
    "other order": lambda x: aten.permute.default(x, [1, 0, 2]),
    "part": lambda x: aten.slice.Tensor(x, 1, 0, 2),
    "other sizes": lambda x: aten.view.default(x, [6, 4]),
    "added zero": lambda x: aten.add.Tensor(x, 0),
    "added negative zero": lambda x: aten.sub.Tensor(x, -0.0),
    "floor": lambda x: aten.div.Tensor_mode(x, 1, rounding_mode="floor"),
    "alpha": lambda x: aten.sub.Tensor(x, 0.0, alpha=-1),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_changes_a_value_or_its_memory_is_kept(name: str) -> None:
    check_keeps(drop_identities, trace(around(KEPT[name]), (X,)))


def test_keeps_a_product_that_changes_the_dtype() -> None:
    x = torch.arange(6)
    check_keeps(drop_identities, trace(lambda x: aten.mul.Tensor(x.neg(), 1.0).neg(), (x,)))
    check_keeps(drop_identities, trace(lambda x: aten.div.Tensor(x.neg(), 1).neg(), (x,)))


def test_keeps_a_square_transpose() -> None:
    x = torch.randn(3, 3)
    check_keeps(drop_identities, trace(lambda x: x.neg().t().exp(), (x,)))


def test_keeps_a_complex_product_with_one() -> None:
    x = torch.tensor([complex(float("inf"), 1.0)])
    check_keeps(drop_identities, trace(lambda x: aten.mul.Tensor(x.neg(), 1.0).neg(), (x,)))


W = torch.randn(3)

GIVEN_AWAY: dict[str, Callable[[torch.Tensor], Any]] = {
    "an input's copy": lambda x: x.clone(),
    "a view of an input's copy": lambda x: x.clone().view(6, 4),
    "a copy of a view of an input": lambda x: x.view(6, 4).clone(),
    "an input's product": lambda x: aten.mul.Tensor(x, 1),
    "a weight's copy": lambda x: (W.clone(), x.neg()),
    "a result and its copy": lambda x: (y := x.neg(), y.clone()),
    "a view of a result, and its copy": lambda x: ((y := x.neg()).view(6, 4), y.clone()),
    "an input's alias": lambda x: aten.alias.default(x),
}


@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_keeps_outputs_in_memory_of_their_own(name: str) -> None:
    check_keeps(drop_identities, trace(GIVEN_AWAY[name], (X,)))


def test_drops_an_output_copy_of_an_intermediate() -> None:
    gm = trace(lambda x: x.neg().clone(), (X,))
    check_changes(drop_identities, gm, (X,))
    assert targets(gm) == ["neg.default"]


def test_drops_all_but_the_last_of_a_chain_of_copies() -> None:
    gm = trace(lambda x: x.clone().clone().clone(), (X,))
    actual = check_changes(drop_identities, gm, (X,))
    assert targets(gm) == ["clone.default"]
    assert actual[0].data_ptr() != X.data_ptr()


class Counter(torch.nn.Module):
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.count.clone()
        self.count.add_(x)
        return before * 2


def test_keeps_copies_of_what_is_written_to() -> None:
    x = torch.ones(3)
    gm = capture_module(Counter().eval(), (x,))
    assert "copy_.default" in targets(gm)
    drop_identities(gm)
    gm.recompile()
    torch.testing.assert_close([gm(x), gm(x)], [torch.zeros(3), torch.full((3,), 2.0)])


def test_users_keep_their_meta() -> None:
    gm = trace(around(aten.clone.default), (X,))
    last = next(node for node in gm.graph.nodes if node.target is aten.exp.default)
    value = last.meta["val"]
    assert drop_identities(gm)
    assert last.meta["val"] is value
