"""Turns the name of a user's function into a model, and shapes into inputs for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingsError
from .options import InputShape

__all__ = ["load_own_model", "made_up"]


def load_own_model(name: str) -> nn.Module:
    """Return the module, in eval mode, that a function without arguments returns.

    Args:
        name: "package.module:function"; the current folder is searched first, as with `python -m`.

    Raises:
        SettingsError: there is no such module or function, or it returns no torch.nn.Module.
    """
    module_name, _, path = name.partition(":")
    if "" in module_name.split("."):
        raise SettingsError(f"--model {name}: {module_name!r} is no module's whole name")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        # The name is right if the user's module exists and lacks one of its own imports.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise SettingsError(f"--model {name}: there is no module {error.name!r}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise SettingsError(f"--model {name}: {module_name} has no {path!r}")
        found = getattr(found, part)
    torch.manual_seed(0)
    model = found if isinstance(found, nn.Module) or not callable(found) else found()
    if not isinstance(model, nn.Module):
        raise SettingsError(f"--model {name}: this is no torch.nn.Module, but {type(model)}")
    return model.eval()


def made_up(shapes: Sequence[InputShape]) -> tuple[Tensor, ...]:
    """Return tensors of these shapes, the same each time: floats in 0..1, or integers 0 and 1.

    Raises:
        SettingsError: torch has no such dtype, no numbers of it, or no memory for so many.
    """
    generator = torch.Generator().manual_seed(0)
    return tuple(_tensor(shape, generator) for shape in shapes)


def _tensor(shape: InputShape, generator: torch.Generator) -> Tensor:
    dtype = getattr(torch, shape.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise SettingsError(f"--input: torch has no dtype {shape.dtype!r}")
    try:
        if dtype.is_floating_point or dtype.is_complex:
            return torch.rand(shape.sizes, dtype=dtype, generator=generator)
        return torch.randint(2, shape.sizes, generator=generator).to(dtype)
    except RuntimeError as error:
        raise SettingsError(f"--input: cannot make {shape}: {error}") from error
