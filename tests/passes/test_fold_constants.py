"""What depends on weights alone is computed once; what must stay fresh is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from passcheck import check_changes, check_keeps, targets, weights

from fxtrt.capture.export import capture_module, trace
from fxtrt.passes import fold_constants

aten = torch.ops.aten

X = torch.randn(2, 3)
W = torch.randn(3, 3)
S = torch.tensor(2.0)

FOLDED: dict[str, Callable[[torch.Tensor], Any]] = {
    "filled memory": lambda x: x + aten.fill.Scalar(torch.empty(3), 2),
    "arithmetic": lambda x: x + (W * W + 1).rsqrt()[1],
    "view": lambda x: x @ W.t(),
    "several outputs": lambda x: x + torch.split(W, 2)[1],
    "arange": lambda x: x + torch.arange(3),
    "full": lambda x: x + torch.full((2, 1), 0.5),
    "scalar": lambda x: x + aten.scalar_tensor.default(2.0),
    "expand": lambda x: x + W[0].expand(2, 3),
    "full of one number": lambda x: x + x.new_full((3,), 2.0, dtype=torch.float64),
    "ones like an input": lambda x: x + torch.ones_like(x),
    "captured constant": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_weights_alone_decide_is_folded(name: str) -> None:
    gm = trace(FOLDED[name], (X,))
    check_changes(fold_constants, gm, (X,))
    assert len(targets(gm)) == 1
    assert len(weights(gm)) == 1


def test_names_are_stable_and_free() -> None:
    def graph() -> torch.fx.GraphModule:
        return trace(lambda x: (x + W.neg(), x + W.exp()[0]), (X[:1],))

    first, second = graph(), graph()
    second.register_buffer("folded_neg", torch.zeros(1))
    fold_constants(first)
    fold_constants(second)
    assert weights(first) == ["folded_neg", "folded_select"]
    assert weights(second) == ["folded_neg_1", "folded_select"]


def test_a_folded_view_keeps_its_strides_in_its_own_memory() -> None:
    weight = torch.randn(3, 3)
    gm = trace(lambda x: x @ weight.t(), (X,))
    expected = X @ weight.t()
    assert fold_constants(gm)
    gm.recompile()
    (name,) = weights(gm)
    assert getattr(gm, name).stride() == (1, 3)
    weight.zero_()
    torch.testing.assert_close(gm(X)[0], expected)


def test_folds_dotted_parameters_and_leaves_the_module_alone() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.inner.bias.exp()

    gm = capture_module(Scaled().eval(), (X,))
    with torch.no_grad():
        check_changes(fold_constants, gm, (X,))
    assert weights(gm) == ["inner.weight", "folded_exp"]
    assert not gm.folded_exp.requires_grad
    assert isinstance(gm.get_parameter("inner.bias"), torch.nn.Parameter)


KEPT: dict[str, Callable[[torch.Tensor], Any]] = {
    "reads an input": lambda x: x.neg() + 1,
    "a new output": lambda x: (x.new_zeros(3), x.neg()),
    "random": lambda x: x + aten.rand.default([3]),
    "random from a weight": lambda x: x + aten.bernoulli.p(W, 0.5)[:2],
    "uninitialised": lambda x: aten.empty.memory_format([3]).numel() + x,
    "too large": lambda x: x + S.expand(1200, 1000).sum(),
    "an output": lambda x: (torch.arange(3), x.neg()),
    "a view of an output": lambda x: (torch.arange(4).view(2, 2), x.neg()),
    "a view of a weight as output": lambda x: (W.t(), x.neg()),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_must_be_computed_is_kept(name: str) -> None:
    check_keeps(fold_constants, trace(KEPT[name], (X,)))


def test_folds_large_results_of_large_weights() -> None:
    large = torch.ones(1200, 1000)
    gm = trace(lambda x: x + large.neg().sum(), (X,))
    check_changes(fold_constants, gm, (X,))
    assert targets(gm) == ["add.Tensor"]


def test_keeps_symbolic_sizes() -> None:
    gm = trace(
        lambda x: x + aten.arange.default(x.shape[1]) + torch.ones_like(x), (X,), dynamic=True
    )
    check_keeps(fold_constants, gm)


class Running(torch.nn.Module):
    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = self.total * 2
        self.total.add_(x)
        return doubled + x


def test_keeps_what_reads_a_written_buffer() -> None:
    x = torch.ones(3)
    gm = capture_module(Running().eval(), (x,))
    check_keeps(fold_constants, gm)
    torch.testing.assert_close([gm(x), gm(x)], [torch.ones(3), torch.full((3,), 3.0)])
