"""Weights that were written to are noticed, whoever wrote them."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxtrt
from fxtrt.errors import ArtifactError
from fxtrt.graph.weight_states import Snapshot, checksum

X = torch.randn(2, 4)
FUSED: dict[str, type[torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "SGD": torch.optim.SGD,
    "Adagrad": torch.optim.Adagrad,
}
Write = Callable[[nn.Linear], object]


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Sigmoid()).eval()


def ahead_of_time(model: nn.Module, **options: Any) -> nn.Module:
    return fxtrt.compile(model, (X,), engine="reference", **options)


def just_in_time(model: nn.Module, **options: Any) -> nn.Module:
    options = {"engine": "reference", **options}
    compiled: nn.Module = torch.compile(model, backend="fxtrt", options=options)  # type: ignore[assignment]  # of a module, a module
    return compiled


def step(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def assert_follows(model: nn.Module, fast: nn.Module, write: Callable[[], object]) -> None:
    """Before and after `write`, `fast` gives what the model gives; `write` makes a difference."""
    before = fast(X)
    torch.testing.assert_close(before, model(X))
    for _ in range(2):
        write()
        expected = copy.deepcopy(model)(X)
        assert not torch.allclose(before, expected, atol=1e-3)
        torch.testing.assert_close(fast(X), expected)


@pytest.mark.parametrize("compiled", [ahead_of_time, just_in_time])
@pytest.mark.parametrize("name", FUSED)
def test_a_fused_optimizer_step(name: str, compiled: Callable[[nn.Module], nn.Module]) -> None:
    torch._dynamo.reset()
    model = make()
    optimizer = FUSED[name](model.parameters(), lr=0.1, fused=True)  # type: ignore[call-arg]  # of these four
    with torch.no_grad():
        assert_follows(model, compiled(model), lambda: step(optimizer, model))


def test_a_step_with_a_flat_parameter() -> None:
    """The weights are views of what the optimizer holds."""
    model = make()
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in model.parameters()]))
    start = 0
    for parameter in model.parameters():
        parameter.data = flat.detach()[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    optimizer = torch.optim.SGD([flat], lr=0.5, fused=True)

    def write() -> None:
        flat.grad = torch.ones_like(flat)
        optimizer.step()

    with torch.no_grad():
        assert_follows(model, ahead_of_time(model), write)


def test_a_step_with_other_weights_changes_nothing() -> None:
    model, other = make(), make()
    frozen = nn.Parameter(next(model.parameters()).detach(), requires_grad=False)
    snapshot = Snapshot(list(model.parameters()))
    optimizer = torch.optim.SGD([*other.parameters(), frozen], lr=0.1, fused=True)
    step(optimizer, other)
    assert snapshot.holds(list(model.parameters()))


def test_a_changed_weight_is_named_and_not_saved(tmp_path: Path) -> None:
    model = make()
    fast = ahead_of_time(model, cache_dir=tmp_path / "plans")
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        step(optimizer, model[2])
        fast(X)
    assert "the weight '2.weight' was changed" in str(list(fast.forward.fallbacks))  # type: ignore[attr-defined]  # a GuardedForward
    with pytest.raises(ArtifactError, match="a weight was changed"):
        fxtrt.save(fast, tmp_path / "model.fxtrt")


OUTSIDE: dict[str, Write] = {
    "NumPy": lambda layer: layer.weight.detach().numpy().__imul__(-2),
    "data": lambda layer: layer.weight.data.mul_(-2),
    "memory": lambda layer: torch.frombuffer(
        layer.weight.detach().numpy(), dtype=torch.float32
    ).mul_(-2),
    "fused kernel": lambda layer: torch._fused_sgd_(
        [layer.weight], [torch.ones_like(layer.weight)], [], weight_decay=0.0, momentum=0.0,
        lr=0.5, dampening=0.0, nesterov=False, maximize=False, is_first_step=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("compiled", [ahead_of_time, just_in_time])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_checksum_sees_writes_from_outside(name: str, compiled: Callable[..., nn.Module]) -> None:
    torch._dynamo.reset()
    model = make()
    with torch.no_grad():
        fast = compiled(model, check_weights="contents")
        assert_follows(model, fast, lambda: OUTSIDE[name](model[0]))  # type: ignore[arg-type]  # a Linear


def test_weights_that_have_no_versions() -> None:
    with torch.inference_mode():
        model = make()
        fast = ahead_of_time(model, check_weights="contents")
        assert_follows(model, fast, lambda: model[0].bias.add_(0.5))  # type: ignore[operator]  # a Linear's


def test_shared_memory_is_seen_by_a_checksum() -> None:
    model = make().share_memory()
    shared = next(model.parameters()).untyped_storage()
    other = torch.empty(0, dtype=torch.float32).set_(shared, 0, (32,), (1,))
    with torch.no_grad():
        fast = ahead_of_time(model, check_weights="contents")
        assert_follows(model, fast, lambda: other.mul_(-2))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(()),
        torch.randn(3, 5),
        torch.randn(9000).to(torch.float16),
        torch.randint(0, 100, (2, 70, 70), dtype=torch.uint8),
        torch.randn(4, 6, dtype=torch.complex64).conj(),
        torch.randn(20000)[1:],
        torch.zeros(50, 60),
    ],
    ids=lambda t: f"{t.dtype}-{tuple(t.shape)}",
)
def test_every_element_counts_in_a_checksum(tensor: torch.Tensor) -> None:
    before = checksum(tensor)
    assert torch.equal(checksum(tensor.clone()), before)
    torch.manual_seed(0)
    for place in torch.randint(0, tensor.numel(), (20,)).tolist():
        changed = tensor.clone().flatten()
        changed[place] = changed[place] + 1
        assert not torch.equal(checksum(changed.view(tensor.shape)), before)
    if not torch.equal(tensor, tensor.flatten().roll(1).view(tensor.shape)):
        assert not torch.equal(checksum(tensor.flatten().roll(1).view(tensor.shape)), before)


def test_a_sign_of_zero_and_an_exchange_count_too() -> None:
    zeros = torch.zeros(50)
    assert not torch.equal(checksum(zeros), checksum(-zeros))
    numbers = torch.arange(10_000.0)
    for a, b in ((0, 1), (0, 1024), (5, 4096 + 5), (9998, 9999)):
        exchanged = numbers.clone()
        exchanged[a], exchanged[b] = numbers[b], numbers[a]
        assert not torch.equal(checksum(numbers), checksum(exchanged))


def test_an_empty_tensor_has_a_checksum() -> None:
    assert torch.equal(checksum(torch.zeros(0, 3)), checksum(torch.zeros(2, 0)))


def test_a_snapshot_goes_with_what_it_is_for() -> None:
    snapshot = Snapshot([torch.ones(2)])
    gone = weakref.ref(snapshot)
    del snapshot
    gc.collect()
    assert gone() is None
