"""Turns the constants of a graph into their forms and bytes, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import ArtifactError
from .value_data import read_device, read_dtype

__all__ = ["Form", "form_of", "in_form", "read_constants", "write_constants"]

_MOST_DIMS = 64
_MOST_SPREAD = 64
"""The elements of memory that a constant may span for each of its own: a slice has gaps."""


class Form(NamedTuple):
    """The properties of a constant besides its elements."""

    dtype: str
    shape: list[int]
    strides: list[int]
    device: str


def write_constants(tensors: Sequence[torch.Tensor]) -> tuple[list[Form], bytes]:
    """Return the forms of all tensors, and their elements in one string of bytes.

    Raises:
        ArtifactError: a tensor is expanded, or a slice of a far larger one.
    """
    return list(map(form_of, tensors)), b"".join(map(_bytes, tensors))


def form_of(tensor: torch.Tensor) -> Form:
    """Return the form of a tensor.

    Raises:
        ArtifactError: it is expanded, or a slice of a far larger one.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    form = Form(dtype, list(tensor.shape), list(tensor.stride()), str(tensor.device))
    _require_dense(form)
    return form


def read_constants(forms: Sequence[Form], data: bytes) -> list[torch.Tensor]:
    """Return the tensors that `write_constants` was given; the forms are checked first.

    Raises:
        ArtifactError: the forms are wrong, or have another number of bytes.
    """
    dtypes = [read_dtype(form.dtype) for form in forms]
    sizes = [_elements(form) * dtype.itemsize for form, dtype in zip(forms, dtypes, strict=True)]
    if sum(sizes) != len(data):
        raise ArtifactError(f"the constants have {len(data)} bytes, not {sum(sizes)}")
    tensors, start = [], 0
    for form, dtype, size in zip(forms, dtypes, sizes, strict=True):
        tensors.append(_tensor(form, dtype, data[start : start + size]))
        start += size
    return tensors


def _bytes(tensor: torch.Tensor) -> bytes:
    """Return the elements in the order of indices; `_tensor` restores the strides."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _tensor(form: Form, dtype: torch.dtype, data: bytes) -> torch.Tensor:
    ordered = torch.empty(form.shape, dtype=dtype)
    if data:
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        ordered = flat.view(dtype).view(form.shape)
    return in_form(ordered, form)


def in_form(tensor: torch.Tensor, form: Form) -> torch.Tensor:
    """Return a copy with the strides and on the device of a form.

    Raises:
        ArtifactError: the form is of another tensor, is wrong, or the device is missing.
    """
    if [str(tensor.dtype), list(tensor.shape)] != [f"torch.{form.dtype}", form.shape]:
        raise ArtifactError(f"a tensor is {tensor.dtype} {list(tensor.shape)}, not {form!r:.120}")
    _elements(form)
    device = read_device(form.device)
    try:
        placed = torch.empty_strided(form.shape, form.strides, dtype=tensor.dtype)
        return placed.copy_(tensor).to(device)
    except (RuntimeError, AssertionError) as error:  # such as a GPU that is missing
        raise ArtifactError(f"a tensor cannot be made: {error}") from error


def _elements(form: Form) -> int:
    """Return the number of elements, after checking that such a tensor is possible."""
    if len(form.shape) != len(form.strides) or len(form.shape) > _MOST_DIMS:
        raise ArtifactError(f"a constant has the shape {form.shape!r:.80}")
    if any(number < 0 for number in (*form.shape, *form.strides)):
        raise ArtifactError(f"a constant has the shape {form.shape} and strides {form.strides}")
    _require_dense(form)
    return math.prod(form.shape)


def _require_dense(form: Form) -> None:
    """Refuse a constant that spans fewer or far more elements of memory than it has."""
    count = math.prod(form.shape)
    pairs = list(zip(form.shape, form.strides, strict=True))
    span = 1 + sum((size - 1) * stride for size, stride in pairs) if count else 0
    if count > span:
        raise ArtifactError("a constant is an expanded tensor: make it contiguous")
    if span > _MOST_SPREAD * count:
        raise ArtifactError("a constant is a slice of a far larger tensor: make it contiguous")
