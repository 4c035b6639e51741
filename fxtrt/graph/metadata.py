"""Give new nodes the metadata that every node of a graph has: a fake value and a source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from .pooled_sizes import pooled_sizes_without_guards
from .sizes import Size, expression

__all__ = [
    "PARTS_OF",
    "fake_mode_of",
    "fake_result",
    "infer",
    "known_equal",
    "same_metadata",
]

PARTS_OF = "fxtrt_parts_of"
"""The key in `Node.meta` of the nodes and operators that were decomposed into this node."""
PROVENANCE = (
    "stack_trace",
    "nn_module_stack",
    "source_fn_stack",
    "torch_fn",
    "from_node",
    PARTS_OF,
)
"""The keys of `Node.meta` that say where in the user's model a node comes from."""


def fake_mode_of(gm: GraphModule) -> FakeTensorMode:
    """Return the mode that the graph's FakeTensors belong to, or a new one if it has none."""
    for node in gm.graph.nodes:
        for value in torch.utils._pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, FakeTensor):
                return value.fake_mode
    return FakeTensorMode()


def infer(node: Node, like: Node) -> Node:
    """Fill in `node.meta`: "val" by running the call on fake values, and the source of `like`.

    Args:
        node: a `call_function` whose arguments all have `meta["val"]`.
        like: the node that it replaces.
    """
    value = fake_result(node, lambda source: source.meta["val"])
    node.meta = {key: like.meta[key] for key in PROVENANCE if key in like.meta}
    node.meta["val"] = value
    return node


def fake_result(node: Node, value_of: Callable[[Node], Any]) -> Any:
    """Run the call of a `call_function` on the fake values that `value_of` gives for its inputs."""
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value_of)
    fakes = (
        v for v in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(v, FakeTensor)
    )
    mode = next((fake.fake_mode for fake in fakes), None) or fake_mode_of(_owner(node))
    # Some operators decompose in Python only if a size is symbolic, here as in tracing.
    with mode, enable_python_dispatcher(), torch.no_grad(), pooled_sizes_without_guards():
        return node.target(*args, **kwargs)  # type: ignore[operator]  # a call_function


def known_equal(a: Size, b: Size) -> bool:
    """Return whether two sizes are equal for all sizes of the inputs; this adds no guard."""
    return expression(a) == expression(b) or statically_known_true(a == b)


def same_metadata(a: Any, b: Any, *, offset: bool = False) -> bool:
    """Return whether two values are dense tensors of one dtype, device, shape and strides.

    Args:
        offset: whether they must also start at the same element of their storages.
    """
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return False
    if a.layout != torch.strided or b.layout != torch.strided:
        return False
    if (a.dtype, a.device, a.dim()) != (b.dtype, b.device, b.dim()):
        return False
    if (a.is_conj(), a.is_neg()) != (b.is_conj(), b.is_neg()):
        return False
    sizes: list[tuple[Size, Size]]
    sizes = [*zip(a.shape, b.shape, strict=True), *zip(a.stride(), b.stride(), strict=True)]
    if offset:
        sizes.append((a.storage_offset(), b.storage_offset()))
    return all(known_equal(x, y) for x, y in sizes)


def _owner(node: Node) -> GraphModule:
    owner = node.graph.owning_module
    assert isinstance(owner, GraphModule)
    return owner
