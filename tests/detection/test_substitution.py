"""Equivalents are in place while a model is captured, and gone afterwards, whatever happens."""

from __future__ import annotations

import builtins
import threading

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torch.export import Dim
from torchvision.models.detection import FasterRCNN, _utils
from torchvision.ops import boxes, poolers

import fxtrt
from fxtrt.detection import (
    Recipe,
    recipe_of,
    register,
)
from fxtrt.detection import (
    recipes as recipes_module,
)
from fxtrt.detection.substitution import substituted, with_equivalents
from fxtrt.detection.symbolic_len import symbolic_len
from fxtrt.detection.torchvision.recipes import GENERALIZED_RCNN, decode
from fxtrt.errors import CaptureError


def test_names_are_restored_after_an_error() -> None:
    before = (boxes.batched_nms, _utils.BoxCoder.decode)
    during: list[object] = []

    def capture() -> None:
        with substituted(GENERALIZED_RCNN.equivalents):
            during.extend((_utils.BoxCoder.decode, poolers.len))
            raise RuntimeError("while capturing")

    with pytest.raises(RuntimeError, match="while capturing"):
        capture()
    assert during == [decode, symbolic_len]
    assert (boxes.batched_nms, _utils.BoxCoder.decode) == before
    assert not hasattr(poolers, "len")


@pytest.mark.parametrize("name", ["torchvision.ops.boxes.no_such", "torchvision.no_such.nms"])
def test_a_name_that_does_not_exist_is_an_error(name: str) -> None:
    before = boxes.batched_nms
    equivalents = {"torchvision.ops.boxes.batched_nms": symbolic_len, name: symbolic_len}
    with pytest.raises(CaptureError, match=f"no {name} to replace"), substituted(equivalents):
        pass
    assert boxes.batched_nms is before


def test_one_thread_at_a_time() -> None:
    waiting, entered = threading.Event(), threading.Event()

    def capture() -> None:
        waiting.set()
        with substituted({}):
            entered.set()

    other = threading.Thread(target=capture)
    with substituted({}):
        other.start()
        assert waiting.wait(5)
        assert not entered.wait(0.1)
    other.join(5)
    assert entered.is_set()


def test_rows_is_len() -> None:
    for value in ([1, 2], "abc", torch.zeros(3, 2)):
        assert symbolic_len(value) == builtins.len(value)


@pytest.mark.parametrize("counts", [(3,), (2, 4), (0, 2)])
def test_decode_equals_torchvisions(counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    coder = _utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    codes, regions = torch.randn(sum(counts), 12), [torch.rand(n, 4) for n in counts]
    assert torch.equal(decode(coder, codes, regions), coder.decode(codes, regions))


def test_decode_of_no_boxes_has_the_shape_of_some() -> None:
    coder = _utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    assert decode(coder, torch.zeros(0, 12), [torch.zeros(0, 4)]).shape == (0, 3, 4)


def test_a_plan_is_found_by_the_forward_that_runs() -> None:
    class Tuned(FasterRCNN):  # type: ignore[misc]  # torchvision has no types
        pass

    class Rewritten(FasterRCNN):  # type: ignore[misc]  # torchvision has no types
        def forward(self, images: list[torch.Tensor]) -> list[torch.Tensor]:
            return images

    assert recipe_of(Tuned.__new__(Tuned)) is GENERALIZED_RCNN
    assert recipe_of(Rewritten.__new__(Rewritten)) is None
    assert recipe_of(torch.nn.Linear(1, 1)) is None


class Branching(torch.nn.Module):
    """A user's model, with a branch that depends on data in a function of its module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return positive(x) * 2


def positive(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0] if (x > 0).any() else x[:0]


def positive_always(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0]


def test_a_user_registers_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes_module, "_RECIPES", dict(recipes_module._RECIPES))
    model, x = Branching().eval(), torch.tensor([1.0, -1.0, 3.0])
    name = f"{Branching.__module__}.Branching"
    recipe = register(Recipe(name, {f"{Branching.__module__}.positive": positive_always}))
    assert recipe_of(model) is recipe
    with with_equivalents(model):
        program = torch.export.export(model, (x,))
    for other in (x, -x.abs()):
        assert torch.equal(program.module()(other), model(other))


class Halved(torch.nn.Module):
    """Traces for one size only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2)[: int(x.shape[0]) // 2] + 1


def test_a_report_says_where_sizes_cannot_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes_module, "_RECIPES", {})
    name = f"{Halved.__module__}.{Halved.__qualname__}"
    register(Recipe(name, {}, lambda x: ({0: Dim.DYNAMIC(min=2, max=64)},)))
    model, x = Halved().eval(), torch.rand(8, 3)
    compiled = fxtrt.compile(model, (x,), engine="reference")
    torch.testing.assert_close(compiled(x), model(x))
    (row,) = (row for row in fxtrt.report(compiled).rejections if row.code == "capture")
    assert row.detail.startswith("other sizes than the example's: torch.export could not")
