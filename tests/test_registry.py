"""A converter must account for every argument of its operator's schema."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from fxtrt.errors import RegistrationError
from fxtrt.registry import (
    bind,
    converts,
    registered,
)

aten = torch.ops.aten


def test_an_ignored_argument_is_refused() -> None:
    with pytest.raises(RegistrationError, match=r"ignores \['ceil_mode'"):

        @converts(aten.max_pool2d_with_indices_backward.default)
        def pool(
            ctx: Any,
            grad_output: Any,
            x: Any,
            kernel_size: Any,
            stride: Any,
            padding: Any,
            dilation: Any,
            indices: Any,
        ) -> Any: ...


def test_a_check_counts_as_looking_at_an_argument() -> None:
    with pytest.raises(RegistrationError, match=r"ignores \['generator'\]"):

        @converts(aten.bernoulli.default, check=lambda node: None)
        def bernoulli(ctx: Any, x: Any) -> Any: ...


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(RegistrationError, match=r"no argument \['inplace'\]"):

        @converts(aten.rand_like.default)
        def rand_like(ctx: Any, x: Any, inplace: bool) -> Any: ...


def test_a_target_has_one_converter() -> None:
    assert aten.relu.default in registered()
    with pytest.raises(RegistrationError, match="already has a converter"):

        @converts(aten.relu.default)
        def relu(ctx: Any, x: Any) -> Any: ...


def test_bind_fills_in_the_defaults_of_the_schema() -> None:
    bound = bind(aten.add.Tensor, (1, 2), {})
    assert bound == {"self": 1, "other": 2, "alpha": 1}
    bound = bind(aten.max_pool2d.default, (0, [3, 3]), {"ceil_mode": True})
    assert bound["stride"] == []
    assert bound["ceil_mode"] is True


def test_a_named_operator_registers_once_its_package_is_imported() -> None:
    pytest.importorskip("torchvision")
    code = """
import sys, torch, fxtrt
print([str(target) for target in fxtrt.registered() if target.namespace == "torchvision"])
print("torchvision" in sys.modules)
import torchvision
print(torch.ops.torchvision.roi_align.default in fxtrt.registered())
"""
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert lines == ["[]", "False", "True"]
