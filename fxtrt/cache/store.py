"""Turns an `EngineKey` into a verified plan on disk, and limits the size of all plans."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CacheError
from ..files.temporary_file import is_abandoned, is_temporary
from ..settings import Settings
from .folder import (
    NAMES,
    cache_folder,
    files,
    is_own,
    made_folder,
    remove,
)
from .owner import is_mine, untrusted
from .plan_file import (
    FAMILY,
    PlanHeader,
    StoredPlan,
    opened,
    parse_plan,
    write_plan,
)

if TYPE_CHECKING:  # It imports torch, which `fxtrt cache` does not need.
    from .engine_key import EngineKey

__all__ = ["CacheEntry", "PlanCache", "entries", "evict"]

log = logging.getLogger(__name__)


class PlanCache:
    """Keeps plans in a directory that several processes may share.

    Args:
        directory: `Settings.cache_dir`; `cache_folder` tells which folder holds the files.
        kind: what the files hold: a "plan", or the "timing" or the self-"check" of a cluster.
        limit_bytes: the most bytes of all files of this user; the least recently used go first.
        trust: `Settings.cache_trust`.
    """

    def __init__(
        self,
        directory: Path,
        kind: str = "plan",
        limit_bytes: int | None = None,
        trust: str = "owner",
    ) -> None:
        self._directory = directory
        self._kind = kind
        self._limit = limit_bytes
        self._trust = trust

    @classmethod
    def of(cls, settings: Settings, kind: str = "plan") -> PlanCache | None:
        """Return the cache that the settings name, or None.

        Raises:
            CacheError: `cache_dir` has other files in it, and so has its subfolder `fxtrt`.
        """
        if settings.cache_dir is None:
            return None
        # A folder that cannot be read is logged when a plan is put into it.
        with contextlib.suppress(OSError):
            cache_folder(settings.cache_dir)
        return cls(settings.cache_dir, kind, settings.cache_limit_bytes, settings.cache_trust)

    def get(self, key: EngineKey) -> StoredPlan | None:
        """Return the plan of `key`, or None.

        A file that cannot be read or trusted is logged and counts as absent. It is removed only if
        it is damaged and fxtrt wrote it for this user.
        """
        path: Path | None = None
        try:
            path = self.path(key)
            stored = self._read(path)
        except FileNotFoundError:
            return None
        except (OSError, MemoryError) as error:
            log.warning("a plan cannot be read now: %s; the engine is built again", error)
            return None
        except CacheError as error:
            log.warning("%s; the engine is built again", error)
            if path is not None:
                remove(path)
            return None
        if stored is not None:
            with contextlib.suppress(OSError):  # the cache is read-only, or the file was evicted
                os.utime(path)
        return stored

    def put(self, key: EngineKey, plan: bytes, header: PlanHeader) -> None:
        """Keep `plan`. A full or read-only disk is only logged, since the engine runs anyway."""
        if self._limit is not None and len(plan) > self._limit:
            log.warning("a plan of %d bytes is not kept: see cache_limit_bytes", len(plan))
            return
        try:
            made_folder(self._directory, self._kind)
            evict(self._directory, None if self._limit is None else self._limit - len(plan))
            path = self.path(key)
            _require_replaceable(path)
            write_plan(path, header, plan)
            evict(self._directory, self._limit)
        except (OSError, CacheError) as error:
            log.warning("the plan cache at %s could not be written: %s", self._directory, error)

    def path(self, key: EngineKey) -> Path:
        """Return the path of the plan of `key`, whether it exists or not.

        Raises:
            CacheError: the directory cannot hold the cache.
            OSError: the directory cannot be read.
        """
        folder = cache_folder(self._directory) / f"{self._kind}s"
        return folder / f"{key.digest}.{self._kind}"

    def _read(self, path: Path) -> StoredPlan | None:
        """Return the checked plan in a file, or None if another user may have written it."""
        with opened(path) as file:
            if (doubt := untrusted(path, file)) is not None:
                if self._trust == "owner":
                    log.warning(
                        "%s: the plan is not used, since plans are code, and the engine is built "
                        "again; see cache_trust",
                        doubt,
                    )
                    return None
                log.warning("%s: its plan runs all the same, by cache_trust=%r", doubt, self._trust)
            return parse_plan(file, path)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A file whose name is that of a file of the cache.

    size: the size in bytes.
    used: the time when it was last written or read, in seconds since the epoch.
    mine: whether it belongs to the user of this process.
    """

    path: Path
    kind: str
    size: int
    used: float
    mine: bool

    @property
    def digest(self) -> str:
        """The digest of its `EngineKey`."""
        return self.path.stem


def entries(directory: Path) -> list[CacheEntry]:
    """Return the files of a cache, the most recently used first.

    Raises:
        CacheError: `directory` cannot hold the cache.
        OSError: the directory cannot be read.
    """
    found = []
    for kind, names in NAMES.items():
        for path, status in files(cache_folder(directory) / f"{kind}s"):
            if names.fullmatch(path.name):
                size, used = status.st_size, status.st_mtime
                found.append(CacheEntry(path, kind, size, used, is_mine(status)))
    return sorted(found, key=lambda entry: (-entry.used, entry.digest))


def evict(directory: Path, limit_bytes: int | None) -> None:
    """Remove this user's least recently used files until the others fit into `limit_bytes`.

    Files that are being written count; those whose process is gone are removed in any case. A
    process that has opened a file can still read it.

    Raises:
        CacheError: `directory` cannot hold the cache.
        OSError: the directory cannot be read.
    """
    total = _sweep(cache_folder(directory))
    found = [entry for entry in entries(directory) if entry.mine]
    if limit_bytes is None or total + sum(entry.size for entry in found) <= limit_bytes:
        return
    for entry in found:
        if not is_own(entry.path):
            continue
        total += entry.size
        if total > limit_bytes:
            log.info("%s leaves the plan cache: its limit is %d bytes", entry.path, limit_bytes)
            remove(entry.path)


def _sweep(root: Path) -> int:
    """Remove half-written files of processes that are gone, and return the bytes of the others."""
    total = 0
    for folder in (root, *(root / f"{kind}s" for kind in NAMES)):
        for path, status in files(folder):
            if not is_temporary(path.name) or not is_mine(status):
                continue
            if is_abandoned(path.name, status.st_mtime):
                remove(path)
            else:
                total += status.st_size
    return total


def _require_replaceable(path: Path) -> None:
    """Refuse to replace a file that fxtrt did not write for this user.

    Raises:
        CacheError: there is such a file.
        OSError: the file cannot be read.
    """
    try:
        with opened(path) as file:
            begin, status = file.read(len(FAMILY)), os.fstat(file.fileno())
    except FileNotFoundError:
        return
    if not is_mine(status):
        raise CacheError(f"{path} belongs to another user ({status.st_uid})")
    if begin != FAMILY:
        raise CacheError(f"{path} was not written by fxtrt: move it away")
