"""Decides which waiting requests form the next batch, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

__all__ = ["BatchRule", "Waiting", "choose", "key_of"]

BatchBy = str | Callable[[Any], Hashable]


class Waiting(Protocol):
    """A request in the queue; see `Request`."""

    @property
    def rank(self) -> tuple[float, int]: ...

    @property
    def arrived(self) -> float: ...

    @property
    def deadline(self) -> float: ...


@dataclass(frozen=True, slots=True)
class BatchRule:
    """The rule by which batches are formed.

    most:  the most requests in a batch.
    delay: the seconds that a request may wait for others while another batch runs.
    """

    most: int
    delay: float


def choose(
    lines: Mapping[Hashable, Sequence[Waiting]], rule: BatchRule, now: float, idle: bool
) -> tuple[Hashable, float]:
    """Return the line that the next batch comes from, and the seconds until that batch is due.

    A batch is due at once if it is full, or if nothing else runs: only then is there nothing to
    gain from waiting. Of the batches that are due, the one with the first request goes first.

    Args:
        lines: the waiting requests by key, each line in order.
        idle: whether no other batch runs.
    """
    first: tuple[Hashable, float] = None, math.inf
    rank = (math.inf, 0)
    for key, line in lines.items():
        is_due = idle or len(line) >= rule.most
        left = 0.0 if is_due else max(0.0, _hold_until(line, rule) - now)
        if (left, line[0].rank) < (first[1], rank):
            first, rank = (key, left), line[0].rank
    return first


def _hold_until(line: Sequence[Waiting], rule: BatchRule) -> float:
    """Return when a line that is not full is due.

    No request waits for others longer than half of its own time, because it must still run.
    """
    return min(r.arrived + min(rule.delay, (r.deadline - r.arrived) / 2) for r in line)


def key_of(image: Any, batch_by: BatchBy) -> Hashable:
    """Return the key of an image: images of equal keys may be in one batch.

    Args:
        image: a tensor, a dict with a tensor "image", or anything that the model takes.
        batch_by: "shape": equal shapes, dtypes and devices. "any": equal dtypes and devices. Or a
            function from an image to its key.
    """
    if callable(batch_by):
        return batch_by(image)
    tensor = image.get("image") if isinstance(image, dict) else image
    if not isinstance(tensor, torch.Tensor):
        return type(tensor).__qualname__
    shape = tuple(tensor.shape) if batch_by == "shape" else None
    return shape, tensor.dtype, tensor.device
