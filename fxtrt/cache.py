"""Keeps plans on disk, up to a size: an EngineKey becomes a verified file."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CacheError
from .plan_file import PlanHeader, StoredPlan, read_plan, write_plan
from .settings import Settings

if TYPE_CHECKING:  # It imports torch, which `fxtrt cache` can do without.
    from .engine_key import EngineKey

__all__ = ["CacheEntry", "PlanCache", "entries", "evict"]

log = logging.getLogger(__name__)

_KINDS = ("plan", "timing")
_ABANDONED_SECONDS = 24 * 3600
"""After that long a file that is still being written belongs to a process that was killed."""


class PlanCache:
    """A directory of plans. Several processes may share it.

    Args:
        kind: what its files hold: a "plan", or the "timing" of a cluster.
        limit_bytes: of all files of the directory together; the least recently used go first.
    """

    def __init__(self, directory: Path, kind: str = "plan", limit_bytes: int | None = None) -> None:
        self._directory = directory
        self._kind = kind
        self._limit = limit_bytes

    @classmethod
    def of(cls, settings: Settings, kind: str = "plan") -> PlanCache | None:
        """The cache that the settings name, or None."""
        if settings.cache_dir is None:
            return None
        return cls(settings.cache_dir, kind, settings.cache_limit_bytes)

    def get(self, key: EngineKey) -> StoredPlan | None:
        """The plan of `key`, or None. A damaged file is removed, logged, and counts as absent."""
        path = self.path(key)
        try:
            stored = read_plan(path)
        except FileNotFoundError:
            return None
        except (CacheError, OSError) as error:
            log.warning("%s; the engine is built again", error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # a read-only cache, or evicted since
            os.utime(path)
        return stored

    def put(self, key: EngineKey, plan: bytes, header: PlanHeader) -> None:
        """Keep `plan`. A full or read-only disk is logged: the engine runs all the same."""
        if self._limit is not None and len(plan) > self._limit:
            log.warning("a plan of %d bytes is not kept: see cache_limit_bytes", len(plan))
            return
        try:
            write_plan(self.path(key), header, plan)
        except OSError as error:
            log.warning("the plan cache at %s could not be written: %s", self._directory, error)
        else:
            if self._limit is not None:
                evict(self._directory, self._limit)

    def path(self, key: EngineKey) -> Path:
        """Where the plan of `key` is, or would be."""
        return self._directory / f"{self._kind}s" / f"{key.digest}.{self._kind}"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A file of the cache.

    size: in bytes.
    used: when it was last written or read, in seconds since the epoch.
    """

    path: Path
    kind: str
    size: int
    used: float

    @property
    def digest(self) -> str:
        """Of its `EngineKey`."""
        return self.path.stem


def entries(directory: Path) -> list[CacheEntry]:
    """All files of a cache, the most recently used first."""
    found = []
    for kind in _KINDS:
        for path, status in _files(directory, f"{kind}s/*.{kind}"):
            found.append(CacheEntry(path, kind, status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: (-entry.used, entry.digest))


def evict(directory: Path, limit_bytes: int) -> None:
    """Remove the least recently used files until the others fit into `limit_bytes`.

    A file that is being written has another name, and a reader keeps what it has opened.
    """
    total = 0
    for entry in entries(directory):
        total += entry.size
        if total > limit_bytes:
            log.info("%s leaves the plan cache: its limit is %d bytes", entry.path, limit_bytes)
            with contextlib.suppress(OSError):  # another process was faster
                entry.path.unlink()
    for path, status in _files(directory, "*/.*"):
        if time.time() - status.st_mtime > _ABANDONED_SECONDS:
            with contextlib.suppress(OSError):
                path.unlink()


def _files(directory: Path, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
    for path in directory.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # it may go at any time
            yield path, path.stat()
