"""Arguments by position, by keyword or left at their defaults: the same call."""

from __future__ import annotations

import typing
from collections import UserDict
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxtrt
from fxtrt.capture.arguments import call_of, is_same
from fxtrt.capture.export import capture_module
from fxtrt.errors import CaptureError
from fxtrt.graph.specs import Call
from fxtrt.runtime.guarded_forward import GuardedForward
from fxtrt.settings import Options, Settings
from fxtrt.settings.settings import _CHOICES

X, Y, Z = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3)


class Body(nn.Module):
    def forward(
        self, x: torch.Tensor, y: torch.Tensor | None = None, scale: float = 2.0
    ) -> torch.Tensor:
        x = torch.relu(x * scale + 1)
        return x if y is None else x - y


class KeywordOnly(nn.Module):
    def forward(self, *, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2 + 1) - y


class Open(nn.Module):
    """Like those of transformers, whose last parameter takes any keyword."""

    def forward(self, x: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2 + 1) - kwargs["y"]


class Any_(nn.Module):
    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        return torch.relu(args[0] * 2 + 1) - args[1] - kwargs["z"]


class NamesOfTorch(nn.Module):
    """Its arguments are called as what torch's source code of graphs uses."""

    def forward(
        self, torch: torch.Tensor, inf: torch.Tensor, fx_pytree: torch.Tensor, pytree: torch.Tensor
    ) -> torch.Tensor:
        filled = inf.masked_fill(fx_pytree > 0, float("inf"))
        return torch.relu() * 2 + 1 - filled + pytree


class Batch(nn.Module):
    """Takes one argument, like the detectors."""

    def forward(self, batch: Any, flag: bool = False) -> torch.Tensor:
        entry = batch[0] if isinstance(batch, list) else batch
        return torch.relu((entry["image"] if isinstance(entry, dict) else entry) * 2 + 1)


class Tensors(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2 + 1)


def compiled(model: nn.Module, *args: Any, **options: Any) -> nn.Module:
    return fxtrt.compile(model.eval(), *args, engine="reference", **options)


def fallbacks(model: nn.Module) -> Mapping[str, int]:
    assert isinstance(model.forward, GuardedForward)
    return model.forward.fallbacks


CALLS: list[Callable[[nn.Module], Any]] = [
    lambda m: m(X, Y),
    lambda m: m(X, y=Y),
    lambda m: m(x=X, y=Y),
    lambda m: m(y=Y, x=X),
    lambda m: m(X, Y, 2.0),
    lambda m: m(X, scale=2.0, y=Y),
    lambda m: m(scale=2.0, y=Y, x=X),
]


@pytest.mark.parametrize(
    ("inputs", "kwargs"),
    [
        pytest.param((X, Y), None, id="positional"),
        pytest.param((X,), {"y": Y}, id="both"),
        pytest.param((), {"y": Y, "x": X}, id="keywords"),
        pytest.param({"y": Y, "x": X}, None, id="a dict"),
        pytest.param(UserDict(y=Y, x=X), None, id="a mapping"),
        pytest.param((X, Y, 2.0), None, id="a default"),
        pytest.param((X,), {"scale": 2.0, "y": Y}, id="a default by keyword"),
    ],
)
def test_every_way_to_write_a_call_is_the_same_call(inputs: Any, kwargs: Any) -> None:
    fast = compiled(Body(), inputs, kwargs=kwargs)
    expected = Body()(X, Y)
    for call in CALLS:
        torch.testing.assert_close(call(fast), expected)
    assert fallbacks(fast) == {}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        pytest.param(lambda m: m(X, Y, 3.0), "'scale' is given", id="another value"),
        pytest.param(lambda m: m(X, scale=3.0, y=Y), "'scale' is given", id="by keyword"),
        pytest.param(lambda m: m(X), "NoneType, in the example it was a tensor", id="left out"),
    ],
)
def test_a_value_that_is_no_default_makes_another_call(call: Any, reason: str) -> None:
    fast = compiled(Body(), (X, Y))
    torch.testing.assert_close(call(fast), call(Body()))
    assert [reason in text for text in fallbacks(fast)] == [True]


def test_a_default_that_was_given_as_another_value_is_filled_in() -> None:
    fast = compiled(Body(), (X,), kwargs={"scale": 3.0})
    torch.testing.assert_close(fast(X, None, 3.0), Body()(X, None, 3.0))
    assert fallbacks(fast) == {}
    torch.testing.assert_close(fast(X), Body()(X))
    assert fallbacks(fast) == {"an argument of type float has another value than in the example": 1}


def test_calls_that_forward_does_not_take_fail_as_in_pytorch() -> None:
    fast = compiled(Body(), (X, Y))
    for args, kwargs in (((), {}), ((X,), {"x": X}), ((X,), {"z": X})):
        with pytest.raises(TypeError, match="argument"):
            fast(*args, **kwargs)


@pytest.mark.parametrize("model", [KeywordOnly(), Open()])
def test_models_with_keywords_compile(model: nn.Module) -> None:
    for fast in (compiled(model, {"x": X, "y": Y}), compiled(model, kwargs={"x": X, "y": Y})):
        torch.testing.assert_close(fast(y=Y, x=X), model(x=X, y=Y))
        assert fallbacks(fast) == {}
    assert fxtrt.report(model, kwargs={"x": X, "y": Y}, engine="reference").clusters
    assert fxtrt.report(model, {"x": X, "y": Y}, engine="reference").clusters


def test_arguments_may_be_called_as_what_torchs_source_uses(tmp_path: Path) -> None:
    model, call = NamesOfTorch().eval(), (X, Y, Z, X)
    # What stays in PyTorch is called, and what it is filled with written, by such names.
    fast = compiled(model, call, blacklist=["aten.masked_fill"])
    fxtrt.save(fast, tmp_path / "saved")
    for one in (fast, fxtrt.load(tmp_path / "saved", model)):
        torch.testing.assert_close(one(*call), model(*call), rtol=0, atol=0)
        assert fallbacks(one) == {}
    with pytest.raises(CaptureError, match="'fx_pytree' has a name"):
        capture_module(model, (), {"torch": X, "inf": Y, "fx_pytree": Z, "pytree": X})


def test_more_keywords_than_the_example_had_make_another_call() -> None:
    fast = compiled(Open(), (X,), kwargs={"y": Y})
    torch.testing.assert_close(fast(X, y=Y, z=Y), Open()(X, y=Y))
    assert fallbacks(fast) == {"the arguments have another structure than the example's": 1}


def test_any_number_of_arguments() -> None:
    fast = compiled(Any_(), (X, Y), kwargs={"z": Z})
    torch.testing.assert_close(fast(X, Y, z=X), Any_()(X, Y, z=X))
    assert fallbacks(fast) == {}
    torch.testing.assert_close(fast(X, Y, X, z=X), Any_()(X, Y, X, z=X))
    assert len(fallbacks(fast)) == 1


def test_dynamic_sizes_by_name() -> None:
    rows = torch.export.Dim("rows", min=2, max=8)
    sizes = {"x": {0: rows}, "y": {0: rows}}
    fast = compiled(Body(), {"y": Y, "x": X}, dynamic_shapes=sizes)
    x, y = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(fast(x, y), Body()(x, y))
    assert fallbacks(fast) == {}


def test_other_structures_and_warm_up_are_written_in_the_same_ways() -> None:
    fast = compiled(Body(), X, more_inputs=[{"x": X, "y": Y}, (X, None, 3.0)])
    fxtrt.warm_up(fast, X, (X, Y), {"y": Y, "x": X})
    fxtrt.warm_up(fast, kwargs={"x": X})
    for kwargs in ({}, {"y": Y}, {"scale": 3.0}):
        torch.testing.assert_close(fast(X, **kwargs), Body()(X, **kwargs))
    assert fallbacks(fast) == {}
    assert fxtrt.report(fast, X, measure=True).clusters


def test_a_report_of_torch_compile_takes_keywords() -> None:
    torch._dynamo.reset()
    options: dict[str, Any] = {"engine": "reference"}
    fast: Any = torch.compile(Body(), backend="fxtrt", options=options)
    with torch.no_grad():
        coverage = fxtrt.report(fast, kwargs={"x": X, "y": Y}, measure=True)
    assert len(coverage.clusters) == 1


def test_a_loaded_model_takes_keywords(tmp_path: Path) -> None:
    fxtrt.save(compiled(Body(), {"x": X, "y": Y}, cache_dir=tmp_path), tmp_path / "body.fxtrt")
    loaded = fxtrt.load(tmp_path / "body.fxtrt", Body().eval(), cache_dir=tmp_path)
    for call in CALLS:
        torch.testing.assert_close(call(loaded), Body()(X, Y))
    assert fallbacks(loaded) == {}


@pytest.mark.parametrize(
    ("model", "inputs", "call"),
    [
        (Body(), X, Call((X,), {})),
        (Body(), (X,), Call((X,), {})),
        (Body(), {"x": X}, Call((), {"x": X})),
        (Open(), {"x": X, "labels": Y}, Call((), {"x": X, "labels": Y})),
        (Batch(), [X], Call(([X],), {})),
        (Batch(), [{"image": X}], Call(([{"image": X}],), {})),
        (Batch(), {"image": X}, Call(({"image": X},), {})),
        (Batch(), ({"batch": X},), Call(({"batch": X},), {})),
        (Batch(), {"batch": X}, Call((), {"batch": X})),
    ],
)
def test_inputs_are_taken_for_what_they_plainly_mean(
    model: nn.Module, inputs: Any, call: Call
) -> None:
    assert call_of(model, inputs) == call


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (Tensors(), [X], "not a list: write a tuple"),
        (Body(), [X, Y], "not a list: write a tuple"),
        (Body(), None, "not a NoneType: write a tuple"),
        (Body(), torch.Size([2]), "not a Size: write a tuple"),
        (Body(), {"x": X, "mask": Y}, "'mask'.*write kwargs="),
        (Batch(), {"batch": [X], "image": X}, "'image'.*write kwargs="),
        (Any_(), {"x": X}, "write kwargs="),
        (Body(), {}, "no keys.*write kwargs="),
        (KeywordOnly(), (X, Y), "does not take the inputs.*write a tuple"),
        (Body(), (), "missing a required argument: 'x'; write a tuple"),
        (Body(), (X, Y, 2.0, 3.0), "too many positional arguments; write a tuple"),
    ],
)
def test_inputs_that_may_mean_several_things_are_refused(
    model: nn.Module, inputs: Any, message: str
) -> None:
    with pytest.raises(CaptureError, match=message):
        compiled(model, inputs)


def test_a_decorated_forward_may_take_more_than_it_says() -> None:
    """torch.export goes by the signature, so that such a call runs in PyTorch, and is no error."""

    def with_flag(forward: Any) -> Any:
        @wraps(forward)
        def wrapper(*args: Any, flag: bool = False, **kwargs: Any) -> Any:
            return forward(*args, **kwargs) * (3 if flag else 1)

        return wrapper

    class Decorated(Tensors):
        forward = with_flag(Tensors.forward)

    for kwargs in ({}, {"flag": True}):
        fast = compiled(Decorated(), (X,), kwargs=kwargs)
        torch.testing.assert_close(fast(X, flag=True), Tensors()(X) * 3)
        torch.testing.assert_close(fast(X), Tensors()(X))


@pytest.mark.parametrize(
    ("value", "other", "same"),
    [
        (0.0, -0.0, False),
        (float("nan"), float("nan"), True),
        (complex(0.0, -0.0), complex(0.0, 0.0), False),
        (1, True, False),
        (1, 1.0, False),
        ("a", "a", True),
        (torch.float16, torch.float16, True),
    ],
)
def test_constants_are_compared_to_the_bit(value: object, other: object, same: bool) -> None:
    assert is_same(value, other) == same


def test_the_options_that_editors_show_are_the_settings() -> None:
    options = typing.get_type_hints(Options)
    assert list(options) == list(Settings.__dataclass_fields__)
    for name, choices in _CHOICES.items():
        assert typing.get_args(options[name]) == choices
    for name, kind in typing.get_type_hints(Settings).items():
        if name not in _CHOICES and kind in (int, float, bool, int | None):
            assert options[name] == kind
