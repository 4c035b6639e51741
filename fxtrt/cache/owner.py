"""Tells whose a file of the plan cache is, and who else may have written it."""

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

    The file and the folder that it is in must belong to this user or to root, and no others may
    write to them; that they may does not matter inside a folder that only its owner can enter. In
    folders further up others can at most put something in the place of ours, and that is theirs.
    Windows has access lists instead, which are not looked at.

    Args:
        path: of the file, in a folder `plans` or `timings` of the cache.
        file: the same, open: what is checked is what is read.
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
