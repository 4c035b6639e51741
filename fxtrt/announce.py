"""Says what fxtrt is doing while it takes long: on a terminal, or else in the log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["announced"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1.0


@contextmanager
def announced(doing: str, patience: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Write a line to standard error, if that is a terminal and the block is still running after
    `patience` seconds. Anywhere else, log its start and its end at INFO.

    Args:
        doing: such as "capturing the model".
    """
    terminal = sys.stderr  # Now, because the block may redirect it.
    if terminal is None or not terminal.isatty():
        begun = time.perf_counter()
        log.info("%s", doing)
        yield
        log.info("%s: done after %.1f s", doing, time.perf_counter() - begun)
        return
    # A thread, because the block is busy in torch.
    timer = threading.Timer(patience, print, [f"fxtrt: {doing}"], {"file": terminal, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
