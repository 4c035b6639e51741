"""Tells who owns a file of the plan cache, and who else may have written it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["is_mine", "untrusted"]

_ROOT = 0


def is_mine(status: os.stat_result) -> bool:
    """Return whether a file belongs to the user of this process."""
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def untrusted(path: Path, file: BinaryIO) -> str | None:
    """Return why another user may have written a file of the cache, or None.

    The file and its folder must belong to this user or to root, and no others may write to them
    unless only the owner can enter that folder or the one above. Folders further up need no check:
    there, others could at most put files of their own in the place of these.
    Windows has access lists instead, which are not checked.

    Args:
        path: the path of the file, in a folder `plans` or `timings` of the cache.
        file: the same file, already open, so that what is checked is what is read.
    """
    if not hasattr(os, "geteuid"):
        return None
    status, folder, root = os.fstat(file.fileno()), path.parent.stat(), path.parent.parent.stat()
    for place, found in ((path.parent, folder), (path, status)):
        if not _is_trusted(found):
            return f"{place} belongs to another user ({found.st_uid})"
    if any(_is_trusted(found) and not found.st_mode & 0o011 for found in (folder, root)):
        return None
    for place, found in ((path.parent, folder), (path, status)):
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"other users may write to {place} (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _is_trusted(status: os.stat_result) -> bool:
    return status.st_uid == _ROOT or is_mine(status)
