"""Keeps plans on disk: a digest of all that a plan depends on becomes a verified file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node

from .convert import input_specs, output_specs
from .engines.base import EngineBackend
from .errors import CacheError
from .registry import registered
from .settings import Settings

__all__ = ["EngineKey", "PlanCache"]

log = logging.getLogger(__name__)

_MAGIC = b"fxtrt plan 1\n"
_HEADER = struct.Struct(f"<{len(_MAGIC)}s32sQ")


@dataclass(frozen=True, slots=True)
class EngineKey:
    """A digest of everything that decides what TensorRT builds for a cluster."""

    digest: str

    @classmethod
    def of(cls, cluster: GraphModule, backend: EngineBackend, settings: Settings) -> EngineKey:
        """The key of `cluster`: its calls with every argument, its weights' bytes, the shapes,
        ranges and dtypes of what it takes and gives, the settings, the engine, the GPU, and the
        code that makes networks: a plan from before a converter was corrected is not found again.
        """
        digest = hashlib.sha256()
        for part in (
            *_structure(cluster),
            backend.name,
            backend.fingerprint,
            settings.build_digest(),
            _code_digest(),
        ):
            digest.update(part.encode() + b"\0")
        for node in cluster.graph.find_nodes(op="get_attr"):
            digest.update(_weight_digest(getattr(cluster, str(node.target))))
        return cls(digest.hexdigest())


class PlanCache:
    """A directory of plans. Several processes may share it.

    Args:
        kind: what its files hold: a "plan", or the "timing" of a cluster.
    """

    def __init__(self, directory: Path, kind: str = "plan") -> None:
        self._directory = directory
        self._kind = kind

    def get(self, key: EngineKey) -> bytes | None:
        """The plan of `key`, or None. A damaged file is removed, logged, and counts as absent."""
        path = self._path(key)
        try:
            return _unpack(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        except (CacheError, OSError) as error:
            log.warning("%s; the engine is built again", error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def put(self, key: EngineKey, plan: bytes) -> None:
        """Keep `plan`. A full or read-only disk is logged: the engine runs all the same."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(path) as write:
                write(_HEADER.pack(_MAGIC, hashlib.sha256(plan).digest(), len(plan)))
                write(plan)
        except OSError as error:
            log.warning("the plan cache at %s could not be written: %s", self._directory, error)

    def _path(self, key: EngineKey) -> Path:
        return self._directory / f"{self._kind}s" / f"{key.digest}.{self._kind}"


@contextlib.contextmanager
def _replacing(path: Path) -> Any:
    """Write a file beside `path` and move it there in one step."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _unpack(data: bytes, path: Path) -> bytes:
    if len(data) < _HEADER.size:
        raise CacheError(f"the cache file {path} is cut short")
    magic, digest, length = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CacheError(f"the file {path} is no plan of this version of fxtrt")
    plan = data[_HEADER.size :]
    if len(plan) != length or hashlib.sha256(plan).digest() != digest:
        raise CacheError(f"the cache file {path} is damaged")
    return plan


@functools.cache
def _code_digest() -> str:
    """A digest of the source files that networks are made by, third-party converters included."""
    here = Path(__file__).parent
    files = {*here.glob("*.py"), *(here / "engines").glob("*.py")}
    for module in {converter.build.__module__ for converter in registered().values()}:
        if file := getattr(sys.modules.get(module), "__file__", None):
            files |= {*Path(file).parent.glob("*.py")} if _is_family(module) else {Path(file)}
    contents = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _is_family(module: str) -> bool:
    return module.startswith("fxtrt.converters.")


def _structure(cluster: GraphModule) -> list[str]:
    """The graph in a form that depends on nothing but what it computes."""
    names = {node: f"%{i}" for i, node in enumerate(cluster.graph.nodes)}

    def plain(value: Any) -> Any:
        if isinstance(value, Node):
            return names[value]
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        # repr, because 1, 1.0 and True are different arguments, and nan is one.
        return f"{type(value).__name__}:{value!r}"

    lines = [
        json.dumps(
            [
                node.op,
                "" if node.op in ("placeholder", "get_attr") else str(node.target),
                plain(node.args) if node.op != "placeholder" else [],
                plain(node.kwargs),
            ]
        )
        for node in cluster.graph.nodes
    ]
    return [*lines, repr(input_specs(cluster)), repr(output_specs(cluster)), *_symbols(cluster)]


def _symbols(cluster: GraphModule) -> list[str]:
    """Which dynamic sizes are equal or derived from each other, independent of symbols' names."""
    renamed: dict[sympy.Symbol, sympy.Symbol] = {}
    lines = []
    for node in cluster.graph.nodes:
        for leaf in torch.utils._pytree.tree_leaves(node.meta.get("val")):
            sizes = leaf.shape if isinstance(leaf, torch.Tensor) else [leaf]
            for size in sizes:
                if isinstance(size, torch.SymInt):
                    expr = size.node.expr
                    for symbol in sorted(expr.free_symbols, key=str):
                        renamed.setdefault(symbol, sympy.Symbol(f"s{len(renamed)}"))
                    lines.append(str(expr.xreplace(renamed)))
    return lines


def _weight_digest(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    digest = hashlib.sha256(header + b"\0")
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.digest()
