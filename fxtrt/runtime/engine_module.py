"""Runs a cluster through its engine, or in PyTorch if the engine cannot take the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..conversion.size_carriers import Taker
from ..engines.base import Engine
from ..graph.ambient import is_transformed
from ..graph.plain import why_unreadable
from ..graph.sizes import memory_order
from .cuda_graphs import GraphRunner
from .fallbacks import Fallbacks
from .slot import Slot
from .slots import Slots

__all__ = ["EngineModule"]


class EngineModule(torch.nn.Module):
    """One cluster of a stitched graph; any number of threads may call it.

    It takes the cluster's inputs (tensors, and ints for sizes, which the engine reads from tensors)
    and gives the tuple of its outputs. Inputs that the engine was not built for (an empty tensor, a
    size outside its range, another device) run in PyTorch, which is slower; `fallbacks` counts and
    logs them. Outputs have the dtypes and strides of the fallback's, because the rest of the graph
    was traced with those.

    engine:   the engine, or None if its plan cannot run on this machine.
    fallback: the cluster in PyTorch.
    taken:    turns the inputs of a call into those of the engine.
    slots:    the slots that calls take contexts from; `serve` replaces them by the model's.
    graphs:   the engine's own CUDA graphs, or None if it has none.
    """

    def __init__(self, name: str, engine: Engine | None, fallback: GraphModule) -> None:
        super().__init__()
        outputs = pytree.tree_leaves(fallback.graph.output_node().args)
        self._orders = tuple(memory_order(node.meta["val"]) for node in outputs)
        self.taken = Taker(fallback)
        self.name = name
        self.engine = engine
        self.fallback = fallback
        self.fallbacks = Fallbacks(f"{name} runs in PyTorch")
        self.slots = Slots([] if engine is None else [engine])
        self.graphs: GraphRunner | None = None

    def forward(self, *inputs: torch.Tensor | int) -> Sequence[torch.Tensor]:
        tensors = self.taken(inputs)
        reason = self.unfit(tensors)
        if reason is None:
            return self.slots.run(lambda slot: self._run(slot, tensors))
        self.fallbacks.record(reason)
        return self.fallback(*inputs)  # type: ignore[no-any-return]  # a GraphModule's call

    def record_graphs(self) -> None:
        """Let CUDA graphs run the engine from now on."""
        assert self.engine is not None
        self.graphs = GraphRunner(self._call_in_slot, [self.engine])

    def unfit(self, tensors: Sequence[torch.Tensor]) -> str | None:
        """Return why the engine cannot take `tensors`, or None."""
        if self.engine is None:
            return "the plan was built for another machine"
        if is_transformed():
            return "a transform of torch.func or forward-mode autograd is at work"
        for spec, tensor in zip(self.engine.inputs, tensors, strict=True):
            if reason := why_unreadable(tensor):
                return f"{spec.name} is {reason}"
            if tensor.numel() == 0:
                return f"{spec.name} is empty"
            if reason := spec.mismatch(tensor):
                return reason
        return None

    def _run(self, slot: Slot, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        results = None if self.graphs is None else self.graphs.run(slot, tensors)
        return self._call(slot, tensors) if results is None else tuple(results)

    def _call(self, slot: Slot, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        assert self.engine is not None
        results = slot.contexts[self.engine].run(tensors)
        return tuple(map(_in_order, results, self._orders))

    def _call_in_slot(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        return self.slots.run(lambda slot: self._call(slot, tensors))


def _in_order(tensor: torch.Tensor, order: tuple[int, ...] | None) -> torch.Tensor:
    if order is None or tensor.permute(order).is_contiguous():
        return tensor
    permuted = torch.empty_permuted(tensor.shape, order, dtype=tensor.dtype, device=tensor.device)
    return permuted.copy_(tensor)
