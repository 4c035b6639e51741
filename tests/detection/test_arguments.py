"""What a model does not read may be anything, and an integer that it reads may vary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import fxtrt
from fxtrt.detection import (
    Recipe,
    register,
)
from fxtrt.detection import (
    recipes as recipes_module,
)
from fxtrt.runtime.guarded_forward import GuardedForward

READ = ("image", "height")


class Model(nn.Module):
    """It takes dicts of an image, the height that its answer is for, and whatever else."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, batch: list[dict[str, Any]]) -> list[torch.Tensor]:
        found = []
        for one in batch:
            image = one["image"]
            scale = one.get("height", image.shape[1]) / image.shape[1]
            found.append(self.body(image[None]).sigmoid() * scale)
        return found


def arguments(batch: list[dict[str, Any]]) -> tuple[Any, ...]:
    return ([{name: one[name] for name in READ if name in one} for one in batch],)


def dynamic_shapes(batch: list[dict[str, Any]]) -> Any:
    image = {i: Dim.DYNAMIC(min=8, max=64) for i in (1, 2)}
    sizes = {"image": image, "height": Dim.DYNAMIC(min=1, max=5000)}
    return ([{name: sizes[name] for name in one} for one in batch],)


@pytest.fixture(autouse=True)
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recipes_module, "_RECIPES", dict(recipes_module._RECIPES))
    name = f"{Model.__module__}.{Model.__qualname__}"
    register(Recipe(name, {}, dynamic_shapes, arguments))
    with torch.no_grad():
        yield


def forward(compiled: nn.Module) -> GuardedForward:
    result = compiled.forward
    assert isinstance(result, GuardedForward)
    return result


def test_integers_vary_and_the_rest_is_not_looked_at() -> None:
    model = Model().eval()
    example = [{"image": torch.rand(3, 16, 24), "height": 480, "file_name": "a.jpg"}]
    compiled = fxtrt.compile(model, (example,), engine="reference")
    for size, height in (((16, 24), 480), ((24, 16), 481), ((32, 32), 20), ((64, 8), 64)):
        given = [{"image": torch.rand(3, *size), "height": height, "image_id": object()}]
        torch.testing.assert_close(compiled(given), model(given))
    assert forward(compiled).fallbacks == {}
    assert fxtrt.report(compiled).flops_share == 1.0


def test_batches_have_graphs_of_their_own(tmp_path: Path) -> None:
    model = Model().eval()
    one, other = {"image": torch.rand(3, 16, 24)}, {"image": torch.rand(3, 40, 24), "height": 9}
    batches = [[one], [one, one], [one, other]]
    inputs, *more = ((batch,) for batch in batches)
    compiled = fxtrt.compile(model, inputs, more_inputs=more, engine="reference")
    for batch in batches:
        for _ in range(2):
            torch.testing.assert_close(compiled(batch), model(batch))
    assert forward(compiled).fallbacks == {}
    assert fxtrt.report(compiled).capture[-1] == (
        "with 2 more graphs, for calls of other structures"
    )
    fxtrt.save(compiled, tmp_path / "batches.fxtrt")
    loaded = fxtrt.load(tmp_path / "batches.fxtrt", model)
    for batch in batches:
        torch.testing.assert_close(loaded(batch), compiled(batch), rtol=0, atol=0)
    assert forward(loaded).fallbacks == {}
    torch.testing.assert_close(compiled([one] * 3), model([one] * 3))
    assert list(forward(compiled).fallbacks) == [
        "the arguments have another structure than the example's"
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"height": 6000}, "an int argument is not from 1 to 5000, as the graph was captured"),
        ({"height": 480.0}, "an argument is float, in the example it was int"),
        ({"height": True}, "an argument is bool, in the example it was int"),
    ],
)
def test_what_does_not_fit_runs_in_pytorch(change: dict[str, Any], reason: str) -> None:
    model = Model().eval()
    example = {"image": torch.rand(3, 16, 24), "height": 480}
    compiled = fxtrt.compile(model, ([example],), engine="reference")
    torch.testing.assert_close(compiled([example | change]), model([example | change]))
    assert list(forward(compiled).fallbacks) == [reason]


def test_arguments_of_another_form_run_in_pytorch() -> None:
    model = Model().eval()
    compiled = fxtrt.compile(model, ([{"image": torch.rand(3, 16, 24)}],), engine="reference")
    with pytest.raises(TypeError, match="not iterable"):
        compiled(3)
    (reason,) = forward(compiled).fallbacks
    assert reason.startswith("the arguments are of another form than the example's: TypeError")
    with pytest.raises(fxtrt.errors.CaptureError, match="the inputs are none of"):
        fxtrt.compile(model, (3,), engine="reference", dynamic_shapes={})
