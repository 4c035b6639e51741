"""One tensor passed twice, and tensors that share memory: in the example, and in a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fxtrt
from fxtrt.capture.copies import copied, distinct

pytestmark = pytest.mark.usefixtures("no_grad")


def compiled(model: nn.Module, *inputs: Any) -> Any:
    return fxtrt.compile(model.eval(), inputs, engine="reference", min_cluster_size=1)


def rand() -> torch.Tensor:
    return torch.randn(3, 4)


class Pair(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.relu() - 2 * y


class InContainers(nn.Module):
    def forward(self, values: dict[str, Any]) -> torch.Tensor:
        first, second = values["list"]
        result: torch.Tensor = first.relu() - 2 * second + 3 * values["tensor"].sigmoid()
        return result


def same() -> tuple[torch.Tensor, torch.Tensor]:
    x = rand()
    return x, x


def views() -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.randn(5, 4)
    return base[:3], base[2:]


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    base = np.ones((5, 4), np.float32)
    return torch.from_numpy(base[:3]), torch.from_numpy(base[2:])


def expanded() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(1, 4).expand(3, 4)
    return x, x


EXAMPLES = [same, views, arrays, expanded]


@pytest.mark.parametrize("example", EXAMPLES)
def test_other_calls_pass_different_tensors(example: Any) -> None:
    fast = compiled(Pair(), *example())
    x, y = rand(), rand()
    torch.testing.assert_close(fast(x, y), x.relu() - 2 * y)
    torch.testing.assert_close(fast(x, x), x.relu() - 2 * x)
    assert fast.forward.fallbacks == {}


@pytest.mark.parametrize("example", EXAMPLES)
def test_in_lists_and_dictionaries(example: Any) -> None:
    x, y = example()
    fast = compiled(InContainers(), {"list": [x, y], "tensor": y})
    a, b, c = rand(), rand(), rand()
    expected = a.relu() - 2 * b + 3 * c.sigmoid()
    torch.testing.assert_close(fast({"list": [a, b], "tensor": c}), expected)
    assert fast.forward.fallbacks == {}


class Scaled(nn.Module):
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() - 2 * self.scale


def test_a_buffer_of_the_model_as_the_example() -> None:
    model = Scaled()
    fast = compiled(model, model.scale)
    x = rand()
    torch.testing.assert_close(fast(x), x.relu() - 2)
    assert fast.forward.fallbacks == {}


class Increments(nn.Module):
    """Writes to its first input, and reads its second one afterwards."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x.relu() - 2 * y


@pytest.mark.parametrize("example", [same, views, lambda: (rand(), rand())])
@pytest.mark.parametrize("call", [same, views, arrays])
def test_a_model_that_writes_to_an_input(example: Any, call: Any) -> None:
    model = Increments()
    fast = compiled(model, *example())
    # Twice the same: no copy shares memory as arrays do.
    torch.manual_seed(0)
    mine = call()
    torch.manual_seed(0)
    its = call()
    torch.testing.assert_close(fast(*mine), model(*its))
    torch.testing.assert_close(mine, its)
    (reason,) = fast.forward.fallbacks
    assert reason == "an input that the model writes to shares memory with another tensor"
    x, y = rand(), rand()
    before = x.clone()
    torch.testing.assert_close(fast(x, y), (before + 1).relu() - 2 * y)
    assert torch.equal(x, before + 1)
    assert sum(fast.forward.fallbacks.values()) == 1, "it runs in its graph"


@pytest.mark.parametrize("call", [same, views, arrays])
def test_such_a_model_through_torch_compile(call: Any) -> None:
    torch._dynamo.reset()
    options: dict[str, Any] = {"engine": "reference", "min_cluster_size": 1}
    model = Increments()
    fast = torch.compile(model, backend="fxtrt", options=options, dynamic=False)
    for shared in (False, True):
        torch.manual_seed(0)
        mine = call() if shared else (rand(), rand())
        torch.manual_seed(0)
        its = call() if shared else (rand(), rand())
        torch.testing.assert_close(fast(*mine), model(*its))
        torch.testing.assert_close(mine, its)


def test_slices_of_one_tensor_share_no_element() -> None:
    model = Increments()
    fast = compiled(model, rand(), rand())
    base = torch.randn(6, 4)
    expected = (base[:3] + 1).relu() - 2 * base[3:]
    torch.testing.assert_close(fast(base[:3], base[3:]), expected)
    assert fast.forward.fallbacks == {}


class Counter(nn.Module):
    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x.relu() + self.calls


def test_an_input_in_the_memory_of_a_buffer_that_is_written() -> None:
    model = Counter()
    fast = compiled(model, torch.zeros(4))
    assert torch.equal(fast(model.calls), torch.full((4,), 2.0))
    assert list(fast.forward.fallbacks) == [
        "an input shares memory with a buffer that the model writes to"
    ]


def test_distinct_tensors_have_the_layout_of_the_given() -> None:
    base = torch.randn(4, 6).t()
    given = [base, base[1:], base, base[:, 2]]
    made = distinct(given)
    assert len({tensor.untyped_storage().data_ptr() for tensor in made}) == 4
    assert len({id(tensor) for tensor in (*made, *given)}) == 7
    for new, old in zip(made, given, strict=True):
        assert torch.equal(new, old)
        assert new.stride() == old.stride()
    assert made[0].data_ptr() == base.data_ptr(), "what shares nothing is not copied"


def test_copies_share_what_the_given_share() -> None:
    base = torch.zeros(4)
    first, [again, view] = copied((base, [base, base[1:]]))
    assert first is again
    assert first.data_ptr() != base.data_ptr()
    view.add_(1)
    assert first.tolist() == [0, 1, 1, 1]
    assert base.tolist() == [0, 0, 0, 0]
