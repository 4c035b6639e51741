"""Write a file that is complete or absent, even if the process dies meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .temporary_file import temporary_name

__all__ = ["written_at_once"]

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
"""Errors of file systems that cannot sync a folder, and of systems that cannot open one."""


@contextlib.contextmanager
def written_at_once(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Write to a file beside `path`, which moves there when the block ends.

    If `path` is a symbolic link, the file that it leads to is written, as by `open`.

    Args:
        mode: the permissions of the file, less those that the umask takes away. By default they
            are those of the file that is replaced, or 0o666 less the umask for a new one.

    Raises:
        OSError: the disk is full or read-only, or `path` is a folder, a pipe or a device; nothing
            is left behind.
    """
    target = Path(os.path.realpath(path))
    replaced = _status(target)
    temporary = target.parent / temporary_name()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is None and replaced is not None:
                os.chmod(temporary, stat.S_IMODE(replaced.st_mode) & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _status(target: Path) -> os.stat_result | None:
    """Return the status of the file that is to be replaced, or None if there is none."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Only a regular file can be replaced", str(target))
    return status


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a loss of power; the file's contents alone do already."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
