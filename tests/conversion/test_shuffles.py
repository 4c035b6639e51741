"""Views in a row are one SHUFFLE where one can do, and give what torch gives."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from oprow import layer_kinds
from torch import Tensor

from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.pass_manager import run_passes

X = torch.randn(2, 3, 4, 5)

JOINED = {
    "two permutations": lambda x: x.permute(1, 0, 2, 3).permute(0, 3, 1, 2),
    "two reshapes": lambda x: x.reshape(6, 20).reshape(3, 40),
    "reshape, permute": lambda x: x.reshape(2, 3, 20).permute(0, 2, 1),
    "permute, reshape": lambda x: x.permute(0, 2, 3, 1).reshape(2, 60),
    "permute, reshape, permute": lambda x: x.transpose(1, 2).reshape(8, 15).t(),
    "permute, two reshapes, permute": lambda x: x.mT.unsqueeze(0).squeeze(0).transpose(0, 1),
}
APART = {
    "permute after reshape, reshape": lambda x: x.reshape(6, 20).t().reshape(2, 60),
    "read in between": lambda x: (lambda y: (y + 1, y.t()))(x.reshape(6, 20)),
    "given in between": lambda x: (lambda y: (y, y.t()))(x.reshape(6, 20)),
}


def check(function: Callable[..., object], backend: EngineBackend, dynamic: bool) -> list[str]:
    """The layers of the function's network, which must give what the function gives."""
    gm = trace(function, (X,), dynamic=dynamic)
    run_passes(gm)
    network = convert(gm, backend.features)
    engine = backend.load(network, network.inputs, network.outputs)
    torch.testing.assert_close(engine.run([X]), tuple(gm(X)), atol=0, rtol=0)
    return layer_kinds(network)


@pytest.mark.parametrize("function", JOINED.values(), ids=JOINED)
def test_one_layer_does(function: Callable[..., object], reference: EngineBackend) -> None:
    assert check(function, reference, dynamic=False) == ["SHUFFLE"]


@pytest.mark.parametrize("function", APART.values(), ids=APART)
def test_two_layers_are_needed(function: Callable[..., object], reference: EngineBackend) -> None:
    assert check(function, reference, dynamic=False).count("SHUFFLE") == 2


def random_views(seed: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A chain of views; now and then one is read, or another chain starts from an earlier one."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        rng = random.Random(seed)
        values, read = [x], []
        for _ in range(10):
            y = rng.choice(values[-2:])
            values.append(rng.choice(VIEWS)(y, rng))
            if rng.random() < 0.3:
                read.append(values[-1] * 2)
        return (*read, values[-1])

    return function


def permuted(x: Tensor, rng: random.Random) -> Tensor:
    return x.permute(rng.sample(range(x.dim()), x.dim()))


def merged(x: Tensor, rng: random.Random) -> Tensor:
    dim = rng.randrange(x.dim() - 1)
    return x.flatten(dim, dim + 1) if x.dim() > 2 else x


def split(x: Tensor, rng: random.Random) -> Tensor:
    return x.unsqueeze(rng.randrange(x.dim() + 1)) if x.dim() < 6 else x


def squeezed(x: Tensor, rng: random.Random) -> Tensor:
    return x.squeeze(rng.randrange(x.dim())) if x.dim() > 2 else x


VIEWS = [permuted, permuted, merged, split, squeezed]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("seed", range(20))
def test_random_views_equal_eager(seed: int, dynamic: bool, reference: EngineBackend) -> None:
    check(random_views(seed), reference, dynamic)
