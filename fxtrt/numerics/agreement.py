"""Compares the outputs of an engine with PyTorch's, each in its own magnitude."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .tolerance import PEAK, magnitude

__all__ = ["Agreement", "Disagreement", "Noisy", "agreement", "loss"]

Noisy = Callable[[int], Sequence[torch.Tensor]]
"""Returns the outputs of a run with errors of rounding, which differ from number to number."""

_MOST_RUNS = 8
_IN_NOISE = 4.0
"""The engine may be off by so many times as far as random rounding moves an element."""
_TINY = 1e-30
_FOUND = 0.01
"""An element that may be off by more than this share of its magnitude, and by more than its
tolerance, does not count as compared."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The element of an output that is furthest off.

    output:    the number of the output.
    index:     the place in it, () if the shapes differ.
    engine, pytorch: the two values, or the two shapes.
    tolerance: the difference that is still allowed there.
    """

    output: int
    index: tuple[int, ...]
    engine: str
    pytorch: str
    tolerance: float = 0.0

    def __str__(self) -> str:
        place = f" at {list(self.index)}" if self.index else ""
        shown = self.tolerance > _TINY
        allowed = f", the tolerance is {self.tolerance:.1e}" if shown else ""
        return f"the engine gives {self.engine}{place}, PyTorch {self.pytorch}{allowed}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of a comparison.

    elements: the number of elements of all outputs.
    compared: those of them in which an error of 1 % of their magnitude, or of their tolerance if
              that is more, would have been found.
    largest:  the largest difference of floats, as a share of the magnitude there.
    wrong:    the worst disagreement, or None.
    """

    elements: int
    compared: int
    largest: float
    wrong: Disagreement | None = None


@dataclass(slots=True)
class _Output:
    """One output: where it is off, and by how much it may be.

    certain: where random rounding is no excuse, or None.
    """

    allowed: torch.Tensor
    gap: torch.Tensor
    unit: torch.Tensor
    skipped: torch.Tensor
    is_float: bool
    certain: torch.Tensor | None = None
    noise: torch.Tensor | None = None

    @property
    def off(self) -> torch.Tensor:
        return ~self.skipped & ~(self.gap <= self.limit)

    @property
    def uncertain(self) -> torch.Tensor:
        """Return where random rounding allows more than an error that should be found."""
        return self.skipped | (self.limit > torch.maximum(self.allowed, _FOUND * self.unit))

    @property
    def limit(self) -> torch.Tensor:
        """Return the difference that is allowed at each element."""
        if self.noise is None:
            return self.allowed
        if not self.is_float:
            return torch.where(self.noise > 0, torch.inf, 0.0)
        shares = self.noise / self.unit.clamp(min=_TINY)
        there = shares[(shares > 0) & shares.isfinite()]
        usual = there.median() * self.unit if there.numel() else self.noise
        limit = torch.maximum(self.allowed, _IN_NOISE * torch.maximum(self.noise, usual))
        return limit if self.certain is None else torch.where(self.certain, self.allowed, limit)


def agreement(
    actual: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    own: Sequence[torch.Tensor],
    tolerances: Sequence[float],
    noisy: Noisy,
) -> Agreement:
    """Compare an engine's outputs with PyTorch's.

    A float may be off by its tolerance, as a share of its own magnitude or of that of the numbers
    around it, whichever is larger. Integers and bools must be equal. Where that does not hold, runs
    with random errors of rounding show which elements are that uncertain in PyTorch too: near ties,
    and what cancels out. NaN of PyTorch is not compared. NaN or infinity of the engine is wrong
    where PyTorch has a number in the model's own precision.

    Args:
        expected: PyTorch's outputs in the precision of the engine.
        own: PyTorch's outputs in the model's own precision.
        tolerances: the share for each output.
    """
    if any(map(_differ_in_shape, actual, expected)):
        return _of_other_shapes(actual, expected, noisy)
    outputs = [
        _compared(a, e, o, share)
        for a, e, o, share in zip(actual, expected, own, tolerances, strict=True)
    ]
    runs = 0
    while runs < _MOST_RUNS and any(bool(one.off.any()) for one in outputs):
        for one, value, usual in zip(outputs, noisy(runs), expected, strict=True):
            if one.off.any():
                noise = _gap(value, usual) if value.shape == usual.shape else _everywhere(usual)
                one.noise = noise if one.noise is None else torch.maximum(one.noise, noise)
        runs += 1
    return _summed(outputs, actual, expected, own)


def loss(actual: Sequence[torch.Tensor], own: Sequence[torch.Tensor]) -> float:
    """Return the largest root mean square difference of a float output, as a share of its own."""
    shares = [0.0]
    for a, o in zip(actual, own, strict=True):
        if o.is_floating_point() and a.shape == o.shape and o.numel():
            finite = o.isfinite() & a.isfinite()
            difference = torch.where(finite, a.float() - o.float(), 0.0)
            share = (difference / magnitude(o).clamp(min=_TINY)).clamp(-1, 1)
            shares.append(float(share.square().mean().sqrt()))
    return max(shares)


def _compared(
    actual: torch.Tensor, expected: torch.Tensor, own: torch.Tensor, share: float
) -> _Output:
    gap = _gap(actual, expected)
    if not expected.is_floating_point():
        zero, nothing = torch.zeros_like(gap), torch.zeros_like(gap, dtype=torch.bool)
        return _Output(zero, gap, torch.ones_like(gap), nothing, is_float=False)
    unit = torch.maximum(expected.abs().float(), magnitude(expected)).nan_to_num(0.0, 0.0, 0.0)
    wide = own if own.shape == expected.shape else expected
    # What overflows in the engine's precision only is an error of its own.
    overflows = ~_is_number(expected) & _is_number(wide)
    gap = torch.where(overflows, torch.where(_is_number(actual), 0.0, torch.inf), gap)
    gap = torch.where(actual.isnan() & ~wide.isnan(), torch.inf, gap)
    limits = torch.finfo(expected.dtype)
    smallest = PEAK * limits.smallest_normal * limits.eps
    allowed = share * unit + smallest
    return _Output(allowed, gap, unit, wide.isnan(), is_float=True, certain=overflows)


def _gap(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the absolute differences; NaN in one only is infinitely far off.

    Infinity and the largest number are the same, as the weakly typed TensorRT takes them.
    """
    if not expected.is_floating_point():
        return (actual != expected).float()
    most = 0.99 * torch.finfo(expected.dtype).max
    a, e = (value.float().clamp(-most, most) for value in (actual, expected))
    gap = (a - e).abs()
    return torch.where(a.isnan() & e.isnan(), 0.0, gap.nan_to_num(torch.inf, torch.inf))


def _differ_in_shape(a: torch.Tensor, e: torch.Tensor) -> bool:
    return a.shape != e.shape or a.dtype != e.dtype


def _everywhere(value: torch.Tensor) -> torch.Tensor:
    return torch.full(value.shape, torch.inf, device=value.device)


def _is_number(value: torch.Tensor) -> torch.Tensor:
    return value.abs() <= 0.99 * torch.finfo(value.dtype).max


def _summed(
    outputs: Sequence[_Output],
    actual: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    own: Sequence[torch.Tensor],
) -> Agreement:
    elements = compared = 0
    largest, worst, wrong = 0.0, -1.0, None
    for number, one in enumerate(outputs):
        limit, off = one.limit, one.off
        elements += one.gap.numel()
        compared += int((~one.uncertain).sum())
        if not one.gap.numel():
            continue
        shares = torch.where(one.skipped | (one.gap == 0), 0.0, one.gap / one.unit.clamp(min=_TINY))
        if expected[number].is_floating_point() and not off.any():
            certain = shares if one.uncertain.all() else torch.where(one.uncertain, 0.0, shares)
            largest = max(largest, float(certain.max()))
        excess = torch.where(off, one.gap / limit.clamp(min=_TINY), -1.0)
        if float(excess.max()) > worst and off.any():
            worst, place = float(excess.max()), int(excess.argmax())
            wrong = _disagreement(
                number, place, actual[number], expected[number], own[number], limit
            )
            largest = max(largest, float(shares.flatten()[place]))
    return Agreement(elements, compared, largest, wrong)


def _disagreement(
    number: int,
    place: int,
    actual: torch.Tensor,
    expected: torch.Tensor,
    own: torch.Tensor,
    limit: torch.Tensor,
) -> Disagreement:
    value = expected.flatten()[place]
    if value.is_floating_point() and not bool(value.isfinite()):
        value = own.flatten()[place]  # the number that overflowed
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), actual.shape))
    tolerance = float(limit.flatten()[place]) if expected.is_floating_point() else 0.0
    return Disagreement(number, index, _text(actual.flatten()[place]), _text(value), tolerance)


def _text(value: torch.Tensor) -> str:
    return f"{value.item():.6g}" if value.is_floating_point() else str(value.item())


def _of_other_shapes(
    actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], noisy: Noisy
) -> Agreement:
    """Let a count that depends on near ties be another one; nothing else can be compared then."""
    elements = sum(value.numel() for value in expected)
    usual = [value.shape for value in expected]
    number = next(
        i for i, (a, e) in enumerate(zip(actual, expected, strict=True)) if _differ_in_shape(a, e)
    )
    same_dtype = actual[number].dtype == expected[number].dtype
    if same_dtype and any(
        [value.shape for value in noisy(run)] != usual for run in range(_MOST_RUNS)
    ):
        return Agreement(elements, 0, 0.0)
    a, e = actual[number], expected[number]
    wrong = Disagreement(
        number, (), f"{a.dtype} of {tuple(a.shape)}", f"{e.dtype} of {tuple(e.shape)}"
    )
    return Agreement(elements, 0, 0.0, wrong)
