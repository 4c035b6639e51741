"""Convert bags of embeddings, if all are of one length, to a GATHER and a REDUCE."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.fx import Node

from ..conversion.checks import first_output_only
from ..conversion.context import Context
from ..graph.sizes import is_static
from ..graph.weights import attribute
from ..registry import arguments_of, converts
from .reduction import reduce
from .shape import reshape, unsqueeze_at

aten = torch.ops.aten

_MODES = ("SUM", "AVG", "MAX")
"""The operation of each `mode`, which torch passes as a number."""


def _length(node: Node) -> int | None:
    """Return how many indices each bag has, or None if they differ or are not known."""
    arguments = arguments_of(node)
    offsets, count = arguments["offsets"], arguments["indices"].meta["val"].shape[0]
    module = node.graph.owning_module
    if offsets.op != "get_attr" or not is_static(count) or module is None:
        return None
    starts = attribute(module, offsets).tolist()
    if not arguments["include_last_offset"]:
        starts.append(int(count))
    if starts[0] != 0 or starts[-1] != int(count):
        return None
    lengths = [after - before for before, after in pairwise(starts)]
    return lengths[0] if len(set(lengths)) == 1 else None


def _equal_bags(
    weight: torch.Tensor,
    padding_idx: int,
    offsets: Any,
    include_last_offset: bool,
    scale_grad_by_freq: bool,
    sparse: bool,
    node: Node,
) -> str | None:
    # `scale_grad_by_freq` and `sparse` only affect gradients.
    if padding_idx >= 0:
        return f"padding_idx={padding_idx} leaves embeddings out of their bags"
    if not weight.dtype.is_floating_point:
        return f"the weight is of {weight.dtype}"
    return None if _length(node) else "the bags are not known to be of one length"


@converts(
    aten._embedding_bag.default,
    aten._embedding_bag_forward_only.default,
    check=(_equal_bags, first_output_only),
)
def embedding_bag(
    ctx: Context, weight: Any, indices: Any, mode: int, per_sample_weights: Any
) -> tuple[Any, None, None, None]:
    """_embedding_bag(Tensor weight, Tensor indices, Tensor offsets, ...) -> (Tensor, ...)"""
    bags, width = ctx.output[0].shape
    count = ctx.fake("indices").shape[0]
    rows = ctx.cast(ctx.net.add_gather(weight, indices, 0).get_output(0), torch.float32)
    if per_sample_weights is not None:
        factors = unsqueeze_at(ctx, ctx.cast(per_sample_weights, torch.float32), [count], 1)
        rows = ctx.elementwise("PROD", rows, factors)
    packed = reshape(ctx, rows, [count, width], [bags, _length(ctx.node) or 1, width])
    reduced = reduce(ctx, _MODES[mode], packed, 1)
    return ctx.cast(reduced, ctx.output[0].dtype), None, None, None
