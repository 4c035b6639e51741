"""Puts made-up values through a check: the same few each time, or new ones for as long as asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["fuzz"]


def fuzz(check: Callable[..., None], *strategies: SearchStrategy[Any], examples: int) -> None:
    """Call `check` with values of the strategies.

    The same `examples` are taken each time, so that a test is deterministic. FXTRT_FUZZ_SECONDS in
    the environment asks for others as well, for so many seconds.
    """

    def run(derandomize: bool) -> None:
        options = settings(
            max_examples=examples,
            derandomize=derandomize,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        options(given(*strategies)(check))()

    run(derandomize=True)
    end = time.monotonic() + float(os.environ.get("FXTRT_FUZZ_SECONDS", "0"))
    while time.monotonic() < end:
        run(derandomize=False)
