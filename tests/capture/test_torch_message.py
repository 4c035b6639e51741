"""Messages of torch keep what helps the author of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import fxtrt
from fxtrt.capture.torch_message import message_of
from fxtrt.errors import CaptureError


class OnlyThree(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(3, 4) + 1


class Sum(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x


X = torch.randn(3, 4)


def error_of(model: nn.Module, *inputs: Any, **options: Any) -> str:
    with pytest.raises(CaptureError) as caught:
        fxtrt.compile(model.eval(), inputs, engine="reference", **options)
    return str(caught.value)


def test_a_size_that_is_marked_and_fixed() -> None:
    shapes = ({0: Dim("batch", min=2, max=8)},)
    text = error_of(OnlyThree(), X, dynamic_shapes=shapes)
    assert text.startswith("torch.export could not capture OnlyThree: Constraints violated (batch)")
    assert "You marked batch as dynamic but your code specialized it to be a constant (3)" in text
    assert text.endswith("Suggested fixes:\n  batch = 3")
    assert "TORCH_LOGS" not in text
    assert "draft_export" not in text


def test_sizes_that_must_be_equal() -> None:
    shapes = ({0: Dim("a", min=2, max=8)}, {0: Dim("b", min=2, max=8)})
    assert error_of(Sum(), X, X, dynamic_shapes=shapes).endswith("Suggested fixes:\n  b = a")


def test_a_branch_on_data_names_its_line() -> None:
    text = error_of(Branches(), X, dynamic_shapes={})
    assert "data-dependent" in text
    assert Path(__file__).name in text
    assert "TORCHDYNAMO_EXTENDED_DEBUG" not in text
    assert "docs.google.com" not in text


def test_in_the_report_it_is_one_line() -> None:
    (row,) = fxtrt.report(Branches().eval(), (X,), engine="reference").rejections[:1]
    assert row.code == "capture"
    assert "data-dependent" in row.detail
    assert "\n" not in row.detail


OLDER = """Could not guard on data-dependent expression u0 > 5 (unhinted: u0 > 5).

Caused by: y = x[:n]  # model.py:7 in forward (_refs/__init__.py:1 in slice)
For more information, run with TORCH_LOGS="dynamic"

User Stack (most recent call last):
  File "model.py", line 7, in forward

To fix the error, insert one of the following checks before this call:
  1. torch._check(n > 5)
  2. torch._check(n <= 5)

(These suggested fixes were derived by replacing `u0` with n in u0 > 5 and its negation.)"""


def test_checks_that_torch_suggests() -> None:
    lines = message_of(ValueError(OLDER)).splitlines()
    assert lines == [
        "Could not guard on data-dependent expression u0 > 5 (unhinted: u0 > 5).",
        "Caused by: y = x[:n]  # model.py:7 in forward (_refs/__init__.py:1 in slice)",
        "To fix the error, insert one of the following checks before this call:",
        "  1. torch._check(n > 5)",
        "  2. torch._check(n <= 5)",
    ]


def test_an_error_without_a_message_has_its_name() -> None:
    assert message_of(KeyError()) == "KeyError"
