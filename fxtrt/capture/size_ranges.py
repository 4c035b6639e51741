"""Gives the dynamic sizes of a captured graph the ranges that the user asked for, if they hold."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from typing import Any

import sympy
import torch
from torch._guards import ShapeGuard, SLoc, detect_fake_mode
from torch.export.dynamic_shapes import _combine_args, _tree_map_with_path
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

from ..graph.size_relations import linear
from ..graph.sizes import (
    Size,
    hint,
    is_infinite,
    is_unbacked,
)
from ..graph.specs import Call
from .copies import copied
from .untouched import untouched

__all__ = ["bound_ranges", "restore_ranges"]

log = logging.getLogger(__name__)


def restore_ranges(
    gm: GraphModule,
    model: torch.nn.Module,
    call: Call,
    ranges: Mapping[Any, ValueRanges[Any]],
    dynamic_shapes: Any = None,
) -> None:
    """Give the symbols of `gm` the ranges that the user asked for.

    While tracing, torch assumes that every dynamic size is at least 2, and export claims size 1
    without a check. Where the graph differs from `model` at size 1, because it squeezes or
    broadcasts there, the range begins at 2.

    Args:
        call: the example that `gm` was captured with.
        ranges: the exported program's ranges, by symbol.
        dynamic_shapes: as `capture_module` takes it. It is needed because the exported program has
            a minimum of 2 for `Dim.AUTO(min=1)` and `Dim.DYNAMIC(min=1)`.
    """
    fakes = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    mode = detect_fake_mode(fakes)
    if mode is None or mode.shape_env is None:
        return
    of_inputs = _symbols(fakes)
    from_one = _hinted_from_one(fakes, model, call, dynamic_shapes)
    wanted = {
        symbol: ValueRanges(1, asked.upper) if symbol in from_one and asked.lower == 2 else asked
        for symbol, asked in _by_symbol(ranges).items()
    }
    at_one = {symbol for symbol in of_inputs & wanted.keys() if wanted[symbol].lower < 2}
    examples = mode.shape_env.backed_var_to_val
    for symbol, asked in wanted.items():
        alike = {other for other in at_one if examples.get(other) == examples.get(symbol)}
        if symbol in at_one and not _agree_at_one(gm, model, call, {symbol}):
            if len(alike) > 1 and _agree_at_one(gm, model, call, alike):
                _require_one_together(mode.shape_env, symbol, alike - {symbol})
                mode.shape_env.var_to_range[symbol] = asked
                continue
            log.warning("at a size of 1 (%s) the model differs: it runs in PyTorch", symbol)
            asked = ValueRanges(2, asked.upper)
        mode.shape_env.var_to_range[symbol] = asked


def bound_ranges(gm: GraphModule, growth: int) -> None:
    """Bound each dynamic size that has no upper bound by `growth` times its example.

    In a graph of Dynamo's the bound becomes a guard, so larger inputs are compiled again.
    """
    fakes = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    mode = detect_fake_mode(fakes)
    environment = None if mode is None else mode.shape_env
    for symbol in _symbols(fakes) if environment is not None else ():
        assert environment is not None
        known, example = environment.var_to_range[symbol], environment.backed_var_to_val.get(symbol)
        if example is not None and is_infinite(known.upper):
            bound = max(int(known.lower), growth * int(example))
            environment.var_to_range[symbol] = ValueRanges(known.lower, bound)


def _by_symbol(ranges: Mapping[Any, ValueRanges[Any]]) -> dict[sympy.Symbol, ValueRanges[Any]]:
    """Return ranges by symbol: export narrows that of 32*s0 fully, but that of s0 only in part."""
    result = {symbol: asked for symbol, asked in ranges.items() if symbol.is_Symbol}
    for expr, asked in ranges.items():
        parts = None if expr.is_Symbol else linear(expr)
        if parts is not None and parts[0].is_Symbol:
            symbol, factor, offset = parts
            low, high = (int(bound) - offset for bound in (asked.lower, asked.upper))
            result[symbol] = ValueRanges(-(-low // factor), high // factor)
    return result


def _hinted_from_one(
    fakes: Sequence[Any], model: torch.nn.Module, call: Call, dynamic_shapes: Any
) -> set[sympy.Symbol]:
    """Return the symbols of sizes whose hint in `dynamic_shapes` has a minimum of at most 1."""
    if not dynamic_shapes:
        return set()
    leaves = pytree.tree_leaves((tuple(call.args), dict(call.kwargs)))
    fake_of = {id(leaf): fake for leaf, fake in zip(leaves, fakes, strict=True)}
    found: set[sympy.Symbol] = set()

    def note(_: Any, value: Any, shape: Any) -> None:
        fake = fake_of.get(id(value))
        if not isinstance(fake, torch.Tensor) or not isinstance(shape, (dict, list, tuple)):
            return
        sizes: Sequence[Size] = fake.shape
        for dim, wanted in shape.items() if isinstance(shape, dict) else enumerate(shape):
            low, size = getattr(wanted, "min", None), sizes[dim]
            if low is not None and low < 2 and isinstance(size, torch.SymInt):
                found.add(size.node.expr)

    arguments: Any = _combine_args(model, tuple(call.args), dict(call.kwargs))
    if isinstance(dynamic_shapes, (tuple, list)):
        arguments = type(dynamic_shapes)(arguments.values())
    _tree_map_with_path(note, arguments, dynamic_shapes, tree_name="inputs")
    return found


def _symbols(fakes: Sequence[Any]) -> set[sympy.Symbol]:
    sizes: list[Size] = []
    for fake in fakes:
        if isinstance(fake, torch.Tensor):
            sizes += fake.shape
    dynamic = [size.node.expr for size in sizes if isinstance(size, torch.SymInt)]
    return {symbol for expr in dynamic for symbol in expr.free_symbols}


def _require_one_together(
    environment: ShapeEnv, symbol: sympy.Symbol, others: Set[sympy.Symbol]
) -> None:
    """Add guards that `symbol` is 1 if and only if each of `others` is.

    Sizes may belong together without torch knowing it, like the batch sizes of an image and of its
    mask. If only one of them is 1, the model broadcasts or fails, and the graph does not.
    """
    for other in sorted(others, key=str):
        both = sympy.Eq(sympy.Min(symbol, 2), sympy.Min(other, 2), evaluate=False)
        environment.guards.append(ShapeGuard(both, SLoc(None, None), size_oblivious=False))


def _agree_at_one(
    gm: GraphModule, model: torch.nn.Module, call: Call, symbols: Set[sympy.Symbol]
) -> bool:
    """Return whether graph and model agree where `symbols` are 1 and the rest is the example's."""
    small = _example_at_one(gm, call, symbols)
    if small is None:
        return False
    leaves = pytree.tree_leaves((small.args, small.kwargs))
    shaped = _ShapesAtOne(gm, symbols)
    try:
        with torch.no_grad():
            with untouched(model, gm, leaves):
                expected = _values(model(*small.args, **small.kwargs))
            with untouched(model, gm, leaves):
                actual = _values(shaped.run(*leaves, enable_io_processing=False))
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3, equal_nan=True)
    except Exception as error:  # Any failure means that the graph does not hold at size 1.
        log.debug("at %s = 1: %s", symbols, error)
        return False
    return True


def _values(result: Any) -> list[Any]:
    """Return copies of the outputs, one of which may be a buffer that is restored later."""
    return pytree.tree_leaves(copied(result))


class _ShapesAtOne(torch.fx.Interpreter):
    """Runs a graph where some symbols are 1, and raises if a shape is not the traced one."""

    def __init__(self, gm: GraphModule, symbols: Set[sympy.Symbol]) -> None:
        super().__init__(gm)
        self._symbols = symbols

    def run_node(self, n: torch.fx.Node) -> Any:
        result, fake = super().run_node(n), n.meta.get("val")
        # A node that updates a buffer has no value.
        if isinstance(result, torch.Tensor) and fake is not None:
            traced = tuple(
                actual if is_unbacked(size) else _size_at_one(size, self._symbols)
                for size, actual in zip(fake.shape, result.shape, strict=True)
            )
            if tuple(result.shape) != traced:
                raise ValueError(f"{n.name} has shape {tuple(result.shape)}, traced {traced}")
        return result


def _example_at_one(gm: GraphModule, call: Call, symbols: Set[sympy.Symbol]) -> Call | None:
    """Return the example cut down to where `symbols` are 1, or None if a tensor is too small."""
    fakes = [node.meta["val"] for node in gm.graph.find_nodes(op="placeholder")]
    leaves, tree = pytree.tree_flatten((tuple(call.args), dict(call.kwargs)))
    small: list[Any] = []
    for leaf, fake in zip(leaves, fakes, strict=True):
        if not isinstance(leaf, torch.Tensor):
            small.append(leaf)
            continue
        cut = leaf.clone()
        for dim, size in enumerate(fake.shape):
            wanted = _size_at_one(size, symbols)
            if wanted > cut.shape[dim]:
                return None
            cut = cut.narrow(dim, 0, wanted)
        small.append(cut)
    args, kwargs = pytree.tree_unflatten(small, tree)
    return Call(args, kwargs)


def _size_at_one(size: Any, symbols: Set[sympy.Symbol]) -> int:
    if not isinstance(size, torch.SymInt) or symbols.isdisjoint(size.node.expr.free_symbols):
        return hint(size)
    environment = size.node.shape_env
    assert environment is not None
    others = {other: environment.backed_var_to_val[other] for other in size.node.expr.free_symbols}
    return int(size.node.expr.xreplace(others | dict.fromkeys(symbols, sympy.Integer(1))))
