"""Random programs: DAGs of tensor operators over a few small inputs, drawn by Hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

__all__ = ["Program", "programs"]

MOST_ELEMENTS = 400
MOST_DIMENSIONS = 5
SIZES = (1, 2, 3, 5)
DTYPES = (torch.float32, torch.float32, torch.int64, torch.int32, torch.bool)
SCALARS = (0, 1, -2, 3, 0.5, -1.5, True)

Step = Callable[..., Any]
"""Takes tensors a, b and c, and whole numbers i, j and k; raises where they do not go together."""


def _dim(x: Tensor, number: int) -> int:
    """A dimension of x, counted from either end."""
    return number % (2 * x.dim()) - x.dim()


def _any_where(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.where(a if a.dtype == torch.bool else a != 0, b, c)


def _positive(x: Tensor) -> Tensor:
    return x.abs() + 1


def _order(x: Tensor, number: int) -> list[int]:
    """A permutation of the dimensions of x."""
    dims, order = list(range(x.dim())), []
    while dims:
        number, place = divmod(number, len(dims))
        order.append(dims.pop(place))
    return order


ELEMENTWISE: dict[str, Step] = {
    "relu": lambda a, b, c, i, j, k: a.relu(),
    "sigmoid": lambda a, b, c, i, j, k: a.sigmoid(),
    "tanh": lambda a, b, c, i, j, k: a.tanh(),
    "sin": lambda a, b, c, i, j, k: a.sin(),
    "abs": lambda a, b, c, i, j, k: a.abs(),
    "neg": lambda a, b, c, i, j, k: -a,
    "not": lambda a, b, c, i, j, k: ~a,
    "add": lambda a, b, c, i, j, k: a + b,
    "sub": lambda a, b, c, i, j, k: torch.sub(a, b, alpha=1 + i % 3),
    "mul": lambda a, b, c, i, j, k: a * b,
    "div": lambda a, b, c, i, j, k: a / _positive(b),
    "maximum": lambda a, b, c, i, j, k: torch.maximum(a, b),
    "minimum": lambda a, b, c, i, j, k: torch.minimum(a, b),
    "floor_divide": lambda a, b, c, i, j, k: _whole(a) // (1 + i % 4),
    "remainder": lambda a, b, c, i, j, k: _whole(a) % (-3 if i % 2 else 4),
    "less": lambda a, b, c, i, j, k: _whole(a) < _whole(b),
    "equal": lambda a, b, c, i, j, k: _whole(a) == SCALARS[i % len(SCALARS)],
    "where": lambda a, b, c, i, j, k: _any_where(_whole(a), b, c),
    "masked_fill": lambda a, b, c, i, j, k: b.masked_fill(a, i % 3 - 1),
    "clamp": lambda a, b, c, i, j, k: a.clamp(-1 - i % 3, 1.5 if j % 2 else None),
    "add scalar": lambda a, b, c, i, j, k: a + SCALARS[i % len(SCALARS)],
    "mul scalar": lambda a, b, c, i, j, k: a * SCALARS[i % len(SCALARS)],
    "rsub scalar": lambda a, b, c, i, j, k: SCALARS[i % len(SCALARS)] - a,
    "to": lambda a, b, c, i, j, k: _whole(a).to(DTYPES[i % len(DTYPES)]),
}
SHAPES: dict[str, Step] = {
    "transpose": lambda a, b, c, i, j, k: a.transpose(_dim(a, i), _dim(a, j)),
    "permute": lambda a, b, c, i, j, k: a.permute(_order(a, i * 25 + j)),
    "unsqueeze": lambda a, b, c, i, j, k: a.unsqueeze(i % (a.dim() + 1)),
    "squeeze": lambda a, b, c, i, j, k: a.squeeze(_dim(a, i)),
    "flatten": lambda a, b, c, i, j, k: a.flatten(_dim(a, i)),
    "expand": lambda a, b, c, i, j, k: a.expand(1 + i % 3, *a.shape),
    "expand_as": lambda a, b, c, i, j, k: a.expand_as(b),
    "flip": lambda a, b, c, i, j, k: a.flip(_dim(a, i)),
    "roll": lambda a, b, c, i, j, k: a.roll(i % 7 - 3, _dim(a, j)),
    "narrow": lambda a, b, c, i, j, k: a[..., i % 3 - 2 :: 1 + j % 2],
    "select": lambda a, b, c, i, j, k: a.select(_dim(a, i), -1 if j % 2 else 0),
    "repeat": lambda a, b, c, i, j, k: a.repeat(1 + i % 2, *[1 + j % 2] * a.dim()),
    "pad": lambda a, b, c, i, j, k: torch.nn.functional.pad(a, (i % 3, j % 3), value=k % 3),
    "cat": lambda a, b, c, i, j, k: torch.cat([a, b], _dim(a, i)),
    "stack": lambda a, b, c, i, j, k: torch.stack([a, b, a], _dim(a, i)),
    "chunk": lambda a, b, c, i, j, k: a.chunk(2, _dim(a, i))[0],
    "tril": lambda a, b, c, i, j, k: a.tril(i % 3 - 1),
    "index": lambda a, b, c, i, j, k: a[:, torch.tensor([0, -1, 0])],
    "index_select": lambda a, b, c, i, j, k: a.index_select(_dim(a, i), torch.tensor([0, 0])),
}
REDUCTIONS: dict[str, Step] = {
    "sum": lambda a, b, c, i, j, k: a.sum(_dim(a, i), keepdim=bool(j % 2)),
    "sum all": lambda a, b, c, i, j, k: a.sum(),
    "mean": lambda a, b, c, i, j, k: a.mean(_dim(a, i), keepdim=bool(j % 2)),
    "amax": lambda a, b, c, i, j, k: a.amax(_dim(a, i), keepdim=bool(j % 2)),
    "amin all": lambda a, b, c, i, j, k: a.amin(),
    "prod": lambda a, b, c, i, j, k: a.prod(_dim(a, i)),
    "any": lambda a, b, c, i, j, k: _whole(a).any(_dim(a, i), keepdim=bool(j % 2)),
    "all": lambda a, b, c, i, j, k: _whole(a).all(),
    "softmax": lambda a, b, c, i, j, k: a.softmax(_dim(a, i)),
    "cumsum": lambda a, b, c, i, j, k: a.cumsum(_dim(a, i)),
    "logsumexp": lambda a, b, c, i, j, k: a.logsumexp(_dim(a, i)),
    "var": lambda a, b, c, i, j, k: a.var(_dim(a, i), correction=0, keepdim=bool(j % 2)),
    "layer_norm": lambda a, b, c, i, j, k: torch.nn.functional.layer_norm(a, a.shape[-1:]),
    "matmul": lambda a, b, c, i, j, k: a @ b,
    "gram": lambda a, b, c, i, j, k: a @ a.transpose(-1, -2),
}
STEPS = {**ELEMENTWISE, **SHAPES, **REDUCTIONS}


def _whole(x: Tensor) -> Tensor:
    """x, where it is exact: comparing what was rounded, or cutting it, is no fair test."""
    if x.dtype.is_floating_point:
        raise ValueError("the tensor may be rounded")
    return x


@dataclass(frozen=True)
class Program:
    """Steps by name, each with the places of its operands among the values so far and i, j, k."""

    inputs: tuple[Tensor, ...]
    steps: tuple[tuple[str, tuple[int, int, int], tuple[int, int, int]], ...]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Every value that no step reads."""
        values = list(inputs)
        read: set[int] = set()
        for name, operands, numbers in self.steps:
            values.append(STEPS[name](*(values[place] for place in operands), *numbers))
            read |= set(operands)
        count = len(inputs)
        return tuple(v for place, v in enumerate(values) if place >= count and place not in read)

    def resized(self, sizes: dict[int, int]) -> Program:
        """The program on inputs whose dimensions of size s have the size sizes[s]."""
        shapes = [[sizes.get(size, size) for size in x.shape] for x in self.inputs]
        dtypes = [x.dtype for x in self.inputs]
        return Program(_tensors(shapes, dtypes), self.steps)


@st.composite
def programs(draw: Callable[[Any], Any]) -> Program:
    """Programs that run in eager, with no empty tensor, and at least one step."""
    shape = st.lists(st.sampled_from(SIZES), max_size=3)
    shapes = draw(st.lists(shape, min_size=2, max_size=3))
    dtypes = [draw(st.sampled_from(DTYPES)) for _ in shapes]
    inputs = _tensors(shapes, dtypes)
    program = Program(inputs, ())
    values = list(inputs)
    number = st.integers(0, 24)
    for _ in range(draw(st.integers(2, 10))):
        place = st.integers(0, len(values) - 1)
        # A chain more often than a bush: the first operand is likely the last value.
        first = draw(st.one_of(st.just(len(values) - 1), place))
        step = (
            draw(st.sampled_from(sorted(STEPS))),
            (first, draw(place), draw(place)),
            (draw(number), draw(number), draw(number)),
        )
        value = _value(step, values)
        if value is not None:
            values.append(value)
            program = Program(inputs, (*program.steps, step))
    return program


def _value(step: Any, values: Sequence[Tensor]) -> Tensor | None:
    name, operands, numbers = step
    try:
        value = STEPS[name](*(values[place] for place in operands), *numbers)
    except (RuntimeError, IndexError, TypeError, ValueError, ZeroDivisionError):
        # Shapes or dtypes that torch does not take together.
        return None
    assert isinstance(value, Tensor)
    fits = 0 < value.numel() <= MOST_ELEMENTS and value.dim() <= MOST_DIMENSIONS
    return value if fits else None


def _tensors(shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randint(-4, 5, tuple(shape), generator=generator) for shape in shapes)
    # Quarters: sums and products of a few of them are exact.
    return tuple(
        (x / 4).to(dtype) if dtype.is_floating_point else x.to(dtype)
        for x, dtype in zip(drawn, dtypes, strict=True)
    )
