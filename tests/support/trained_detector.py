"""A small detector that was trained on pictures of shapes, once for all test processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
import torchvision
from train_shapes import Trained, load_trained
from unpacked_wheel import cache_folder

__all__ = ["LEAST_AP", "trained_detector"]

LEAST_AP = 0.5
_SCRIPT = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "train_shapes.py"
_SOURCES = (_SCRIPT.name, "shape_detectors.py", "shape_pictures.py", "small_fcos.py")
_SECONDS = 550
"""Two other processes may keep the machine busy meanwhile."""


@cache
def trained_detector() -> Trained:
    """Return the detector `small` of `benchmarks/train_shapes.py`, in eval mode on the CPU.

    Its box AP on its 64 pictures is at least LEAST_AP. Training takes a minute of one core; its
    result is kept in the user's cache, by the sources and what they run on. The model is shared by
    the tests of a process, so none may change it.
    """
    folder = cache_folder() / f"shapes-{_digest()}"
    with _lock(folder.with_suffix(".lock")):
        if not folder.exists():
            _train(folder)
    return load_trained(folder)


def _digest() -> str:
    text = "\n".join((_SCRIPT.parent / name).read_text() for name in _SOURCES)
    versions = (torch.__version__, torchvision.__version__, platform.machine())
    return hashlib.sha256("\n".join((text, *versions)).encode()).hexdigest()[:16]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process train, and the others wait for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # It is let go of when the file is closed.
        yield


def _train(folder: Path) -> None:
    """Train in a process of its own: it has its own threads and its own warnings."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        out = Path(temporary, "trained")
        command = [sys.executable, str(_SCRIPT), f"--out={out}", f"--least-ap={LEAST_AP}"]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(_SCRIPT.parent.parent), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"training failed:\n{done.stdout}\n{done.stderr}")
        out.rename(folder)
