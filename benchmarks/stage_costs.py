"""Turns the nodes of a detector's stitched graph into stages, and their calls into lower bounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from fxtrt.runtime.engine_module import EngineModule

__all__ = ["GPUS", "STAGES", "Cost", "CostObserver", "Gpu", "RangeObserver", "stages_of"]

BEFORE, AFTER, REST = "before", "after", "rest"
BACKBONE, HEADS = "backbone and dense heads", "mask and keypoint heads"
STAGES = (
    *(BEFORE, BACKBONE, "RPN selection", "RoIAlign", "box head", "box selection"),
    *("RoIAlign of masks", HEADS, AFTER, REST),
)
"""The stages in the order of a call."""
_OPERATORS = {
    "fxtrt::rpn_proposals": "RPN selection",
    "fxtrt::multilevel_roi_align": "RoIAlign",
    "fxtrt::refine_boxes": "box selection",
    "fxtrt::box_detections": "box selection",
    "fxtrt::dense_detections": "box selection",
    "fxtrt::place_detections": "box selection",
}
_SELECTED = ("fxtrt::box_detections", "fxtrt::dense_detections")


@dataclass(frozen=True, slots=True)
class Gpu:
    """The peaks of a GPU: TFLOP/s of float16 products with dense weights, and GB/s of memory."""

    tflops: float
    gb_per_second: float

    def floor_ms(self, cost: Cost) -> float:
        """Return the time below which a stage cannot be: of its FLOPs or of its bytes."""
        return max(cost.flops / self.tflops / 1e9, cost.bytes / self.gb_per_second / 1e6)


GPUS: Mapping[str, Gpu] = {
    "NVIDIA H100 80GB HBM3": Gpu(989.0, 3350.0),
    "NVIDIA H200": Gpu(989.0, 4800.0),
}
"""The figures are from NVIDIA's data sheets of the SXM cards."""


@dataclass(slots=True)
class Cost:
    """The arithmetic of a stage, and the bytes if each tensor is read or written once."""

    flops: int = 0
    bytes: int = 0

    def add(self, other: Cost) -> None:
        self.flops += other.flops
        self.bytes += other.bytes


def stages_of(graph: Graph) -> dict[str, str]:
    """Return the stage of each call in a stitched graph, by the name of the node.

    The operators of fixed shape divide the graph: what stands before proposals are selected is the
    backbone with the dense heads, what stands between pooling and selection is the box head, and
    what follows the selection of boxes belongs to masks and keypoints.
    """
    stages: dict[str, str] = {}
    current, selected = BACKBONE, False
    for node in graph.nodes:
        if not node.op.startswith("call_"):
            continue
        name = _name_of(node)
        stage = _OPERATORS.get(name, current)
        if name == "fxtrt::multilevel_roi_align":
            stage = "RoIAlign of masks" if selected else "RoIAlign"
            current = HEADS if selected else "box head"
        elif name in _SELECTED:
            current, selected = HEADS, True
        stages[node.name] = stage
    return stages


def _name_of(node: Node) -> str:
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


class RangeObserver:
    """Puts each call of a stitched graph into a profiler's range that is named after its stage."""

    def __init__(self, graph: Graph) -> None:
        self._stages = stages_of(graph)

    def __call__(self, node: Node, args: Sequence[Any], run: Callable[[], Any]) -> Any:
        with torch.profiler.record_function(self._stages[node.name]):
            return run()


class CostObserver:
    """Adds up what the calls of a stitched graph must at least do, by stage.

    Engines are counted by the graph that they stand for, and their weights take two bytes per
    element if `half`.
    """

    def __init__(self, graph: Graph, half: bool) -> None:
        self._stages, self._half = stages_of(graph), half
        self._owner = graph.owning_module
        self.costs: defaultdict[str, Cost] = defaultdict(Cost)

    def __call__(self, node: Node, args: Sequence[Any], run: Callable[[], Any]) -> Any:
        module = self._module(node)
        counter = FlopCounterMode(display=False)
        within: AbstractContextManager[Any] = nullcontext() if module else counter
        with within:
            result = run()
        moved = 0
        if module is not None:
            moved = self._weights(module)
            with counter:
                module.fallback(*args)
        if module is not None or _is_computed(node):
            moved += _bytes((args, result))
        self.costs[self._stages[node.name]].add(Cost(counter.get_total_flops(), moved))
        return result

    def _module(self, node: Node) -> EngineModule | None:
        if node.op != "call_module" or self._owner is None:
            return None
        module = self._owner.get_submodule(str(node.target))
        return module if isinstance(module, EngineModule) else None

    def _weights(self, module: EngineModule) -> int:
        tensors: Iterable[Tensor] = (*module.fallback.parameters(), *module.fallback.buffers())
        return sum(
            t.numel() * (2 if self._half and t.is_floating_point() else t.element_size())
            for t in tensors
        )


def _is_computed(node: Node) -> bool:
    """Return whether a call moves data: views, and picking from a tuple, do not."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return not any(a.alias_info is not None for a in target._schema.arguments)


def _bytes(values: Any) -> int:
    tensors = {id(v): v for v in pytree.tree_leaves(values) if isinstance(v, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
