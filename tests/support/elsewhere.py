"""Asks files of `fxtrt.save` in a process that has no code of any model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["answers_elsewhere", "assert_equal"]

_LOADER = """
import sys
sys.modules["torchvision.models"] = sys.modules["detectron2"] = None  # importing them fails
import torch, fxtrt

*paths, calls, out = sys.argv[1:]
answers = []
with torch.no_grad():
    for path, inputs in zip(paths, torch.load(calls), strict=True):
        loaded = fxtrt.load(path)
        answers.append([loaded(one) for one in inputs])
        assert loaded.forward.fallbacks == {}, loaded.forward.fallbacks
assert "torchvision" not in sys.modules
torch.save(answers, out)
"""


def answers_elsewhere(paths: list[Path], calls: list[Any], folder: Path) -> Any:
    """What a process without any model's code answers to the calls of each file."""
    torch.save(calls, folder / "calls")
    files = [*paths, folder / "calls", folder / "out"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _LOADER, *map(str, files)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return torch.load(folder / "out")


def assert_equal(actual: Any, expected: Any) -> None:
    leaves, structure = pytree.tree_flatten(expected)
    found, same = pytree.tree_flatten(actual)
    assert same == structure
    for one, other in zip(found, leaves, strict=True):
        assert type(one) is type(other)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
