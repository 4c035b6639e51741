"""Runs a graph with errors of rounding made at random, to see how far they reach its outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from .tolerance import accumulated_errors, is_decision, magnitude, own_error

__all__ = ["RandomRounding"]

aten = torch.ops.aten

_AT_DECISIONS = 2.0
"""The errors before a decision in standard errors, so that near ties fall either way."""


class RandomRounding(Interpreter):
    """Runs a graph as an engine with other kernels might: each result is off by its rounding error.

    Before a call that decides (a comparison, an argmax, an NMS) all floats are off, so that what is
    as good as equal, or equal, comes in either order. Numbers that are whole are left as they are
    before comparisons, because they are counts and labels.

    Args:
        gm: the graph that the engine was made of, with the casts of its precision.
        precision: `Settings.precision`.
        seed: another one makes other errors.
    """

    def __init__(self, gm: GraphModule, precision: str, seed: int) -> None:
        super().__init__(gm)
        self._precision, self._seed = precision, seed
        self._errors = accumulated_errors(gm.graph, precision)
        self._generators: dict[torch.device, torch.Generator] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        share = own_error(n, self._precision) if n.op == "call_function" else 0.0
        if not share:
            return value
        pointwise = isinstance(n.target, OpOverload) and torch.Tag.pointwise in n.target.tags
        return pytree.tree_map_only(torch.Tensor, lambda t: self._off(t, share, pointwise), value)

    def fetch_args_kwargs_from_env(self, n: Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if n.op != "call_function" or not is_decision(n):
            return args, kwargs
        share = _AT_DECISIONS * max(self._errors[source] for source in n.all_input_nodes)
        ranks = any(_is_index(value) for value in pytree.tree_leaves(n.meta.get("val")))
        ranks = ranks and n.target is not aten._to_copy.default

        def off(tensor: torch.Tensor) -> torch.Tensor:
            whole = tensor.is_floating_point() and bool((tensor == tensor.round()).all())
            if whole and not ranks:
                return tensor
            return self._off(tensor, max(share, 2.0**-22), pointwise=False)

        return pytree.tree_map_only(torch.Tensor, off, (args, kwargs))

    def _off(self, tensor: torch.Tensor, share: float, pointwise: bool) -> torch.Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        around = tensor.abs().float()
        if not pointwise:
            around = torch.maximum(around, _not_zero(magnitude(tensor)))
        generator = self._generator(tensor.device)
        noise = torch.randn(tensor.shape, generator=generator, device=tensor.device)
        off = (tensor.float() + share * around * noise).to(tensor.dtype)
        return torch.where(tensor.isfinite(), off, tensor)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            generator = torch.Generator(device).manual_seed(self._seed)
            self._generators[device] = generator
        return self._generators[device]


def _is_index(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.int64, torch.int32)


def _not_zero(size: torch.Tensor) -> torch.Tensor:
    """Let zeros be ordered at random too, where there is nothing but zeros."""
    return torch.where(size > 0, size, 1.0)
