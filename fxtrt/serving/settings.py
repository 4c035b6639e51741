"""Holds the settings of a server as one frozen value, which is validated when it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import SettingsError

__all__ = ["MOST_PRIORITY", "ServerSettings", "require_priority", "require_timeout"]

MOST_PRIORITY = 100
"""Priorities lie between this and its negative, so that none puts others off for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of a server; each None has been replaced by what the model says.

    name:        the label `model` of metrics and spans.
    workers:     how many threads call the model at once.
    max_batch:   the most images in a call.
    max_delay:   the seconds that a request may wait for others while another batch runs.
    batch_by:    "shape", "any", or a function from an image to the key that a batch has in common.
    queue_size:  the most requests that may wait.
    timeout:     the seconds that a request has, if it does not say so itself.
    aging:       the seconds of waiting that are worth one step of priority.
    device:      where the model runs; None moves no image.
    answers_on:  the device that tensors in answers are moved to; None leaves them.
    """

    name: str
    workers: int
    max_batch: int
    max_delay: float
    batch_by: str | Callable[[Any], Hashable]
    queue_size: int
    timeout: float
    aging: float
    device: torch.device | None
    answers_on: str | None

    def __post_init__(self) -> None:
        for name in ("workers", "max_batch", "queue_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name} must be a whole number from 1 on, not {value!r}")
        for name in ("max_delay", "aging"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < math.inf:
                raise SettingsError(f"{name} must be seconds, 0 or more, not {value!r}")
        require_timeout(self.timeout)
        if not callable(self.batch_by) and self.batch_by not in ("shape", "any"):
            raise SettingsError(
                f'batch_by must be "shape", "any" or a function, not {self.batch_by!r}'
            )


def require_timeout(seconds: Any) -> None:
    """Refuse what is no timeout; infinity is one.

    Raises:
        SettingsError: it is not a number above 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0.0:
        raise SettingsError(f"timeout must be seconds above 0, or math.inf, not {seconds!r}")


def require_priority(priority: Any) -> None:
    """Refuse what is no priority.

    Raises:
        SettingsError: it is not a whole number from -100 to 100.
    """
    if not isinstance(priority, int) or not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        raise SettingsError(
            f"priority must be a whole number from -{MOST_PRIORITY} to {MOST_PRIORITY}, "
            f"not {priority!r}"
        )
