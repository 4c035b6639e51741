"""Register layer handlers, which turn the attributes of a layer into a PyTorch function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...errors import EngineError
from ..network import Network

__all__ = ["HANDLERS", "Compute", "Handler", "Layer", "dims", "layer"]

Compute = Callable[..., Any]
"""A function from a layer's operands, in slot order (None in gaps), to a tensor or several."""


@dataclass
class Layer:
    """One layer of a network, as its handler sees it.

    raw:      the layer, as an object of its own class.
    kind:     the name of its LayerType.
    operands: the name of the value in each input slot, None in gaps.
    weights:  values that are no tensors of the network, by the names that `bind` gave them.
    """

    raw: Any
    kind: str
    network: Network
    operands: list[str | None]
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def trt(self) -> ModuleType:
        return self.network.trt

    @property
    def name(self) -> str:
        return str(self.raw.name)

    def has(self, slot: int) -> bool:
        """Return whether a tensor is connected to input `slot`."""
        return slot < len(self.operands) and self.operands[slot] is not None

    def rank(self, slot: int = 0) -> int:
        """Return the rank of the tensor in input `slot`."""
        return len(self.raw.get_input(slot).shape)

    @property
    def output_rank(self) -> int:
        return len(self.raw.get_output(0).shape)

    def output_dtype(self, index: int = 0) -> torch.dtype:
        return self.network.features.to_torch(self.raw.get_output(index).dtype)

    def bind(self, slot: int, value: torch.Tensor) -> None:
        """Make `value` the operand of `slot`."""
        self.operands += [None] * (slot + 1 - len(self.operands))
        name = f"{self.name}[{slot}]"
        self.operands[slot] = name
        self.weights[name] = value

    def bind_weights(self, slot: int, weights: Any, shape: tuple[int, ...]) -> None:
        """Make a weights attribute the operand of `slot`, unless it is empty or connected."""
        if self.has(slot) or weights is None or weights.size == 0:
            return
        self.bind(slot, self.read(weights).reshape(shape))

    def read(self, weights: Any) -> torch.Tensor:
        """Return a flat copy of a weights attribute."""
        if isinstance(weights, np.ndarray):
            # The array is a view of memory that the network does not own.
            return torch.from_numpy(weights.copy())
        kept = self.network.weights.get(self.name)
        if kept is None:
            raise EngineError(
                f"layer {self.name!r} ({self.kind}) holds {weights.dtype} weights, which cannot "
                f"be read back: keep them in Network.weights under the layer's name"
            )
        return kept.detach().flatten()


Handler = Callable[[Layer], Compute]

HANDLERS: dict[str, tuple[str, Handler]] = {}
"""The name of the layer's Python class and its handler, by the name of the LayerType."""


def layer(kind: str, class_name: str) -> Callable[[Handler], Handler]:
    """Register the decorated function as the handler of LayerType `kind`."""

    def register(handler: Handler) -> Handler:
        if kind in HANDLERS:
            raise ValueError(f"{kind} has two handlers")
        HANDLERS[kind] = (class_name, handler)
        return handler

    return register


def dims(value: Any) -> tuple[int, ...] | None:
    """Return the numbers of a `Dims` attribute, or None if it was never set.

    Until TensorRT 10 unset Dims have a length of -1, which Python refuses; later they are None.
    """
    try:
        return None if value is None else tuple(value)
    except ValueError:
        return None
