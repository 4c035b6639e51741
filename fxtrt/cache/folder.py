"""Decides which folder is the plan cache, and which files in it are the cache's own."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import CacheError
from ..files.atomic_file import written_at_once
from ..files.temporary_file import is_temporary
from .owner import is_mine
from .plan_file import FAMILY, opened

__all__ = ["NAMES", "cache_folder", "files", "is_own", "made_folder", "remove"]

log = logging.getLogger(__name__)

NAMES = {
    kind: re.compile(rf"[0-9a-f]{{64}}\.{kind}") for kind in ("plan", "timing", "check", "scale")
}
"""The names that files of each kind have."""
_SUBFOLDER = "fxtrt"
_MARKER = "CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n"
_OURS = b"# This folder is a plan cache of fxtrt, which removes files of its own in it.\n"
_MARK = _SIGNATURE + _OURS + b"# Backup programs leave it out: https://bford.info/cachedir/\n"


def cache_folder(directory: Path) -> Path:
    """Return the folder that holds the cache of `Settings.cache_dir`, without making it.

    That is the folder itself if it is a cache, is empty, or does not exist yet. If it has other
    files in it, the cache is its subfolder `fxtrt`, by the same rule.

    Raises:
        CacheError: the subfolder also has other files in it.
        OSError: a folder cannot be read.
    """
    for folder in (directory, directory / _SUBFOLDER):
        if _is_cache(folder):
            return folder
    raise CacheError(
        f"cache_dir={str(directory)!r} is no plan cache, and neither is {_SUBFOLDER} in it: both "
        f"are other files or hold some. Name an empty folder, or one that does not exist yet"
    )


def made_folder(directory: Path, kind: str) -> Path:
    """Make the folder for files of a kind, with its parents, and return it.

    Only this user may write to it, whatever the umask is.

    Raises:
        CacheError: `directory` cannot hold the cache.
        OSError: a folder cannot be made.
    """
    root = cache_folder(directory)
    root.mkdir(parents=True, exist_ok=True)
    if not _is_marked(root):
        with written_at_once(root / _MARKER, mode=0o644) as file:
            file.write(_MARK)
    folder = root / f"{kind}s"
    folder.mkdir(mode=0o755, exist_ok=True)
    return folder


def _is_cache(folder: Path) -> bool:
    """Return whether a folder is marked as a cache, or has nothing but files of a cache in it.

    Earlier versions of fxtrt wrote no marker, so a folder whose files all have the names of plans
    is a cache too.
    """
    try:
        found = [entry for entry in os.scandir(folder) if not is_temporary(entry.name)]
        kinds = {f"{kind}s": names for kind, names in NAMES.items()}
        return _is_marked(folder) or all(
            entry.name in kinds
            and entry.is_dir(follow_symlinks=False)
            and all(
                kinds[entry.name].fullmatch(name) or is_temporary(name)
                for name in os.listdir(entry.path)
            )
            for entry in found
        )
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _is_marked(folder: Path) -> bool:
    try:
        with opened(folder / _MARKER) as file:
            text = file.read(len(_MARK))
    except (FileNotFoundError, CacheError):
        return False
    return text.startswith(_SIGNATURE) and _OURS in text


def remove(path: Path) -> bool:
    """Remove a file of the cache if fxtrt wrote it for this user; return whether it did.

    The name does not suffice: a file of another program stays, whatever it is called.
    """
    try:
        if not is_own(path):
            return False
        path.unlink()
    except OSError as error:
        log.info("%s could not be removed: %s", path, error)
        return False
    return True


def is_own(path: Path) -> bool:
    """Return whether a file belongs to this user and begins like the files of fxtrt."""
    try:
        with opened(path) as file:
            begin, status = file.read(len(FAMILY)), os.fstat(file.fileno())
    except (OSError, CacheError):
        return False
    if is_temporary(path.name):  # its process may have ended before it wrote the whole beginning
        return is_mine(status) and (FAMILY.startswith(begin) or begin == _SIGNATURE[: len(begin)])
    return is_mine(status) and begin == FAMILY


def files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the regular files in a folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # another process may remove it at any time
            status = (folder / name).lstat()
            if stat.S_ISREG(status.st_mode):
                yield folder / name, status
