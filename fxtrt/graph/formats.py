"""Says in what form a tensor passes between an engine and its reader: its dtype and its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree

from ..registry import arguments_of
from .sizes import is_static, is_unbacked, memory_order

__all__ = [
    "FORM",
    "Form",
    "fits_channels_last",
    "half_arguments",
    "has_unbacked_size",
    "is_channels_last",
    "memory_format_of",
    "takes_half",
]

FORM = "fxtrt_form"
"""The key in `Node.meta` of a cluster's input that enters in another `Form` than it was traced in.
"""

_CHANNELS_LAST = (0, 2, 3, 1)
_VECTOR = 8
"""TensorRT pads the channels of a channels-last half tensor to a multiple of this."""

_HALF_ARGUMENTS: dict[str, frozenset[str]] = {
    "fxtrt::multilevel_roi_align": frozenset({"features"}),
    "fxtrt::rpn_proposals": frozenset({"logits", "deltas"}),
    "fxtrt::box_detections": frozenset({"logits", "deltas"}),
    "fxtrt::dense_detections": frozenset({"logits", "deltas", "centerness"}),
}
"""By operator: the arguments that it takes in float16 too, and in any memory layout."""


@dataclass(frozen=True, slots=True)
class Form:
    """The dtype and the memory layout of a tensor that passes a boundary."""

    dtype: torch.dtype
    channels_last: bool = False

    @classmethod
    def of(cls, fake: torch.Tensor) -> Form:
        """Return the form of a fake tensor."""
        return cls(fake.dtype, is_channels_last(fake))

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{name} channels-last" if self.channels_last else name

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


def takes_half(operator: str, *arguments: str) -> None:
    """Declare that an operator takes these tensor arguments in float16 too, in any memory layout.

    Each may be float16 while another is float32, but the tensors of one list have one dtype. The
    operator's fake must say what it returns then.

    Args:
        operator: "package::name".
    """
    _HALF_ARGUMENTS[operator] = frozenset(arguments)


def half_arguments(node: Node) -> list[list[Node]]:
    """Return the nodes in each argument that the call takes in float16 as well as in float32.

    A node that the call also reads as another argument is not among them. An operator whose result
    has a size that depends on data takes none, because its fake cannot be asked twice.
    """
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return []
    names = _HALF_ARGUMENTS.get(node.target._schema.name)
    if names is None or any(map(has_unbacked_size, pytree.tree_leaves(node.meta["val"]))):
        return []
    arguments = arguments_of(node)
    outside = _nodes([value for name, value in arguments.items() if name not in names])
    taken = [_nodes([value]) for name, value in arguments.items() if name in names]
    return [[source for source in sources if source not in outside] for sources in taken]


def is_channels_last(fake: torch.Tensor) -> bool:
    """Return whether a tensor is laid out by channels last, in float16 and as TensorRT reads it."""
    return fits_channels_last(fake, fake.dtype) and memory_format_of(fake) == torch.channels_last


def memory_format_of(fake: torch.Tensor) -> torch.memory_format | None:
    """Return the memory format whose strides a tensor has, or None if they are others."""
    order = memory_order(fake)
    if order is None:
        return torch.contiguous_format
    return torch.channels_last if order == _CHANNELS_LAST else None


def fits_channels_last(fake: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether TensorRT could lay out a tensor in `dtype` as torch's channels last."""
    if dtype != torch.float16 or fake.dim() != 4 or fake.layout != torch.strided:
        return False
    channels = fake.shape[1]
    return is_static(channels) and int(channels) % _VECTOR == 0 and not has_unbacked_size(fake)


def _nodes(values: Sequence[object]) -> list[Node]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Node)]


def has_unbacked_size(value: object) -> bool:
    """Return whether a size, or a size of a tensor, depends on data."""
    sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
    return any(isinstance(size, torch.SymInt) and is_unbacked(size) for size in sizes)
