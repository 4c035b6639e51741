"""Cast a graph to a narrower float type where that is fast and safe."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.metadata import infer
from ..graph.weights import add_weight, weight

aten = torch.ops.aten

_NARROW = {
    aten.convolution.default,
    aten.linear.default,
    aten.addmm.default,
    aten.mm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.matmul.default,
    aten.mv.default,
    aten.einsum.default,
    aten.scaled_dot_product_attention.default,
}
"""Products are most of the work, and accurate in a narrow type: they accumulate in a wide one."""

_FOLLOW = {
    aten.relu,
    aten.relu6,
    aten.hardtanh,
    aten.leaky_relu,
    aten.hardswish,
    aten.hardsigmoid,
    aten.silu,
    aten.gelu,
    aten.tanh,
    aten.sigmoid,
    aten.clamp,
    aten.add,
    aten.sub,
    aten.mul,
    aten.maximum,
    aten.minimum,
    aten.max_pool1d,
    aten.max_pool2d,
    aten.max_pool2d_with_indices,
    aten.max_pool3d,
    aten.avg_pool2d,
    aten.adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d,
    aten.upsample_nearest2d,
    aten.upsample_bilinear2d,
    aten.cat,
    aten.stack,
    aten.clone,
    aten.reshape,
    aten._unsafe_view,
    aten.flatten,
    aten.constant_pad_nd,
    aten.pad,
    aten.pixel_shuffle,
    aten.channel_shuffle,
}
"""These operators, and views, stay narrow between products while all that they read is narrow."""


def insert_casts(
    gm: GraphModule, dtype: torch.dtype, keeps: Callable[[Node], bool] = lambda node: False
) -> bool:
    """`conv(x, w)` -> `conv(x.to(dtype), w_narrow)`; inputs and outputs keep their types.

    As in autocast, products run in `dtype`, and so does what lies between them. All other operators
    (exponentials, norms, statistics, box arithmetic with float32 constants) run as they did.

    Args:
        keeps: whether a call that would be narrow stays as it is; asked once for each of these.
    """
    return _Casts(gm, dtype, keeps).run()


class _Casts:
    def __init__(self, gm: GraphModule, dtype: torch.dtype, keeps: Callable[[Node], bool]) -> None:
        self._gm = gm
        self._dtype = dtype
        self._keeps = keeps
        self._narrow: dict[Node, Node] = {}
        self._wide: dict[Node, Node] = {}
        self._narrowed: set[Node] = set()

    def run(self) -> bool:
        for node in list(self._gm.graph.nodes):
            if node.op == "call_function":
                self._visit(node)
        output = self._gm.graph.output_node()
        output.args = torch.fx.node.map_arg(output.args, self._widened)
        if self._narrowed:
            self._gm.graph.eliminate_dead_code()
            self._gm.recompile()
        return bool(self._narrowed)

    def _visit(self, node: Node) -> None:
        is_product = node.target in _NARROW and node.meta["val"].dtype == torch.float32
        if self._is_part(node):
            is_narrow = True
        else:
            is_narrow = (is_product or self._follows(node)) and not self._keeps(node)
        if is_narrow:
            if is_product:
                _replace_inputs(node, self._narrowed_input)
            infer(node, node)
            self._narrowed.add(node)
        elif any(source in self._narrowed for source in node.all_input_nodes):
            _replace_inputs(node, self._widened)

    def _follows(self, node: Node) -> bool:
        target = node.target
        floats = [source for source in node.all_input_nodes if _is_float(source)]
        if not floats or any(source not in self._narrowed for source in floats):
            return False
        if not isinstance(target, OpOverload):
            return False
        is_view = any(result.alias_info is not None for result in target._schema.returns)
        return is_view or target.overloadpacket in _FOLLOW

    def _is_part(self, node: Node) -> bool:
        """Return whether the call takes one of several results (of a split, say) that are
        narrow."""
        return node.target is operator.getitem and node.args[0] in self._narrowed

    def _narrowed_input(self, node: Node) -> Node:
        if node in self._narrowed or not _is_float32(node):
            return node
        if node not in self._narrow:
            value = weight(self._gm, node)
            if value is not None:
                with self._gm.graph.inserting_after(node):
                    cast = add_weight(self._gm, value.to(self._dtype), f"{node.name}_narrow")
            else:
                cast = self._cast(node, self._dtype)
            self._narrow[node] = cast
            self._narrowed.add(cast)
        return self._narrow[node]

    def _widened(self, node: Node) -> Node:
        if node not in self._narrowed:
            return node
        if node not in self._wide:
            self._wide[node] = self._cast(node, torch.float32)
            self._narrow[self._wide[node]] = node
        return self._wide[node]

    def _cast(self, node: Node, dtype: torch.dtype) -> Node:
        point = node
        while point.next.op == "placeholder":
            point = point.next
        with self._gm.graph.inserting_after(point):
            cast = self._gm.graph.call_function(aten._to_copy.default, (node,), {"dtype": dtype})
        return infer(cast, node)


def _replace_inputs(node: Node, replacement: Callable[[Node], Node]) -> None:
    node.args = torch.fx.node.map_arg(node.args, replacement)
    node.kwargs = torch.fx.node.map_arg(node.kwargs, replacement)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_float32(node: Node) -> bool:
    return _is_float(node) and node.meta["val"].dtype == torch.float32
