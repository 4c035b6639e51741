"""Replace the indices of a mask's true elements, where a call writes to them, by the mask."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..graph.aliases import erase_dead
from ..graph.metadata import infer, known_equal
from ..graph.sizes import is_static
from ..registry import arguments_of

aten = torch.ops.aten


def masks_as_indices(gm: GraphModule) -> bool:
    """`index_put(x, nonzero(mask).unbind(1), value)` -> `index_put(x, [mask], value)`.

    The number of true elements depends on data. That does not matter if one value is written or
    added to all of them, because no index occurs twice.
    """
    changed = False
    for node in list(gm.graph.nodes):
        if node.target is aten.index_put.default and (found := _mask(node)) is not None:
            _write_under_mask(node, *found)
            changed = True
    return changed


def _mask(node: Node) -> tuple[int, Node] | None:
    """Return the mask whose indices a call takes, and its first dimension, or None."""
    call = arguments_of(node)
    if not all(is_static(size) and int(size) == 1 for size in call["values"].meta["val"].shape):
        return None
    indices: list[Any] = list(call["indices"])
    first = next((dim for dim, index in enumerate(indices) if index is not None), len(indices))
    columns = [_column(index) for index in indices[first:] if index is not None]
    places = {column[0] for column in columns if column is not None}
    if len(places) != 1 or None in columns:
        return None
    (source,) = places
    mask: Any = source.args[0]
    sizes: Sequence[Any] = mask.meta["val"].shape
    whole = [(source, number) for number in range(len(sizes))]
    behind = indices[first + len(whole) :]
    if columns != whole or any(index is not None for index in behind):
        return None
    x = call["self"].meta["val"].shape[first : first + len(sizes)]
    return (first, mask) if all(map(known_equal, x, sizes)) else None


def _column(index: Node) -> tuple[Node, int] | None:
    """Return the nonzero that an index is a column of, and the number of the column, or None."""
    if index.target is operator.getitem:
        columns, number = index.args
        target = aten.unbind.int
    else:
        columns, target = index, aten.select.int
        number = index.args[2] if index.target is target else None
    if not isinstance(columns, Node) or columns.target is not target:
        return None
    source, dim = columns.args[0], arguments_of(columns)["dim"]
    if not isinstance(source, Node) or source.target is not aten.nonzero.default:
        return None
    if dim not in (1, -1) or not isinstance(number, int):
        return None
    return source, number % int(source.meta["val"].shape[1])


def _write_under_mask(node: Node, first: int, mask: Node) -> None:
    call = arguments_of(node)
    with node.graph.inserting_before(node):
        if mask.meta["val"].dtype != torch.bool:
            mask = infer(node.graph.call_function(aten.ne.Scalar, (mask, 0)), node)
        indices = [*[None] * first, mask]
        args = (call["self"], indices, call["values"], call["accumulate"])
        written = node.graph.call_function(aten.index_put.default, args)
    written.meta = dict(node.meta)
    node.replace_all_uses_with(written)
    erase_dead([node])
