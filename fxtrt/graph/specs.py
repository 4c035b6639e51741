"""Describe the tensors that a graph takes and returns by name, dtype, size range and device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from .formats import is_channels_last
from .sizes import hint, is_unbacked, size_range

__all__ = ["Call", "TensorSpec", "spec_of", "tensor_specs"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of an engine; a dimension is static where low equals high.

    A high of None means that the dimension has no upper bound; a device of None means any device.

    optimum:       the shape of the example.
    fullest:       the shape of the example but with as many images as there may be; None for an
                   output, or if no number of images varies.
    channels_last: whether the engine has the tensor as torch's channels last, which only a float16
                   tensor with channels in multiples of 8 can be; otherwise it is contiguous.
    """

    name: str
    dtype: torch.dtype
    low: tuple[int, ...]
    optimum: tuple[int, ...]
    high: tuple[int | None, ...]
    device: torch.device | None = None
    channels_last: bool = False
    fullest: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape with -1 for each dynamic dimension, as TensorRT writes it."""
        return tuple(a if a == b else -1 for a, b in zip(self.low, self.high, strict=True))

    @property
    def is_static(self) -> bool:
        return self.low == self.high

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def mismatch(self, tensor: torch.Tensor) -> str | None:
        """Return why `tensor` cannot be bound here, or None."""
        if tensor.dtype != self.dtype:
            return f"{self.name} is {tensor.dtype}, expected {self.dtype}"
        if self.device is not None and tensor.device != self.device:
            return f"{self.name} is on {tensor.device}, expected {self.device}"
        if self.low == self.high:
            fits = tensor.shape == self.low
        else:
            fits = len(self.low) == tensor.dim() and all(
                low <= size and (high is None or size <= high)
                for low, size, high in zip(self.low, tensor.shape, self.high, strict=True)
            )
        if fits:
            return None
        return f"{self.name} has shape {tuple(tensor.shape)}, expected {self.describe()}"

    def describe(self) -> str:
        """Return the shape for people: "1x3x(256..1024)x640"."""
        dims = (
            str(low) if low == high else f"({low}..{'' if high is None else high})"
            for low, high in zip(self.low, self.high, strict=True)
        )
        return "x".join(dims) or "scalar"


def tensor_specs(graph: GraphModule) -> list[TensorSpec]:
    """Return the specs of those inputs of a captured graph that are tensors."""
    values = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return [spec_of(f"x{i}", value) for i, value in enumerate(tensors)]


def spec_of(name: str, fake: torch.Tensor) -> TensorSpec:
    """Return the spec of a fake tensor."""
    ranges = [size_range(size) for size in fake.shape]
    # A size that depends on data is at least 1 here, because empty tensors run in PyTorch. Its own
    # range can be wrong: torchvision's fake `nms` keeps two boxes or more.
    lows = [
        1 if is_unbacked(size) else low for size, (low, _) in zip(fake.shape, ranges, strict=True)
    ]
    return TensorSpec(
        name,
        fake.dtype,
        tuple(lows),
        tuple(hint(size) for size in fake.shape),
        tuple(high for _, high in ranges),
        fake.device,
        is_channels_last(fake),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a call."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
