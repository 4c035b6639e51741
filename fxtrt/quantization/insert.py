"""Inserts the quantizers of a plan into a graph, with the scales of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch.fx import GraphModule, Node

from ..graph.fake_quantize import PER_CHANNEL, PER_TENSOR
from ..graph.metadata import fake_mode_of, infer
from ..graph.weights import add_weight, weight
from .plan import QuantizationPlan
from .rules import PRODUCTS

__all__ = ["insert_quantizers", "weight_scales"]

_STEPS = 127


def insert_quantizers(
    gm: GraphModule,
    plan: QuantizationPlan,
    scales: Mapping[Node, float],
    component: Callable[[Node], int],
) -> None:
    """`conv(x, w)` -> `conv(fake_quantize(x), fake_quantize_channels(w))`, for all of a plan.

    Readers of one value share its quantizer, as far as they are in one component: each component
    has engines of its own, which read the value as it is.

    Args:
        scales: of each value of the plan.
        component: the number of the component that a node belongs to.
    """
    largest: defaultdict[Node, float] = defaultdict(float)
    for value, group in plan.groups.items():
        largest[group] = max(largest[group], scales[value])
    made: dict[tuple[Node, int], Node] = {}
    for edge in plan.edges:
        key = edge.value, component(edge.reader)
        if key not in made:
            scale = _above(torch.tensor(largest[plan.groups[edge.value]]))
            with gm.graph.inserting_after(_point(edge.value)):
                made[key] = gm.graph.call_function(PER_TENSOR, (edge.value, float(scale)))
            infer(made[key], edge.reader)
        edge.reader.replace_input_with(edge.value, made[key])
    mode = fake_mode_of(gm)
    for node in plan.products:
        product = PRODUCTS[node.target]  # type: ignore[index]  # the plan has no others
        source = node.args[product.weight]
        assert isinstance(source, Node)
        constant = weight(gm, source)
        assert constant is not None
        steps = weight_scales(constant, product.axis)
        with gm.graph.inserting_before(node):
            read = add_weight(gm, steps, f"{source.name}_scale", mode)
            rounded = gm.graph.call_function(PER_CHANNEL, (source, read, product.axis))
        infer(rounded, node)
        node.update_arg(product.weight, rounded)
    gm.graph.lint()
    gm.recompile()


def weight_scales(value: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the scales of a weight's channels, (C,) float32, by their largest numbers."""
    others = [i for i in range(value.dim()) if i != axis]
    return _above(value.detach().abs().amax(others).float() / _STEPS)


def _above(scale: torch.Tensor) -> torch.Tensor:
    """Return the next float16 from `scale` on, as float32.

    A strongly typed network whose values are float16 has its scales in float16 too.
    """
    half = scale.half()
    next_up = (half.view(torch.int16) + 1).view(torch.float16)  # of numbers above 0
    above = torch.where(half.float() < scale, next_up, half)
    above = above.clamp(min=2.0**-24)
    return torch.where(above.isfinite(), above.float(), scale.float())


def _point(value: Node) -> Node:
    """Return the node after which a call on `value` may stand: inputs come first of all."""
    while value.op == "placeholder" and value.next.op == "placeholder":
        value = value.next
    return value
