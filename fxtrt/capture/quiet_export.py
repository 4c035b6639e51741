"""Hides the partial graph that torch.export prints to standard error before it raises."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

__all__ = ["silent_if_it_fails"]

log = logging.getLogger(__name__)

_one_at_a_time = threading.RLock()  # sys.stderr belongs to the process


@contextmanager
def silent_if_it_fails() -> Iterator[None]:
    """Hold back output to standard error, and print it at the end unless the block raises."""
    printed = io.StringIO()
    with _one_at_a_time:
        try:
            with redirect_stderr(printed):
                yield
        except BaseException:
            log.debug("%s", printed.getvalue())
            raise
        sys.stderr.write(printed.getvalue())
