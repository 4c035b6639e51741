"""Count the floating-point operations of nodes, as torch's own counter does."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils.flop_counter import flop_registry

from .sizes import hint, is_unbacked, size_range

__all__ = ["flops"]


def flops(node: Node) -> int:
    """Return the operations of one call at the sizes of the example inputs.

    A multiplication with addition counts as two operations, and what torch counts as 0 is 0. If a
    size depends on data, its largest value is used; a call with an unbounded size counts as 0.
    """
    if not isinstance(node.target, OpOverload) or _is_unlimited(node):
        return 0
    count = flop_registry.get(node.target.overloadpacket)
    if count is None:
        return _composite_flops(node)
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), _concrete)
    return int(count(*args, **kwargs, out_val=_concrete(node)))


def _composite_flops(node: Node) -> int:
    """Count a composite that was not decomposed (linear, matmul) by running it on meta tensors."""
    assert isinstance(node.target, OpOverload)
    if not _is_composite(node.target):
        return 0
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), _concrete)
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    with counter:
        node.target(*args, **kwargs)
    return int(counter.get_total_flops())


def _is_composite(target: OpOverload) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    name = target._schema.name + (
        f".{target._schema.overload_name}" if target._schema.overload_name else ""
    )
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, key))


def _is_unlimited(node: Node) -> bool:
    """Return whether a size depends on data and has no upper bound."""
    values = [n.meta.get("val") for n in (node, *node.all_input_nodes)]
    leaves = torch.utils._pytree.tree_leaves(values)
    sizes = [s for v in leaves for s in (v.shape if isinstance(v, torch.Tensor) else (v,))]
    symbolic = [size for size in sizes if isinstance(size, torch.SymInt)]
    return any(is_unbacked(size) and size_range(size)[1] is None for size in symbolic)


def _concrete(node: Node) -> Any:
    """Return the node's value with sizes as numbers and tensors on the meta device."""
    return torch.utils._pytree.tree_map(_on_meta, node.meta["val"])


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty([hint(s) for s in value.shape], dtype=value.dtype, device="meta")
    return hint(value) if isinstance(value, torch.SymInt) else value
