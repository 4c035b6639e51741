"""Compiling, reporting and warming up run the model, and leave everything as it was."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import fxtrt
from fxtrt.capture.untouched import untouched
from fxtrt.diagnostics.bisect import bisect
from fxtrt.settings import Settings


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    with torch.enable_grad():
        yield


class Notes:
    """An object that is no module."""

    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text = "before"


class Traces(nn.Module):
    """Leaves a trace of every kind when it runs, and exports: it reads none of them."""

    calls: torch.Tensor
    replaced: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(2))
        self.linear = nn.Linear(4, 4)
        self.count = 0
        self.shapes: list[Any] = []
        self.seen: dict[str, set[int]] = {"sizes": set()}
        self.last = deque([0], maxlen=2)
        self.notes = Notes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        self.replaced = self.replaced + 1
        self.count += 1
        self.extra = "new"
        self.shapes.append(tuple(x.shape))
        self.seen["sizes"].add(x.dim() + self.count)
        self.last.append(1)
        self.notes.text = "after"
        random.random()
        np.random.rand()
        x.mul_(1.5)
        return torch.relu(self.linear(x)).sigmoid() + torch.rand(4)


class Branching(Traces):
    """The same, where only the parts export."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        with torch.no_grad():
            self.linear.bias.data.add_(1)
        torch.set_grad_enabled(not torch.is_grad_enabled())
        if out.sum() > 1e9:
            raise ValueError("unreachable, and enough to stop an export")
        return out


def fingerprint(model: nn.Module, inputs: Any) -> list[Any]:
    """All that a run of `Traces` changes."""
    tensors = [*model.parameters(), *model.buffers(), *inputs]
    names = set(model.__dict__) - {"forward", "_fxtrt_outcome"}
    plain = {name: str(value) for name, value in model.__dict__.items() if name in names}
    return [
        *(tensor.tolist() for tensor in tensors),
        [tensor._version for tensor in tensors],
        [id(tensor) for tensor in tensors],
        plain,
        model.notes.text,  # type: ignore[union-attr]  # a Notes
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),
        torch.is_grad_enabled(),
    ]


def fast_of(model: nn.Module, x: torch.Tensor, **options: Any) -> nn.Module:
    return fxtrt.compile(model, (x,), engine="reference", min_cluster_size=1, **options)


BATCH = ({0: Dim("batch", min=1, max=8)},)
PLAIN: dict[str, Callable[[nn.Module, torch.Tensor], object]] = {
    "compile": fast_of,
    "dynamic sizes": lambda m, x: fast_of(m, x, dynamic_shapes=BATCH),
    "more inputs": lambda m, x: fast_of(m, x, more_inputs=[(x,)]),
    "measured": lambda m, x: fast_of(m, x, partition="measured", cache_dir=None),
    "report": lambda m, x: fxtrt.report(m, (x,), engine="reference"),
    "report with times": lambda m, x: fxtrt.report(m, (x,), engine="reference", measure=True),
    "bisect": lambda m, x: bisect(m, (x,), Settings(engine="reference")),
}


WHOLE = [(Traces, entry) for entry in PLAIN]
IN_PARTS = [(Branching, entry) for entry in PLAIN.keys() - {"dynamic sizes", "more inputs"}]


@pytest.mark.parametrize(("kind", "entry"), [*WHOLE, *sorted(IN_PARTS, key=str)])
def test_a_plain_model_is_as_before(kind: type[nn.Module], entry: str) -> None:
    model, x = kind().eval(), torch.randn(3, 4)
    before = fingerprint(model, [x])
    PLAIN[entry](model, x)
    assert fingerprint(model, [x]) == before


def test_the_copy_is_as_the_model(tmp_path: Path) -> None:
    for kind in (Traces, Branching):
        model, x = kind().eval(), torch.randn(3, 4)
        fast = fast_of(model, x)
        assert fingerprint(fast, [x])[:-6] == fingerprint(model, [x])[:-6]
        assert fast.count == 0
        assert fast.shapes == []
        assert fast.seen == {"sizes": set()}
        assert not hasattr(fast, "extra")


COMPILED: dict[str, Callable[[nn.Module, torch.Tensor], object]] = {
    "report": lambda m, x: fxtrt.report(m, (x,)),
    "report with times": lambda m, x: fxtrt.report(m, (x,), measure=True),
    "warm_up": lambda m, x: fxtrt.warm_up(m, (x,), (x,)),
}


@pytest.mark.parametrize("entry", COMPILED)
@pytest.mark.parametrize("kind", [Traces, Branching])
def test_a_compiled_model_is_as_before(kind: type[nn.Module], entry: str) -> None:
    x = torch.randn(3, 4)
    fast = fast_of(kind().eval(), x)
    before = fingerprint(fast, [x])
    COMPILED[entry](fast, x)
    assert fingerprint(fast, [x]) == before
    guard: Any = fast.get_submodule("" if kind is Traces else "linear").forward
    fallbacks = dict(guard.fallbacks)
    fast(x.clone())
    assert guard.fallbacks == fallbacks, "its guard sees no change"


@pytest.mark.parametrize("measure", [False, True])
def test_a_model_of_torch_compile_is_as_before(measure: bool) -> None:
    class Writes(nn.Module):
        calls: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.count = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            self.count += 1
            return x.mul_(1.5).relu().sigmoid() + self.calls

    torch._dynamo.reset()
    model, x = Writes().eval(), torch.randn(3, 4)
    fast: Any = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    before = x.clone()
    with torch.no_grad():
        fxtrt.report(fast, (x,), measure=measure)
        assert torch.equal(x, before)
        assert (model.calls.item(), model.calls._version, model.count) == (0, 0, 0)
        torch.testing.assert_close(fast(x), (before * 1.5).relu().sigmoid() + 1)


def changes() -> dict[str, tuple[Any, Callable[[Any], object]]]:
    """Roots, and what a run may do to them."""
    base = torch.zeros(4)
    return {
        "a write": (base, lambda t: t.add_(1)),
        "a write to a view": ([base[1:]], lambda v: v[0].add_(1)),
        "a write through data": (nn.Parameter(base), lambda p: p.data.add_(1)),
        "a write without gradients": (torch.zeros(4), lambda t: t.detach().numpy().fill(2)),
        "other memory": (nn.Parameter(base), lambda p: setattr(p, "data", torch.ones(2))),
        "another size": (torch.zeros(2), lambda t: t.resize_(9)),
        "one for many": (torch.zeros(1).expand(3), lambda t: t[0].fill_(2)),
        "an array": ({"a": np.zeros(2)}, lambda d: d["a"].fill(1)),
        "a generator": ([torch.Generator()], lambda g: torch.rand(1, generator=g[0])),
        "a list in an object": (Notes(), lambda n: setattr(n, "text", [])),
        "a list of a class of its own": ([Emptied([1])], lambda v: v[0].append(2)),
        "a private slot": ([Slotted()], lambda v: v[0].write(2)),
        "a deep dictionary": ([({"a": {"b": 1}},)], lambda v: v[0][0]["a"].update(b=2, c=3)),
    }


class Emptied(list[int]):
    """A list whose `clear` clears nothing."""

    def clear(self) -> None:
        """Keep all elements."""


class Slotted:
    """An object with a slot whose name Python changes."""

    __slots__ = ("__value",)

    def __init__(self) -> None:
        self.__value = 1

    def write(self, value: int) -> None:
        """Change the slot."""
        self.__value = value

    def __repr__(self) -> str:
        return f"Slotted({self.__value})"


def state(root: Any) -> Any:
    if isinstance(root, torch.Tensor):
        return root.tolist(), root.shape, root._version
    if isinstance(root, torch.Generator):
        return root.get_state().tolist()
    if isinstance(root, Notes):
        return root.text
    return repr([state(one) for one in root] if isinstance(root, list) else root)


@pytest.mark.parametrize("name", changes())
def test_each_kind_of_change_is_undone(name: str) -> None:
    root, change = changes()[name]
    before = state(root)
    with untouched(root):
        change(root)
        assert state(root) != before or name == "a write through data"
    assert state(root) == before


def test_it_is_undone_when_the_run_fails() -> None:
    model = Branching()
    with pytest.raises(RuntimeError), untouched(model):
        model(torch.zeros(3, 9))
    assert (model.count, model.shapes, model.calls.item()) == (0, [], 0)


def test_inference_tensors_are_restored() -> None:
    with torch.inference_mode():
        x = torch.zeros(2)
        with untouched([x]):
            x.add_(1)
        assert x.tolist() == [0, 0]
