"""Decompose operators that have no converter, if every part has one."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses import FakeTensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..graph.aliases import erase_dead, is_pure
from ..graph.composites import composites_whole
from ..graph.metadata import PARTS_OF, PROVENANCE, fake_mode_of, same_metadata
from ..graph.pooled_sizes import pooled_sizes_without_guards
from ..graph.sizes import is_unbacked
from ..graph.weights import add_weight, weight
from ..registry import registered
from .fold_constants import is_computable

log = logging.getLogger(__name__)


def decompose_unconverted(gm: GraphModule) -> bool:
    """`addcmul(a, b, c)` -> `add(a, mul(b, c))`, where add and mul have converters.

    An operator stays whole, for PyTorch, if one part of it, at any depth, has no converter, draws
    random numbers, or is right only for the sizes of the example.
    """
    # A composite's own kernel leads to plainer parts than its decomposition for reference.
    table = {
        target: decomposition
        for target, decomposition in decomposition_table.items()
        if target not in registered() and not _is_composite(target)
    }
    parts: dict[Any, GraphModule | None] = {}
    changed = False
    with composites_whole():
        for node in list(gm.graph.nodes):
            if not _is_candidate(node, table):
                continue
            key = _key(node)
            if key not in parts:
                parts[key] = _parts(node, table)
            template = parts[key]
            if template is not None:
                _inline(gm, node, template)
                changed = True
    return changed


def _is_candidate(node: Node, table: Mapping[Any, Any]) -> bool:
    target = node.target
    if not isinstance(target, OpOverload) or target in registered() or not is_pure(node):
        return False
    if target not in table and not _is_composite(target):
        return False
    values = tree_leaves([n.meta["val"] for n in [node, *node.all_input_nodes]])
    if any(_has_unbacked(value) for value in values):
        return False
    result = node.meta["val"]
    if isinstance(result, torch.Tensor):
        return True
    # A tuple that is passed on whole has no single node to stand in for it.
    return isinstance(result, (tuple, list)) and all(
        user.target is operator.getitem for user in node.users
    )


def _is_composite(target: Any) -> bool:
    """Return whether the operator is defined by a kernel that calls other operators."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return isinstance(target, OpOverload) and target.has_kernel_for_dispatch_key(key)


def _has_unbacked(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return any(is_unbacked(size) for size in value.shape)
    return isinstance(value, torch.SymInt) and is_unbacked(value)


def _inputs(node: Node) -> tuple[list[Node], Callable[[list[Any]], Any]]:
    """Return the nodes among the arguments, and a call of the target with other values for them."""
    leaves, spec = tree_flatten((node.args, node.kwargs))
    inputs = list(dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, Node)))

    def call(values: list[Any]) -> Any:
        value_of = dict(zip(inputs, values, strict=True))
        filled = [value_of[leaf] if isinstance(leaf, Node) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(filled, spec)
        return node.target(*args, **kwargs)  # type: ignore[operator]  # a call_function

    return inputs, call


def _key(node: Node) -> tuple[Any, ...]:
    """Return what the parts depend on: two calls with one key have the same parts."""
    inputs, _ = _inputs(node)
    leaves, spec = tree_flatten((node.args, node.kwargs))
    arguments = [inputs.index(leaf) if isinstance(leaf, Node) else repr(leaf) for leaf in leaves]
    values = [_signature(n.meta["val"]) for n in inputs]
    return (node.target, str(spec), *arguments, *values)


def _signature(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, torch.Tensor):
        return (str(value),)
    sizes = (*value.shape, *value.stride(), value.storage_offset())
    return (value.dtype, value.device, *(str(size) for size in sizes))


def _parts(node: Node, table: Mapping[Any, Any]) -> GraphModule | None:
    """Return the node as a graph of converted operators with its inputs as placeholders, or
    None."""
    inputs, call = _inputs(node)
    fakes = [n.meta["val"] for n in inputs]
    try:
        with _unguarded(fakes), torch.no_grad(), enable_python_dispatcher():
            template = make_fx(lambda *values: call(list(values)), decomposition_table=dict(table))(
                *fakes
            )
    except Exception as error:  # a decomposition may refuse its arguments with any exception
        log.debug("%s stays whole: its decomposition raised %r", node, error)
        return None
    template.graph.eliminate_dead_code()
    known: set[Node] = set()
    for part in template.graph.nodes:
        if part.op == "get_attr" or is_computable(part, known):
            known.add(part)
        elif not _is_converted(part):
            log.debug("%s stays whole: its part %s has no converter", node, part.target)
            return None
    if not _gives_the_same(template, node):
        log.debug("%s stays whole: its decomposition gives another dtype or layout", node)
        return None
    return template


@contextmanager
def _unguarded(fakes: list[Any]) -> Iterator[None]:
    """Run in the values' fake mode; raise if a question about a symbolic size needs a guard.

    A new guard would make the graph right for the example's sizes only, after capture has
    settled which sizes it is for.
    """
    modes = [value.fake_mode for value in fakes if isinstance(value, FakeTensor)]
    if not modes:
        yield
        return
    shape_env: ShapeEnv | None = modes[0].shape_env
    if shape_env is None:
        with modes[0], pooled_sizes_without_guards():
            yield
        return

    def refuse(expression: Any, value: Any) -> None:
        raise ValueError(f"it needs the guard {expression} == {value}")

    # Before it adds a guard, a ShapeEnv calls this; on this object alone it now raises.
    setattr(shape_env, "_check_frozen", refuse)  # noqa: B010  # mypy knows it as a method
    try:
        with modes[0], pooled_sizes_without_guards():
            yield
    finally:
        del shape_env._check_frozen


def _is_converted(part: Node) -> bool:
    if part.op in ("placeholder", "output") or part.target is operator.getitem:
        return True
    value = part.meta.get("val")
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float)):
        return True
    return part.op == "call_function" and part.target in registered()


def _gives_the_same(template: GraphModule, node: Node) -> bool:
    results = template.graph.output_node().args[0]
    if isinstance(node.meta["val"], torch.Tensor):
        return isinstance(results, Node) and same_metadata(results.meta["val"], node.meta["val"])
    read = [user.args[1] for user in node.users]
    assert isinstance(results, (tuple, list))
    return all(
        isinstance(results[i], Node)  # type: ignore[index]  # an index, as of any getitem
        and same_metadata(results[i].meta["val"], node.meta["val"][i])  # type: ignore[index,union-attr]
        for i in read
    )


def _inline(gm: GraphModule, node: Node, template: GraphModule) -> None:
    """Replace `node` by the nodes of `template`, which keep the node's source."""
    inputs, _ = _inputs(node)
    copies: dict[Node, Node] = dict(
        zip(template.graph.find_nodes(op="placeholder"), inputs, strict=True)
    )
    source = {key: node.meta[key] for key in PROVENANCE if key in node.meta}
    source[PARTS_OF] = (*source.get(PARTS_OF, ()), (node.name, str(node.target)))
    with gm.graph.inserting_before(node):
        for part in template.graph.nodes:
            if part.op == "get_attr":
                tensor = weight(template, part)
                assert tensor is not None
                copies[part] = add_weight(gm, tensor, f"{node.name}_constant", fake_mode_of(gm))
            elif part.op == "call_function":
                copies[part] = gm.graph.node_copy(part, copies.__getitem__)
                copies[part].meta = {**source, "val": part.meta["val"]}
    results: Any = template.graph.output_node().args[0]
    if isinstance(results, Node):
        node.replace_all_uses_with(copies[results])
    else:
        for user in list(node.users):
            user.replace_all_uses_with(copies[results[user.args[1]]])
            gm.graph.erase_node(user)
    erase_dead([node, *copies.values()])
