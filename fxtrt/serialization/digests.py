"""Digests the code of fxtrt that decides about networks and captures, and the bytes of weights."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from ..registry import registered

__all__ = ["capture_digest", "code_digest", "sha256", "weight_digest"]

NETWORK_CODE = ("builder", "conversion", "converters", "engines", "graph", "passes", "registry")
"""The packages that turn a cluster into a network and a plan. The work of all other packages either
shows in the cluster's graph, which is in the engine key itself, or comes after the plan."""

CAPTURE_CODE = ("capture", "detection", "graph", "registry", "serialization")
"""The packages that turn a model into graphs, and graphs into data."""


@functools.cache
def code_digest() -> str:
    """Return a digest of the sources that make networks, converters of other packages too."""
    files = _sources(NETWORK_CODE)
    for module in {converter.build.__module__ for converter in registered().values()}:
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is not None and not module.startswith("fxtrt."):
            files.add(Path(file))
    return _digest(files)


@functools.cache
def capture_digest() -> str:
    """Return a digest of the sources that decide which graphs a model is captured as."""
    return _digest(_sources(CAPTURE_CODE))


def _sources(names: Iterable[str]) -> set[Path]:
    """Return the files of modules of fxtrt, and of packages with all that is below them."""
    files: set[Path] = set()
    for name in names:
        origin = _origin(name)
        is_package = origin.name == "__init__.py"
        files |= set(origin.parent.rglob("*.py")) if is_package else {origin}
    return files


def _origin(name: str) -> Path:
    """Return the file that `import fxtrt.<name>` runs: two packages lie elsewhere in a checkout."""
    spec = importlib.util.find_spec(f"fxtrt.{name}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _digest(files: Iterable[Path]) -> str:
    return sha256(*sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))


def weight_digest(tensor: torch.Tensor) -> str:
    """Return a digest of a tensor's dtype, shape and values."""
    flat = tensor.detach().cpu().contiguous().flatten()
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\0".encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sha256(*parts: str) -> str:
    """Return a digest of texts that tells ("ab", "c") from ("a", "bc")."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} {part}".encode())
    return digest.hexdigest()
