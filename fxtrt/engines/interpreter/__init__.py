"""Read a TensorRT network back as a program of PyTorch functions, one per layer."""

from __future__ import annotations

from .program import Program, Step
from .reader import read_program

__all__ = ["Program", "Step", "read_program"]
