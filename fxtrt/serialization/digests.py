"""Digests of the code that makes networks and of the bytes of weights."""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

import torch

from ..registry import registered

__all__ = ["code_digest", "is_family", "sha256", "weight_digest"]


@functools.cache
def code_digest() -> str:
    """A digest of the source files that networks are made by, third-party converters included."""
    here = Path(__file__).parent
    files = {file for place in (".", "engines", "passes") for file in (here / place).glob("*.py")}
    for module in {converter.build.__module__ for converter in registered().values()}:
        if file := getattr(sys.modules.get(module), "__file__", None):
            files |= {*Path(file).parent.glob("*.py")} if is_family(module) else {Path(file)}
    contents = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return sha256(*contents)


def is_family(module: str) -> bool:
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
