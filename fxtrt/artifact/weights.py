"""Turns the weights of a model into the bytes of a safetensors file, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import safetensors.torch
import torch

from ..errors import ArtifactError
from ..serialization.constant_data import Form, form_of, in_form
from ..serialization.digests import weight_digest

__all__ = ["Weight", "read_weights", "write_weights"]

_PATH = re.compile(r"(?!__)\w+(\.(?!__)\w+)*")
_MOST_NAME = 1000


class Weight(NamedTuple):
    """A weight in the manifest.

    key: its name in the safetensors file; equal weights are there once.
    """

    key: str
    is_parameter: bool
    form: Form


def write_weights(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Weight], bytes]:
    """Return a row for each weight, and the bytes of a safetensors file of all of them.

    Raises:
        ArtifactError: safetensors has no such tensors.
    """
    rows: dict[str, Weight] = {}
    stored: dict[str, torch.Tensor] = {}
    keys: dict[str, str] = {}
    for name, tensor in sorted(tensors.items()):
        key = keys.setdefault(weight_digest(tensor), name)
        if key == name:
            stored[key] = tensor.detach().cpu().contiguous().clone()
        rows[name] = Weight(key, isinstance(tensor, torch.nn.Parameter), form_of(tensor))
    try:
        return rows, safetensors.torch.save(stored)
    except (KeyError, ValueError, RuntimeError) as error:  # such as complex numbers
        raise ArtifactError(f"safetensors cannot hold the weights: {error}") from error


def read_weights(rows: Mapping[str, Weight], data: bytes) -> dict[str, torch.Tensor]:
    """Return the weights by name, each in memory of its own.

    Raises:
        ArtifactError: the bytes are no safetensors file, or of other tensors than the rows.
    """
    try:
        stored = safetensors.torch.load(data)
    except Exception as error:  # Wrong bytes may fail anywhere, with any exception.
        raise ArtifactError(f"the weights are no safetensors file: {error}") from error
    weights: dict[str, torch.Tensor] = {}
    for name, row in rows.items():
        if len(name) > _MOST_NAME or not _PATH.fullmatch(name):
            raise ArtifactError(f"a weight has the name {name!r:.80}")
        if row.key not in stored:
            raise ArtifactError(f"the file has no weight {row.key!r:.80}")
        tensor = in_form(stored[row.key], row.form)
        if row.is_parameter:
            tensor = torch.nn.Parameter(tensor, requires_grad=False)
        weights[name] = tensor
    return weights
