"""Tell what fxtrt is doing while it takes long, on a terminal or else in the log."""

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
    """Tell on a terminal that the block is still running after `patience` seconds.

    If standard error is no terminal, the start and the end are logged at INFO instead.

    Args:
        doing: what the block does, such as "capturing the model".
    """
    # The stream is read now, because the block may redirect it.
    terminal = sys.stderr
    if terminal is None or not terminal.isatty():
        begun = time.perf_counter()
        log.info("%s", doing)
        yield
        log.info("%s: done after %.1f s", doing, time.perf_counter() - begun)
        return
    # A thread prints the line, because this one is busy in the block.
    timer = threading.Timer(patience, print, [f"fxtrt: {doing}"], {"file": terminal, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
