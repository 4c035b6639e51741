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


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test register converters that no other test sees."""
    monkeypatch.setattr("fxtrt.registry._CONVERTERS", dict(registered()))


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


def test_an_optional_argument_may_be_missing_from_some_targets(table: None) -> None:
    @converts(aten.frexp.Tensor, aten.rand_like.default, check=other_arguments)
    def either(ctx: Any, x: Any, memory_format: Any = None) -> Any: ...

    assert registered()[aten.frexp.Tensor].build is either
    assert registered()[aten.rand_like.default].build is either


def other_arguments(
    dtype: Any = "missing",
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> str | None:
    return str(dtype)


def test_a_check_sees_its_default_where_the_target_has_no_such_argument(table: None) -> None:
    @converts(aten.frexp.Tensor, aten.rand_like.default, check=other_arguments)
    def either(ctx: Any, x: Any, memory_format: Any = None) -> Any: ...

    assert registered()[aten.frexp.Tensor].check({"self": 0}) == "missing"
    given = {"self": 0, "dtype": torch.int8}
    assert registered()[aten.rand_like.default].check(given) == "torch.int8"


def test_an_optional_argument_of_no_target_is_refused(table: None) -> None:
    with pytest.raises(RegistrationError, match=r"no argument \['epsilon'\]"):

        @converts(aten.frexp.Tensor, aten.erfinv.default)
        def frexp(ctx: Any, x: Any, epsilon: float = 0.0) -> Any: ...

    assert aten.frexp.Tensor not in registered()


@pytest.mark.parametrize("options", [{"constants": ("other",)}, {"renamed": {"other": "x"}}])
def test_an_option_names_only_arguments_that_exist(options: Any, table: None) -> None:
    with pytest.raises(RegistrationError, match=r"no argument \['other'\]"):

        @converts(aten.frexp.Tensor, **options)
        def frexp(ctx: Any, x: Any) -> Any: ...


def test_every_target_must_have_its_arguments_named(table: None) -> None:
    with pytest.raises(RegistrationError, match=r"aten.nextafter.default ignores \['other'\]"):

        @converts(aten.erfinv.default, aten.nextafter.default)
        def erfinv(ctx: Any, x: Any) -> Any: ...


def test_one_parameter_takes_arguments_of_different_names(table: None) -> None:
    @converts(
        aten.nextafter.default,
        aten.ger.default,
        renamed={"vec2": "other"},
        check=lambda other: str(other),
    )
    def renamed(ctx: Any, x: Any, other: Any) -> Any: ...

    assert registered()[aten.ger.default].check({"self": 0, "vec2": 5}) == "5"
    assert registered()[aten.nextafter.default].check({"self": 0, "other": 6}) == "6"


def test_two_arguments_cannot_share_a_parameter(table: None) -> None:
    with pytest.raises(RegistrationError, match="one name"):

        @converts(aten.ger.default, renamed={"vec2": "x"})
        def ger(ctx: Any, x: Any) -> Any: ...


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
