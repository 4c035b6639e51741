"""Models are compiled as they were written: each here is one that other tools want rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import fxtrt


class Unannotated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x, scale=2, extra=None):  # type: ignore[no-untyped-def]  # what is tested
        x = self.two(self.one(x).relu()) * scale
        return x if extra is None else x + extra


class MixedContainers(nn.Module):
    """Its parts pass on a list of a tensor, a number, a name and None, and a dict of all sorts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> dict[Any, Any]:
        state: list[Any] = [self.conv(x), 2, "relu", None]
        features, factor, name, mask = state
        y = getattr(torch, name)(features) * factor
        return {"p2": y, 3: (y.sigmoid(), [y.shape[1], None]), "masked": mask is not None}


class Body(nn.Sequential):
    stride_of_all = 2


class ForwardsAttributes(nn.Module):
    """What it lacks, its body has."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("body"), name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.body(x) * self.stride_of_all
        return result


class Stars(nn.Module):
    """Levels go through `list(zip(*...))`, and a head takes as many as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 3, stride=s, padding=1) for s in (1, 2))

    def head(self, *levels: torch.Tensor, **options: float) -> list[tuple[torch.Tensor, ...]]:
        scale = options["scale"]
        return [(level.relu() * scale, level.sigmoid()) for level in levels]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        scores, gates = list(zip(*self.head(*(c(x) for c in self.convs), scale=0.5), strict=True))
        return [score * gate for score, gate in zip(scores, gates, strict=True)]


class PartsOrNone(nn.Module):
    """Its parts stand in a list that holds None, in a plain dict, and in a ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.stages = [self.first, None, self.second]
        self.by_name = {"norm": nn.BatchNorm2d(4), "dropped": None}
        self.norm = self.by_name["norm"]
        self.heads = nn.ModuleDict({"boxes": nn.Conv2d(4, 4, 1), "scores": nn.Conv2d(4, 2, 1)})
        self.mask_head: nn.Module | None = None

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        for stage in self.stages:
            if stage is not None:
                x = stage(x)
        norm = self.by_name["norm"]
        assert norm is not None
        x = norm(x)
        found = {name: head(x).relu() for name, head in self.heads.items()}
        return found if self.mask_head is None else {**found, "masks": self.mask_head(x)}


class TrainingBranch(nn.Module):
    """A loss, with its data-dependent code, that inference never comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dropout = nn.Conv2d(3, 4, 3), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, targets: Any = None) -> Any:
        x = self.dropout(self.conv(x).relu()) + 1
        if self.training:
            assert targets is not None, "training needs targets"
            return {"loss": (x.mean() - targets.sum().item()) if targets.any() else x.sum()}
        return x


class FrozenBatchNorm(nn.Module):
    """As in Detectron2: with grad it multiplies, without it calls batch_norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, low in (("weight", 0.5), ("bias", -1), ("running_mean", -1), ("running_var", 1)):
            self.register_buffer(name, torch.rand(channels) + low)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if x.requires_grad:
            scale = weight * (var + 1e-5).rsqrt()
            return x * scale[None, :, None, None] + (bias - mean * scale)[None, :, None, None]
        return nn.functional.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)


class Shared(nn.Module):
    """One head for two levels, as in RetinaNet."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 3, 3, stride=2)
        self.head = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.again = self.head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(x), self.again(self.down(x))


@dataclass
class Boxes:
    """Shaped like Detectron2's structures: a class around tensors, with methods."""

    tensor: torch.Tensor

    def scaled(self, factor: float) -> Boxes:
        return Boxes(self.tensor * factor)


class Structures(nn.Module):
    """It passes structures between its parts, and gives a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def predict(self, x: torch.Tensor) -> Boxes:
        return Boxes(self.conv(x).flatten(2).transpose(1, 2).relu())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.predict(x).scaled(2.0).tensor.sigmoid()


def sync_batch_norm() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    nn.init.uniform_(layers[1].get_buffer("running_var"), 0.5, 2)
    result: nn.Module
    result = nn.SyncBatchNorm.convert_sync_batchnorm(layers)  # type: ignore[no-untyped-call]  # torch's
    return result


def with_hooks() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model[1].register_forward_hook(lambda module, args, output: output + 1)
    return model


CASES: dict[str, Callable[[], nn.Module]] = {
    "unannotated arguments": Unannotated,
    "containers of mixed types": MixedContainers,
    "__getattr__": ForwardsAttributes,
    "star-arguments and zip": Stars,
    "lists and dicts of modules and None": PartsOrNone,
    "a branch for training": TrainingBranch,
    "SyncBatchNorm": sync_batch_norm,
    "FrozenBatchNorm2d": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), FrozenBatchNorm(4), nn.ReLU(), nn.Conv2d(4, 4, 3)
    ),
    "hooks": with_hooks,
    "weight norm": lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.ReLU6()),
    "shared modules": Shared,
    "structures": Structures,
}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("way", ["fxtrt.compile", "torch.compile"])
@pytest.mark.parametrize("case", CASES)
def test_is_compiled_whole(case: str, way: str) -> None:
    model, x = CASES[case]().eval(), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = model(x)
        compiled: Any
        if way == "fxtrt.compile":
            compiled = fxtrt.compile(model, (x,), engine="reference")
        else:
            compiled = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
        torch.testing.assert_close(compiled(x), expected)
    coverage = fxtrt.report(compiled)
    assert coverage.flops_share == 1.0, str(coverage)
    assert len(coverage.clusters) == 1, str(coverage)
    assert list(compiled.state_dict())[-1].endswith(list(model.state_dict())[-1])


def test_a_frozen_norm_is_folded_even_if_grad_is_on() -> None:
    model = CASES["FrozenBatchNorm2d"]().eval()
    compiled = fxtrt.compile(model, (torch.randn(1, 3, 16, 16),), engine="reference")
    (row,) = fxtrt.report(compiled).clusters
    assert row.build is not None
    assert row.build.layers == 3
