"""Operators say which arguments they take in float16, and only those that they may."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from levels import pool_levels, score_levels
from torch import Tensor
from torch.fx import Node
from torch.library import custom_op

from fxtrt.capture.export import trace
from fxtrt.graph.formats import Form, half_arguments, memory_format_of, takes_half

X = torch.rand(2, 8, 4, 4)
WEIGHTS = torch.tensor([1.0, 0.5])


@custom_op("fxtrt_test::positive", mutates_args=())
def positive(features: list[Tensor]) -> Tensor:
    return features[0][features[0] > 0]


@positive.register_fake
def _(features: list[Tensor]) -> Tensor:
    return features[0].new_empty(torch.library.get_ctx().new_dynamic_size())


takes_half("fxtrt_test::positive", "features")


def named(function: Any) -> list[list[str]]:
    """The names of the nodes in the arguments that the last call takes in float16."""
    *_, call = (n for n in trace(function, (X,)).graph.nodes if is_own(n))
    return [[node.name for node in argument] for argument in half_arguments(call)]


def is_own(node: Node) -> bool:
    return "fxtrt_test" in str(node.target) or node.target == torch.ops.aten.relu.default


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: pool_levels([x.sin(), x.cos()], WEIGHTS), [["sin", "cos"]]),
        (lambda x: score_levels([x.sin()], [x.cos()]), [["sin"], ["cos"]]),
        (lambda x: pool_levels([x.sin()], x.sin().flatten()), [["sin"]]),
        (lambda x: (lambda y: pool_levels([y], y))(x[:1, 0, 0, 0].sin()[None, None]), [[]]),
        (lambda x: positive([x.sin()]), []),
        (lambda x: x.sin().relu(), []),
    ],
)
def test_the_arguments_in_half(function: Any, expected: list[list[str]]) -> None:
    assert named(function) == expected


def test_forms_are_plain_text() -> None:
    half = X.half()
    last = torch.channels_last
    assert str(Form.of(X)) == "float32"
    assert str(Form.of(half)) == "float16"
    assert str(Form.of(half.to(memory_format=last))) == "float16 channels-last"
    # TensorRT would pad 7 channels, and lays out no float32 like this.
    assert str(Form.of(half[:, :7].contiguous(memory_format=last))) == "float16"
    assert str(Form.of(X.to(memory_format=last))) == "float32"
    assert memory_format_of(X.to(memory_format=last)) == last
    assert memory_format_of(X.transpose(0, 1)) is None
