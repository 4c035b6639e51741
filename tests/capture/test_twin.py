"""What can be compiled: any module that can be copied; of the rest, what to do."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

import fxtrt
from fxtrt.capture.twin import twin_of
from fxtrt.diagnostics.bisect import bisect
from fxtrt.errors import CaptureError
from fxtrt.settings import Settings

X = torch.randn(3, 4)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 4).eval()


def jitted() -> Any:
    return torch.compile(linear())


def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(linear())


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "function": (lambda: torch.relu, "of type builtin.*: call it in the forward of a module"),
    "lambda": (lambda: lambda x: x, "of type function: call it in the forward of a module"),
    "class": (lambda: nn.ReLU, "is a class"),
    "compiled child": (
        lambda: nn.Sequential(jitted()).eval(),
        r"^0 \(OptimizedModule\) was compiled by torch.compile already: .* attribute _orig_mod",
    ),
    "script": (scripted, r"^the model \(RecursiveScriptModule\) is a ScriptModule"),
    "scripted child": (
        lambda: nn.Sequential(nn.ReLU(), scripted()).eval(),
        r"^1 \(RecursiveScriptModule\) is a ScriptModule",
    ),
}
ENTRIES: dict[str, Callable[[Any], object]] = {
    "compile": lambda model: fxtrt.compile(model, (X,), engine="reference"),
    "report": lambda model: fxtrt.report(model, (X,), engine="reference"),
    "bisect": lambda model: bisect(model, (X,), Settings(engine="reference")),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_do(name: str, entry: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(CaptureError, match=message):
        ENTRIES[entry](make())


def test_a_model_of_torch_compile_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"the model \(OptimizedModule\) .* _orig_mod"):
        fxtrt.compile(jitted(), (X,), engine="reference")


def test_a_module_that_was_compiled_in_place_works() -> None:
    model = nn.Sequential(linear(), nn.ReLU()).eval()
    model[0].compile()
    model.compile()
    check_works(model)


class Holds(nn.Module):
    """A layer and something else."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.layer = linear()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y.relu()


def check_works(model: nn.Module) -> Any:
    options: dict[str, Any] = {"engine": "reference", "min_cluster_size": 1}
    assert fxtrt.report(model, (X,), **options).flops_share == 1
    fast: Any = fxtrt.compile(model, (X,), **options)
    x = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))
    assert fast.forward.fallbacks == {}
    return fast


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    with (tmp_path / "log.txt").open("w") as file:
        yield file


def test_locks_files_and_generators_are_shared(file: Any) -> None:
    for value in (threading.Lock(), threading.RLock(), file, (i for i in range(3))):
        model = Holds([{"a": value}]).eval()
        fast = check_works(model)
        assert fast.value is not model.value
        assert fast.value[0]["a"] is value


def test_a_model_with_a_lock_is_saved_and_loaded(tmp_path: Path) -> None:
    model = Holds(threading.Lock()).eval()
    fxtrt.save(check_works(model), tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", model)
    with torch.no_grad():
        torch.testing.assert_close(loaded(X), model(X))


def test_kept_activations_are_copied_and_stay_in_their_graph() -> None:
    model = Holds(None).eval()
    model.value = [kept := model(X)]
    assert kept.grad_fn is not None
    fast = check_works(model)
    assert torch.equal(fast.value[0], kept)
    assert model.value[0] is kept
    assert kept.grad_fn is not None


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_older_weight_and_spectral_norm(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = getattr(torch.nn.utils, name)(nn.Linear(4, 4))
    model = nn.Sequential(layer, nn.ReLU()).eval()
    fast = check_works(model)
    with torch.no_grad():
        layer.bias.add_(1)
        getattr(layer, "weight_g" if name == "weight_norm" else "weight_orig").mul_(2)
        x = torch.randn(3, 4)
        torch.testing.assert_close(fast(x), model(x))


def test_what_refuses_to_be_copied_is_named() -> None:
    class Stubborn:
        def __deepcopy__(self, memo: Any) -> NoReturn:
            raise ValueError("there can be only one")

    with pytest.raises(CaptureError, match=r"there can be only one\. Take the attribute"):
        fxtrt.compile(Holds(Stubborn()).eval(), (X,), engine="reference")


def test_parameters_and_buffers_are_shared() -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(4)).eval()
    twin = twin_of(model)
    assert twin is not model
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert twin.state_dict(keep_vars=True)[name] is tensor
