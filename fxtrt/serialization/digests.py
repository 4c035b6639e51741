"""Digests of the code that makes networks and of the bytes of weights."""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

import torch

from ..registry import registered

__all__ = ["code_digest", "sha256", "weight_digest"]


_MAKERS = ("builder", "conversion", "detection/ops", "engines", "graph", "passes", "registry.py")
"""What of fxtrt decides which network and which plan a cluster becomes. What the other packages do
is in the cluster's graph already, or happens after a plan is made."""


@functools.cache
def code_digest() -> str:
    """Return a digest of the sources that make networks, converters of other packages too."""
    root = Path(__file__).parents[1]
    files = {file for name in _MAKERS for file in _sources(root / name)}
    for module in {converter.build.__module__ for converter in registered().values()}:
        if file := getattr(sys.modules.get(module), "__file__", None):
            files |= {*Path(file).parent.glob("*.py")} if _is_family(module) else {Path(file)}
    contents = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return sha256(*contents)


def _sources(place: Path) -> list[Path]:
    """The files of a package, and of the packages in it; or the one file."""
    return [place] if place.suffix else sorted(place.rglob("*.py"))


def _is_family(module: str) -> bool:
    return module.startswith("fxtrt.converters.")


def weight_digest(tensor: torch.Tensor) -> str:
    """A digest of a tensor's dtype, shape and values."""
    flat = tensor.detach().cpu().contiguous().flatten()
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\0".encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sha256(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} {part}".encode())
    return digest.hexdigest()
