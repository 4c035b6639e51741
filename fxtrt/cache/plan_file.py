"""Writes a plan and its header to one file atomically, and reads them back."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..errors import CacheError
from ..files.atomic_file import written_at_once

if TYPE_CHECKING:  # These import torch, which `fxtrt cache` does not need.
    from torch.fx import GraphModule

    from ..engines.base import EngineBackend

__all__ = [
    "FAMILY",
    "PlanHeader",
    "StoredPlan",
    "opened",
    "parse_plan",
    "read_header",
    "read_plan",
    "write_plan",
]

FAMILY = b"fxtrt plan "
"""The bytes that the files of all versions of fxtrt begin with."""
_MAGIC = FAMILY + b"4\n"
_LENGTHS = struct.Struct(f"<{len(_MAGIC)}sIQ32s")
"""The magic, the lengths of header and plan in bytes, and the SHA-256 of the plan."""
_PREFIX_BYTES = _LENGTHS.size + hashlib.sha256().digest_size
"""The size of the lengths, and of the SHA-256 of lengths, file name and header."""
_MOST_HEADER_BYTES = 1 << 20
_MOST_NODES = 1 << 31
_LAST_YEAR = 1e11
"""In seconds since the epoch. A later time means that the file is damaged."""


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """A description of a plan for people; builds find the plan by its `EngineKey` only.

    engine:    the name of the engine backend.
    runs_on:   the version of the engine backend, and the GPU.
    modules:   the part of the model that the cluster comes from.
    nodes:     the number of calls in the cluster.
    torch:     the version of torch that the plan was built with.
    created:   the time of the build, in seconds since the epoch.
    kept_fp32: the same as in `BuildInfo`.
    """

    engine: str
    runs_on: str
    modules: str
    nodes: int
    torch: str
    created: float
    kept_fp32: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, cluster: GraphModule, backend: EngineBackend, kept_fp32: tuple[str, ...] = ()
    ) -> PlanHeader:
        """Return the header of a plan that has just been built."""
        import torch

        from ..graph.provenance import module_path, shared_path

        calls = [node for node in cluster.graph.nodes if node.op == "call_function"]
        return cls(
            engine=backend.name,
            runs_on=backend.fingerprint,
            modules=shared_path(map(module_path, calls)),
            nodes=len(calls),
            torch=torch.__version__,
            created=time.time(),
            kept_fp32=kept_fp32,
        )


class StoredPlan(NamedTuple):
    """The header and the plan in a file."""

    header: PlanHeader
    plan: bytes


def write_plan(path: Path, header: PlanHeader, plan: bytes) -> None:
    """Write a file beside `path` and move it there in one step.

    The digest covers the file's name, so a renamed file is refused. Only the user who wrote the
    file may write to it, whatever the umask is.

    Raises:
        OSError: the disk is full or read-only; no file is left behind.
    """
    described = json.dumps(asdict(header)).encode()
    lengths = _LENGTHS.pack(_MAGIC, len(described), len(plan), hashlib.sha256(plan).digest())
    with written_at_once(path, mode=0o644) as file:
        file.write(lengths + _start_digest(lengths, described, path) + described)
        file.write(plan)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading, without waiting for a pipe or following a link.

    Raises:
        CacheError: the file is a link, a folder, a pipe, a socket or a device.
        OSError: the file cannot be opened.
    """
    flags = os.O_RDONLY
    for flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, flag, 0)  # each system has some of them
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise
        raise CacheError(f"{path} is no regular file") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CacheError(f"{path} is no regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_plan(path: Path) -> StoredPlan:
    """Return the content of `path` after checking every byte.

    Raises:
        CacheError: the file is damaged, was renamed, or is of another version of fxtrt.
        OSError: the file cannot be read.
    """
    with opened(path) as file:
        return parse_plan(file, path)


def parse_plan(file: BinaryIO, path: Path) -> StoredPlan:
    """Return the content of an open file at `path`; checks and errors are those of `read_plan`."""
    header, length, digest = _read_start(file, path)
    plan = file.read(length)
    if len(plan) != length or hashlib.sha256(plan).digest() != digest:
        raise _damaged(path)
    return StoredPlan(header, plan)


def read_header(path: Path) -> PlanHeader:
    """Return the header in `path` without reading the plan.

    Raises:
        CacheError: the beginning is damaged, the length or name has changed, or the file is of
            another version of fxtrt.
        OSError: the file cannot be read.
    """
    with opened(path) as file:
        return _read_start(file, path)[0]


def _read_start(file: BinaryIO, path: Path) -> tuple[PlanHeader, int, bytes]:
    """Read and check the header; each length is checked before that many bytes are read.

    Returns:
        The header, and the length and the digest of the plan.
    """
    prefix = file.read(_PREFIX_BYTES)
    if not prefix.startswith(_MAGIC):
        raise CacheError(f"the file {path} is no plan of this version of fxtrt")
    if len(prefix) < _PREFIX_BYTES:
        raise CacheError(f"the cache file {path} is cut short")
    lengths = prefix[: _LENGTHS.size]
    _, header_length, length, digest = _LENGTHS.unpack(lengths)
    size = os.fstat(file.fileno()).st_size
    if header_length > _MOST_HEADER_BYTES or _PREFIX_BYTES + header_length + length != size:
        raise _damaged(path)
    described = file.read(header_length)
    if _start_digest(lengths, described, path) != prefix[_LENGTHS.size :]:
        raise CacheError(f"the cache file {path} is damaged, or was renamed")
    return _header(described, path), length, digest


def _start_digest(lengths: bytes, described: bytes, path: Path) -> bytes:
    return hashlib.sha256(b"\0".join((os.fsencode(path.name), lengths, described))).digest()


def _damaged(path: Path) -> CacheError:
    return CacheError(f"the cache file {path} is damaged")


def _header(described: bytes, path: Path) -> PlanHeader:
    try:
        values = json.loads(described)
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not _is_header(values):
        raise _damaged(path)
    return PlanHeader(**(values | {"kept_fp32": tuple(values["kept_fp32"])}))


def _is_header(values: Any) -> bool:
    types = {"engine": str, "runs_on": str, "modules": str, "nodes": int, "torch": str}
    types |= {"created": float, "kept_fp32": list}
    return (
        isinstance(values, dict)
        and values.keys() == types.keys()
        and all(type(values[name]) is kind for name, kind in types.items())
        and 0 <= values["nodes"] < _MOST_NODES
        and math.isfinite(values["created"])
        and 0 <= values["created"] < _LAST_YEAR
        and all(isinstance(entry, str) for entry in values["kept_fp32"])
    )
