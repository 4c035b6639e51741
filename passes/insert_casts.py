"""Cast a graph to a narrower float type where that is fast and safe."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.fake_quantize import is_quantizer
from ..graph.formats import FORM
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


def narrow_among(
    wanted: Iterable[Node],
    members: Collection[Node],
    keeps: Callable[[Node], bool],
    entering: Collection[Node] = (),
) -> set[Node]:
    """Return those of `wanted` that `insert_casts` would compute in the narrow type.

    Args:
        members: the nodes that `insert_casts` would see, in their order.
        keeps: as for `insert_casts`; asked only for nodes on which the answer depends.
        entering: what the members read that enters in the narrow type.
    """
    members = dict.fromkeys(members)
    needed, stack = set[Node](), list(wanted)
    while stack:
        node = stack.pop()
        if node not in needed and node in members:
            needed.add(node)
            stack.extend(() if is_product(node) else node.all_input_nodes)
    narrow: set[Node] = set(entering)
    for node in members:
        if node in needed and _is_narrow(node, narrow, keeps):
            narrow.add(node)
    return narrow.intersection(wanted)


class _Casts:
    def __init__(self, gm: GraphModule, dtype: torch.dtype, keeps: Callable[[Node], bool]) -> None:
        self._gm = gm
        self._dtype = dtype
        self._keeps = keeps
        self._narrow: dict[Node, Node] = {}
        self._wide: dict[Node, Node] = {}
        self._narrowed: set[Node] = set()

    def run(self) -> bool:
        for node in self._gm.graph.find_nodes(op="placeholder"):
            if FORM in node.meta and node.meta["val"].dtype == self._dtype:
                self._enter(node)
        for node in list(self._gm.graph.nodes):
            if node.op == "call_function":
                self._visit(node)
        output = self._gm.graph.output_node()
        output.args = torch.fx.node.map_arg(output.args, self._widened)
        if self._narrowed:
            self._gm.graph.eliminate_dead_code()
            self._gm.recompile()
        return bool(self._narrowed)

    def _enter(self, placeholder: Node) -> None:
        """Let the readers of an input that is narrow already, and is widened at once, follow it."""
        for wide in [user for user in placeholder.users if _is_float32(user)]:
            options = {"memory_format": wide.kwargs.get("memory_format")}
            with self._gm.graph.inserting_before(wide):
                # The input may be laid out in another way than its readers were traced with.
                entered = self._gm.graph.call_function(aten.clone.default, (placeholder,), options)
            infer(entered, wide)
            wide.replace_all_uses_with(entered)
            self._narrowed.add(entered)
            self._wide[entered] = wide
            self._narrow[wide] = entered

    def _visit(self, node: Node) -> None:
        if _is_narrow(node, self._narrowed, self._keeps):
            if is_quantizer(node):
                # Its scales stay as they are.
                node.args = (self._narrowed_input(node.all_input_nodes[0]), *node.args[1:])
            elif is_product(node):
                _replace_inputs(node, self._narrowed_input)
            infer(node, node)
            self._narrowed.add(node)
        elif self._is_cast_to_narrow(node):
            infer(node, node)
        elif any(source in self._narrowed for source in node.all_input_nodes):
            _replace_inputs(node, self._widened)

    def _is_cast_to_narrow(self, node: Node) -> bool:
        """Return whether a call casts to the narrow type what is narrow already."""
        if node.target != aten._to_copy.default or node.args[0] not in self._narrowed:
            return False
        return bool(node.meta["val"].dtype == self._dtype)

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


def _is_narrow(node: Node, narrow: Collection[Node], keeps: Callable[[Node], bool]) -> bool:
    """Return whether a call computes in the narrow type if the nodes in `narrow` do."""
    # One of several results (of a split, say) is narrow if all are.
    if node.target is operator.getitem and node.args[0] in narrow:
        return True
    return (is_product(node) or _follows(node, narrow)) and not keeps(node)


def is_product(node: Node) -> bool:
    """Return whether a call begins a narrow region: a product, or what is quantized for one."""
    begins = node.target in _NARROW or is_quantizer(node)
    return begins and bool(node.meta["val"].dtype == torch.float32)


def _follows(node: Node, narrow: Collection[Node]) -> bool:
    target = node.target
    floats = [source for source in node.all_input_nodes if _is_float(source)]
    if not floats or any(source not in narrow for source in floats):
        return False
    if not isinstance(target, OpOverload):
        return False
    is_view = any(result.alias_info is not None for result in target._schema.returns)
    return is_view or target.overloadpacket in _FOLLOW


def _replace_inputs(node: Node, replacement: Callable[[Node], Node]) -> None:
    node.args = torch.fx.node.map_arg(node.args, replacement)
    node.kwargs = torch.fx.node.map_arg(node.kwargs, replacement)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_float32(node: Node) -> bool:
    return _is_float(node) and node.meta["val"].dtype == torch.float32
