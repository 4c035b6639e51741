"""Makes MTCNN importable for tests, with the weights that it was trained to: facenet-pytorch."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
from unpacked_wheel import unpacked_wheel

__all__ = ["trained_mtcnn"]

_REQUIREMENT = "facenet-pytorch==2.6.0"
"""Its dependencies pin a torch of 2024, so it cannot be installed beside a newer one."""
_SHA256 = "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca"


def _is_mtcnn(name: str) -> bool:
    """Leave out `__init__`, which imports a recognition network and what downloads its weights."""
    return name.startswith(("facenet_pytorch/models/", "facenet_pytorch/data/"))


@functools.cache
def _folder() -> str:
    return str(unpacked_wheel("facenet", _REQUIREMENT, _SHA256, _is_mtcnn))


def trained_mtcnn(**options: Any) -> Any:
    """Return `MTCNN(**options)`, or skip the test that asks for it."""
    pytest.importorskip("torchvision", reason="MTCNN needs torchvision")
    if _folder() not in sys.path:
        sys.path.insert(0, _folder())
    from facenet_pytorch.models.mtcnn import MTCNN

    return MTCNN(**options)
