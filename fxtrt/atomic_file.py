"""Writes a file that is complete or absent, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["written_at_once"]


@contextlib.contextmanager
def written_at_once(path: Path) -> Iterator[BinaryIO]:
    """What the block writes goes to a file beside `path`, which moves there when the block ends.

    Raises:
        OSError: the disk is full or read-only; nothing is left behind.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
