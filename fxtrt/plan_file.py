"""Turns a plan and what it is for into one file that is complete or absent, and back."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from .atomic_file import written_at_once
from .errors import CacheError

if TYPE_CHECKING:  # These import torch, which `fxtrt cache` can do without.
    from torch.fx import GraphModule

    from .engines.base import EngineBackend

__all__ = ["PlanHeader", "StoredPlan", "read_header", "read_plan", "write_plan"]

_MAGIC = b"fxtrt plan 3\n"
_PREFIX = struct.Struct(f"<{len(_MAGIC)}sIQ32s")
"""The magic, the lengths of header and plan in bytes, and the SHA-256 of both together."""
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What a plan is for, in words; `EngineKey` is what decides.

    engine:    the name of its backend; `runs_on` its version and GPU.
    modules:   the part of the model that the cluster comes from.
    nodes:     calls in the cluster.
    torch:     the version that it was built with.
    created:   in seconds since the epoch.
    kept_fp32: as in `BuildInfo`.
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
        """The header of a plan that is built now."""
        import torch

        from .source import module_path, shared_path

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
    """What a file holds."""

    header: PlanHeader
    plan: bytes


def write_plan(path: Path, header: PlanHeader, plan: bytes) -> None:
    """Write a file beside `path` and move it there in one step.

    Raises:
        OSError: the disk is full or read-only; nothing is left behind.
    """
    described = json.dumps(asdict(header)).encode()
    digest = hashlib.sha256(described + plan).digest()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_at_once(path) as file:
        file.write(_PREFIX.pack(_MAGIC, len(described), len(plan), digest))
        file.write(described)
        file.write(plan)


def read_plan(path: Path) -> StoredPlan:
    """What is in `path`, every byte checked.

    Raises:
        CacheError: the file is damaged, or of another version of fxtrt.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        described, length, digest = _read_start(file, path)
        plan = file.read()
    if len(plan) != length or hashlib.sha256(described + plan).digest() != digest:
        raise CacheError(f"the cache file {path} is damaged")
    return StoredPlan(_header(described, path), plan)


def read_header(path: Path) -> PlanHeader:
    """What the plan in `path` is for; the plan itself is not read.

    Raises:
        CacheError: the file is damaged, or of another version of fxtrt.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        described, _, _ = _read_start(file, path)
    return _header(described, path)


def _header(described: bytes, path: Path) -> PlanHeader:
    try:
        values = json.loads(described)
        return PlanHeader(**(values | {"kept_fp32": tuple(values["kept_fp32"])}))
    except (ValueError, TypeError, KeyError) as error:
        raise CacheError(f"the cache file {path} is damaged") from error


def _read_start(file: BinaryIO, path: Path) -> tuple[bytes, int, bytes]:
    """The header, the length of the plan, and the digest of both."""
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise CacheError(f"the cache file {path} is cut short")
    magic, header_length, length, digest = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise CacheError(f"the file {path} is no plan of this version of fxtrt")
    if header_length > _MOST_HEADER_BYTES:
        raise CacheError(f"the cache file {path} is damaged")
    return file.read(header_length), length, digest
