"""A recipe with host steps of a user's own gives their architecture a core."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from spot_detector import SpotDetector, SpotSteps
from torch import Tensor

import fxtrt
from fxtrt.detection import HostSteps, Recipe, TooManyCandidates, prepare, register
from fxtrt.detection.recipes import _RECIPES

NAME = f"{SpotDetector.__module__}.{SpotDetector.__qualname__}"


@pytest.fixture(autouse=True)
def own_recipes() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    _RECIPES.pop(NAME, None)


def registered(host_steps: Callable[[Any], HostSteps | str] | None) -> SpotDetector:
    register(Recipe(NAME, {}, host_steps=host_steps))
    model = SpotDetector().eval()
    # Some cells are above the threshold, and often fewer than ten.
    last: Any = model.net[2]
    last.bias.fill_(-0.1)
    last.weight.mul_(3)
    return model


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    return [torch.rand(3, *size) for size in sizes]


def compiled(model: SpotDetector, **options: Any) -> Any:
    call = (images((100, 120)),)
    return fxtrt.compile(model, call, engine="reference", cache_dir=None, **options)


def calls() -> list[list[Tensor]]:
    return [images((300, 200)), images((80, 90), (400, 64), (65, 70)), images((1280, 64))]


def assert_agree(fast: Any, model: SpotDetector) -> None:
    found = []
    for call in calls():
        expected = model(call)
        for actual, wanted in zip(fast(call), expected, strict=True):
            assert torch.equal(actual, wanted)
            found.append(len(wanted))
    assert sum(found) > 0


@pytest.mark.parametrize("most_images", [1, 4])
def test_a_core_takes_all_sizes_and_numbers_of_images(most_images: int) -> None:
    model = registered(SpotSteps)
    fast = compiled(model, most_images=most_images)
    assert fxtrt.report(fast).capture[0].startswith("captured as a core of fixed shapes")
    assert fxtrt.report(fast).flops_share == 1.0
    assert_agree(fast, model)
    assert fast.forward.fallbacks == {}


def test_a_saved_core_is_loaded(tmp_path: Path) -> None:
    model = registered(SpotSteps)
    fxtrt.save(compiled(model), tmp_path / "spots.fxtrt")
    loaded: Any = fxtrt.load(tmp_path / "spots.fxtrt", copy.deepcopy(model), cache_dir=None)
    assert_agree(loaded, model)
    assert loaded.forward.fallbacks == {}


def test_prepare_uses_the_same_steps() -> None:
    model = registered(SpotSteps)
    wanted = copy.deepcopy(model)
    prepare(model)
    torch.compiler.reset()
    fast: Any = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    assert_agree(fast, wanted)
    assert fxtrt.report(fast).capture[0].startswith("captured by torch.compile in 2 graphs")


def test_without_steps_the_whole_is_captured() -> None:
    model = registered(None)
    fast, call = compiled(model), images((100, 120))
    assert fxtrt.report(fast).capture[0] == f"captured whole, by the recipe of {NAME}"
    for actual, wanted in zip(fast(call), model(call), strict=True):
        assert torch.equal(actual, wanted)
    assert fast.forward.fallbacks == {}


def test_a_model_without_a_core_is_captured_whole_and_says_why() -> None:
    model = registered(lambda model: "it is too bright")
    fast, call = compiled(model), images((100, 120))
    assert fxtrt.report(fast).capture[0] == f"captured whole, by the recipe of {NAME}"
    reasons = [row.detail for row in fxtrt.report(fast).rejections if row.code == "capture"]
    assert reasons == ["as a core of fixed shapes: it is too bright"]
    for actual, wanted in zip(fast(call), model(call), strict=True):
        assert torch.equal(actual, wanted)


class WarySteps(SpotSteps):
    def after(self, outputs: Any, context: None) -> list[Tensor]:
        if int(outputs[1].max()) == 10:
            raise TooManyCandidates
        return super().after(outputs, context)


def test_a_step_can_send_a_call_to_pytorch() -> None:
    model = registered(WarySteps)
    fast = compiled(model)
    bright = images((300, 200))
    assert len(model(bright)[0]) == 10
    assert torch.equal(fast(bright)[0], model(bright)[0])
    dark = [torch.zeros(3, 96, 96)]
    assert torch.equal(fast(dark)[0], model(dark)[0])
    assert fast.forward.fallbacks == {"more candidates than the core looks at": 1}
    assert fast.forward.fallbacks.compiled == 1
