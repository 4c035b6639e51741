"""Keeps the example call of a compilation in the host's memory, to be made again when saving."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..graph.specs import Call

__all__ = ["KeptExample"]


class KeptExample:
    """A call whose tensors are on the host meanwhile."""

    def __init__(self, call: Call) -> None:
        """Keep `call`. Tensors that are on the host already are not copied."""
        leaves, self._structure = pytree.tree_flatten((tuple(call.args), dict(call.kwargs)))
        self._leaves = [leaf.detach().cpu() if _is_tensor(leaf) else leaf for leaf in leaves]
        self._devices = [leaf.device if _is_tensor(leaf) else None for leaf in leaves]

    def call(self) -> Call:
        """Return the call, with its tensors on the devices that they came from."""
        pairs = zip(self._leaves, self._devices, strict=True)
        leaves = [leaf if device is None else leaf.to(device) for leaf, device in pairs]
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return Call(args, kwargs)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
