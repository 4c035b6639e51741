"""Batch norms, whole or frozen into products and sums, move into the convolution before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from passcheck import check_changes, check_keeps, targets, weights
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from fxtrt.capture.export import capture_module, trace
from fxtrt.pass_manager import run_passes
from fxtrt.passes import (
    drop_dead_code,
    fold_batch_norm,
    fold_constants,
)

aten = torch.ops.aten

TOLERANCE = 1e-5


def randomized(module: nn.Module) -> nn.Module:
    """The module in evaluation, its norms with statistics that change what they see."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if hasattr(norm, "running_var"):
            for name, low, high in [
                ("weight", -1.5, 1.5),
                ("bias", -1.0, 1.0),
                ("running_mean", -1.0, 1.0),
                ("running_var", 0.3, 2.0),
            ]:
                if getattr(norm, name) is not None:
                    nn.init.uniform_(getattr(norm, name), low, high, generator=generator)
    return module.eval()


def check_folds(gm: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> None:
    """The convolution alone is left, with a weight and a bias of its own."""
    before = targets(gm)
    with torch.no_grad():
        check_changes(fold_batch_norm, gm, inputs, tolerance=TOLERANCE)
    assert targets(gm) == before[:1]
    assert "conv" in before[0]
    drop_dead_code(gm)
    assert len(weights(gm)) == 2


CONVOLUTIONS: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "1d": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 7)),
    "2d": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "3d": (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), (2, 4, 3, 4, 5)),
    "without bias": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "one channel": (nn.Conv2d(4, 1, 3), nn.BatchNorm2d(1), (2, 4, 7, 7)),
    "not affine": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), (2, 4, 7, 7)),
    "channels last": (
        nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last),
        nn.BatchNorm2d(6),
        (2, 4, 7, 7),
    ),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, 2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 5)),
    "transposed groups": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False),
        nn.BatchNorm2d(6),
        (2, 4, 5, 5),
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_folds_batch_norm(name: str) -> None:
    convolution, norm, shape = CONVOLUTIONS[name]
    x = torch.randn(shape)
    gm = capture_module(randomized(nn.Sequential(convolution, norm)), (x,))
    drop_dead_code(gm)
    check_folds(gm, (x,))


NORMS: dict[str, Callable[..., Any]] = {
    "_native_batch_norm_legit_no_training": lambda x, w, b, m, v: (
        aten._native_batch_norm_legit_no_training.default(x, w, b, m, v, 0.1, 1e-3)[0]
    ),
    "_native_batch_norm_legit": lambda x, w, b, m, v: aten._native_batch_norm_legit.default(
        x, w, b, m, v, False, 0.1, 1e-3
    )[0],
    "native_batch_norm": lambda x, w, b, m, v: aten.native_batch_norm.default(
        x, w, b, m, v, False, 0.1, 1e-3
    )[0],
    "_batch_norm_no_update": lambda x, w, b, m, v: aten._batch_norm_no_update.default(
        x, w, b, m, v, 0.1, 1e-3
    )[0],
}

X = torch.randn(2, 4, 7, 7)
CONV = nn.Conv2d(4, 6, 3).requires_grad_(False)
GAMMA, BETA, MEAN = torch.randn(3, 6).unbind()
GAMMA, BETA, MEAN = GAMMA.clone(), BETA.clone(), MEAN.clone()
VAR = torch.rand(6) + 0.5
SCALE, SHIFT = torch.randn(1, 6, 1, 1), torch.randn(6, 1, 1)


@pytest.mark.parametrize("name", NORMS)
def test_folds_every_form_of_inference(name: str) -> None:
    gm = trace(lambda x: NORMS[name](CONV(x), GAMMA, BETA, MEAN, VAR), (X,))
    assert any(name in target for target in targets(gm))
    check_folds(gm, (X,))


AFFINE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "product and sum": lambda y: y * SCALE + SHIFT,
    "other order": lambda y: SHIFT + SCALE * y,
    "product": lambda y: y * SCALE,
    "sum": lambda y: y + SHIFT,
    "sum first": lambda y: (y + SHIFT) * SCALE,
    "one number": lambda y: y * SCALE[:, :1],
    "norm, product and sum": lambda y: (
        NORMS["native_batch_norm"](y, GAMMA, BETA, MEAN, VAR) * SCALE + SHIFT
    ),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", AFFINE)
def test_folds_affine_chains(name: str, dynamic: bool) -> None:
    gm = trace(lambda x: AFFINE[name](CONV(x)), (X,), dynamic=dynamic)
    fold_constants(gm)
    check_folds(gm, (X,))


def two_users(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = CONV(x)
    return y * SCALE, y.relu()


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(aten.native_batch_norm.default(CONV(x), GAMMA, BETA, MEAN, VAR, True, 0.1, 1e-3))


WIDE = SCALE.double()
ROW = torch.randn(5)
INFINITE = torch.full((1, 6, 1, 1), float("inf"))

KEPT: dict[str, Callable[[torch.Tensor], Any]] = {
    "two users": two_users,
    "training": lambda x: aten.native_batch_norm.default(
        CONV(x), GAMMA, BETA, MEAN, VAR, True, 0.1, 1e-3
    )[0],
    "statistics read": statistics,
    "wider dtype": lambda x: CONV(x) * WIDE,
    "per column": lambda x: CONV(x) * ROW,
    "alpha": lambda x: torch.add(CONV(x), SHIFT, alpha=2),
    "not constant": lambda x: CONV(x) * x.sum(),
    "weight not constant": lambda x: torch.conv2d(x, CONV.weight * x.sum()) * SCALE,
    "overflow": lambda x: CONV(x) * INFINITE,
    "relu between": lambda x: CONV(x).relu() * SCALE,
}


@pytest.mark.parametrize("name", KEPT)
def test_a_norm_that_is_no_affine_map_of_one_convolution_is_kept(name: str) -> None:
    check_keeps(fold_batch_norm, trace(KEPT[name], (X,)))


def test_keeps_a_scale_that_broadcasts_one_channel_to_many() -> None:
    single = nn.Conv2d(4, 1, 3).requires_grad_(False)
    check_keeps(fold_batch_norm, trace(lambda x: single(x) * SCALE, (X,)))


def test_keeps_a_norm_over_an_unbatched_convolution() -> None:
    weight = torch.randn(6, 4, 3, 3)
    gm = trace(lambda x: torch.conv2d(x, weight) * SCALE[0], (X[0],))
    check_keeps(fold_batch_norm, gm)


def test_half_weights_stay_half_and_underflow_is_not_folded() -> None:
    weight = CONV.weight.half()
    scale, tiny = SCALE.half(), torch.full((1, 6, 1, 1), 1e-6, dtype=torch.half)
    x = X.half()
    gm = trace(lambda x: torch.conv2d(x, weight) * scale, (x,))
    check_changes(fold_batch_norm, gm, (x,), tolerance=2e-2)
    assert gm.get_buffer(weights(gm)[-1]).dtype == torch.half
    check_keeps(fold_batch_norm, trace(lambda x: torch.conv2d(x, weight) * tiny, (x,)))


def test_shared_weights_stay_shared() -> None:
    """A head that runs on several feature maps keeps one weight."""
    head = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)))

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.head(a), self.head(b)

    inputs = (X, X[:, :, :5])
    gm = capture_module(Levels().eval(), inputs)
    with torch.no_grad():
        check_changes(fold_batch_norm, gm, inputs, tolerance=TOLERANCE)
    drop_dead_code(gm)
    assert len(weights(gm)) == 2


def test_a_written_buffer_is_not_constant() -> None:
    class Adapting(nn.Module):
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 3)
            self.register_buffer("scale", torch.ones(1, 6, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x) * self.scale
            self.scale.add_(1)
            return torch.as_tensor(y)

    check_keeps(fold_batch_norm, capture_module(Adapting().eval(), (X,)))


class GradModeFrozenNorm(nn.Module):
    """The arithmetic of a frozen batch norm whose input requires grad."""

    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


class Block(nn.Module):
    """A residual block of a detector's backbone, with its shortcut."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False), norm(6))
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), norm(6))
        self.shortcut = nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), norm(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x).relu())
        return torch.relu(y + self.shortcut(x))


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, GradModeFrozenNorm, nn.BatchNorm2d])
def test_frozen_blocks_become_convolutions(norm: Callable[[int], nn.Module]) -> None:
    block = randomized(Block(norm))
    gm = capture_module(block, (X,))
    with torch.no_grad():
        expected = block(X)
        run_passes(gm)
        torch.testing.assert_close(gm(X), expected, rtol=TOLERANCE, atol=TOLERANCE)
    calls = [target.split(".")[0] for target in targets(gm)]
    kinds = ["conv" if "conv" in call else call for call in calls]
    assert sorted(kinds) == ["add", "conv", "conv", "conv", "relu", "relu"]
