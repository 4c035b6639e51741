"""A model that writes to its own buffers runs compiled, call after call, with the right numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxtrt

Step = Callable[["Model", torch.Tensor], torch.Tensor]


class Model(nn.Module):
    """A layer, and state that a `step` reads and writes."""

    calls: torch.Tensor
    memory: torch.Tensor

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.layer = nn.Linear(4, 4)
        self.conv = nn.Conv1d(2, 2, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("memory", torch.zeros(2, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(self, torch.relu(self.layer(x))) + 1


def count(model: Model, y: torch.Tensor) -> torch.Tensor:
    model.calls += 1
    return y * model.calls


def assign(model: Model, y: torch.Tensor) -> torch.Tensor:
    model.memory = model.memory + y
    return y * model.memory


def read_then_write(model: Model, y: torch.Tensor) -> torch.Tensor:
    z = y + model.memory * 2
    model.memory.copy_(z.sigmoid())
    return z


def write_a_row(model: Model, y: torch.Tensor) -> torch.Tensor:
    model.memory[1] = y[0] + model.memory[0]
    model.memory[0] += 1
    return y * model.memory.sum(0)


def write_twice(model: Model, y: torch.Tensor) -> torch.Tensor:
    model.memory.add_(1)
    z = y * model.memory
    model.memory.mul_(z.mean())
    return z - model.memory


def scale_a_kernel(model: Model, y: torch.Tensor) -> torch.Tensor:
    model.conv.weight.mul_(1.25)
    z: torch.Tensor = model.conv(y[None])[0]
    return z


STEPS = [count, assign, read_then_write, write_a_row, write_twice, scale_a_kernel]


def make(step: Step) -> Model:
    torch.manual_seed(0)
    return Model(step).eval().requires_grad_(requires_grad=False)


def ahead_of_time(model: nn.Module, x: torch.Tensor) -> nn.Module:
    return fxtrt.compile(model, (x,), engine="reference", min_cluster_size=1)


def just_in_time(model: nn.Module, x: torch.Tensor) -> nn.Module:
    torch._dynamo.reset()
    options: Any = {"engine": "reference", "min_cluster_size": 1}
    compiled: nn.Module = torch.compile(model, backend="fxtrt", options=options)  # type: ignore[assignment]  # of a module, a module
    return compiled


@pytest.mark.parametrize("compiled", [ahead_of_time, just_in_time])
@pytest.mark.parametrize("step", STEPS)
def test_every_call_is_right_and_compiled(step: Step, compiled: Callable[..., nn.Module]) -> None:
    eager, model = make(step), make(step)
    inputs = [torch.randn(2, 4) for _ in range(5)]
    with torch.no_grad():
        fast = compiled(model, inputs[0])
        answers = []
        for x in inputs:
            answers.append(eager(x))
            torch.testing.assert_close(fast(x), answers[-1])
            state = fast.state_dict() if compiled is ahead_of_time else model.state_dict()
            torch.testing.assert_close(state, eager.state_dict())
    assert not torch.allclose(eager(inputs[0]), answers[0])
    assert fxtrt.report(fast).converted > 0
    if compiled is ahead_of_time:
        assert fast.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_buffers_are_written_in_every_grad_mode(mode: Callable[[], Any]) -> None:
    eager, fast = make(read_then_write), ahead_of_time(make(read_then_write), torch.randn(2, 4))
    with mode():
        for _ in range(3):
            x = torch.randn(2, 4)
            torch.testing.assert_close(fast(x), eager(x))
    assert fast.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


def test_what_the_caller_writes_between_calls_counts() -> None:
    eager, x = make(read_then_write), torch.randn(2, 4)
    fast = ahead_of_time(make(read_then_write), x)
    with torch.no_grad():
        for value in (torch.full((2, 4), 3.0), torch.ones(2, 4)):
            for model in (eager, fast):
                model.load_state_dict({"memory": value}, strict=False)
            torch.testing.assert_close(fast(x), eager(x))
        assert fast.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward
        for model in (eager, fast):
            model.memory.data = torch.full((2, 4), 5.0)
        torch.testing.assert_close(fast(x), eager(x))
        torch.testing.assert_close(fast(x), eager(x))
    assert "was replaced after compiling" in str(list(fast.forward.fallbacks))  # type: ignore[attr-defined]  # a GuardedForward


def test_the_other_weights_are_still_watched() -> None:
    eager, x = make(count), torch.randn(2, 4)
    fast = ahead_of_time(make(count), x)
    with torch.no_grad():
        for model in (eager, fast):
            model.layer.weight.add_(1)  # type: ignore[union-attr, operator]  # a Linear
        torch.testing.assert_close(fast(x), eager(x))
    assert "the weight 'layer.weight' was changed" in str(list(fast.forward.fallbacks))  # type: ignore[attr-defined]  # a GuardedForward


def test_one_that_was_called_can_be_saved(tmp_path: Path) -> None:
    x, eager = torch.randn(2, 4), make(read_then_write)
    model = make(read_then_write)
    fast = fxtrt.compile(model, (x,), engine="reference", cache_dir=tmp_path / "plans")
    with torch.no_grad():
        for one in (eager, fast):
            one(x)
        fxtrt.save(fast, tmp_path / "model.fxtrt")
        loaded = fxtrt.load(tmp_path / "model.fxtrt", copy.deepcopy(model))
        for _ in range(3):
            torch.testing.assert_close(loaded(x), eager(x))
    assert loaded.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward
