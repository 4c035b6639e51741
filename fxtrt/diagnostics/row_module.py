"""Makes a model of the rows of an operator family, so that the whole pipeline runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .operator_rows.row import OpRow, T

__all__ = ["FamilyModule"]


class FamilyModule(nn.Module):
    """Calls one operator for each of its rows; it takes the inputs of all, in order.

    names: the operators, which are also the paths of the submodules that call them.
    """

    def __init__(self, rows: Sequence[OpRow], device: torch.device) -> None:
        super().__init__()
        self.names = [str(row.target).replace(".", "_") for row in rows]
        modules = [_RowModule(row, device) for row in rows]
        self.rows = nn.ModuleDict(dict(zip(self.names, modules, strict=True)))
        self.inputs = tuple(tensor for module in modules for tensor in module.inputs)
        """Random ones, the same every time."""

    def forward(self, *tensors: Tensor) -> dict[str, Any]:
        results, remaining = {}, iter(tensors)
        for name, module in self.rows.items():
            results[name] = module(*(next(remaining) for _ in module.inputs))  # type: ignore[union-attr]  # a _RowModule
        return results


class _RowModule(nn.Module):
    """Calls an operator as its row says; weights of the row are buffers."""

    def __init__(self, row: OpRow, device: torch.device) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        leaves, self._spec = pytree.tree_flatten(
            (row.args, row.kwargs), is_leaf=lambda value: isinstance(value, T)
        )
        self._call, self._device = row.call or row.target, None
        if row.call is None and any(a.name == "device" for a in row.target._schema.arguments):
            self._device = device
        self.inputs: list[Tensor] = []
        self._slots: list[int] = []
        self._leaves = [None if isinstance(leaf, T) else leaf for leaf in leaves]
        self._weights: dict[int, str] = {}
        for slot, leaf in enumerate(leaves):
            if isinstance(leaf, T):
                self._add(slot, leaf.make(generator).to(device), is_weight=leaf.weight)
            elif isinstance(leaf, Tensor):
                self._leaves[slot] = leaf.to(device)

    def _add(self, slot: int, tensor: Tensor, *, is_weight: bool) -> None:
        if is_weight:
            self._weights[slot] = f"weight{slot}"
            self.register_buffer(self._weights[slot], tensor)
        else:
            self._slots.append(slot)
            self.inputs.append(tensor)

    def forward(self, *tensors: Tensor) -> Any:
        leaves = list(self._leaves)
        for slot, tensor in zip(self._slots, tensors, strict=True):
            leaves[slot] = tensor
        for slot, name in self._weights.items():
            leaves[slot] = self.get_buffer(name)
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        if self._device is not None:
            kwargs = {"device": self._device} | kwargs
        return self._call(*args, **kwargs)
