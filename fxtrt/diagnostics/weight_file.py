"""Loads weights from a file of torch.save or of safetensors into a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingsError

__all__ = ["load_weights"]

_WRAPPERS = ("state_dict", "model")
"""The keys under which training scripts save weights, beside the state of their optimizer."""
_SHOWN = 3


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights in `path` into `model`, without running code from the file.

    Args:
        path: a state_dict that torch.save wrote, by itself or under "state_dict" or "model" in a
            dictionary; or a file of safetensors, whose name ends in .safetensors.

    Raises:
        SettingsError: the file cannot be read, or has other weights than the model.
    """
    weights = _read(path)
    own = model.state_dict()
    for what, names in (("lacks", own.keys() - weights), ("adds", weights.keys() - own)):
        if names:
            shown = ", ".join(sorted(names)[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise SettingsError(f"{path} {what} {shown}{more}: {_OTHER_MODEL}")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise SettingsError(f"{path}: {error}; {_OTHER_MODEL}") from error


_OTHER_MODEL = (
    "they are the weights of another model; --model package.module:function takes a function that "
    "makes yours"
)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{path} needs {error.name}: pip install safetensors") from error
    except Exception as error:  # A damaged file may raise any exception.
        raise SettingsError(f"{path} is not a file of weights: {_first_line(error)}") from error
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise SettingsError(f"{path} is not a file of weights: it holds no dictionary of tensors")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
