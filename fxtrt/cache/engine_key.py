"""Turns all that a plan depends on into one key."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..conversion.convert import input_specs, output_specs
from ..engines.target import Target
from ..graph.formats import FORM
from ..graph.patterns import Patterns
from ..graph.weights import attribute
from ..serialization.digests import code_digest, sha256, weight_digest

__all__ = ["EngineKey", "node_digests"]


@dataclass(frozen=True, slots=True)
class EngineKey:
    """A digest of everything that decides what TensorRT builds for a cluster."""

    digest: str

    @classmethod
    def of(cls, cluster: GraphModule, target: Target) -> EngineKey:
        """Return the key of the plan that `target` has for `cluster`.

        The key covers the calls with every argument, the bytes of the weights, the shapes, ranges
        and dtypes of inputs and outputs, the settings with the nodes that they keep in float32, the
        engine, the GPU, torch, and the code that makes networks, so that a plan from before a
        converter was corrected is not found again. The names and the order of nodes do not count.

        Args:
            cluster: the cluster before casts are written into it.
        """
        parts = (
            *_structure(cluster, Patterns(target.settings.keep_fp32)),
            target.backend.name,
            target.backend.fingerprint,
            f"torch {torch.__version__}",
            target.settings.build_digest(),
            code_digest(),
        )
        return cls(sha256(*parts))


def _structure(cluster: GraphModule, keep_fp32: Patterns) -> list[str]:
    """Return digests of the signature, the inputs and the outputs."""
    digests = node_digests(cluster, keep_fp32)
    sources = [digests[node] for node in cluster.graph.find_nodes(op="placeholder")]
    specs = repr((input_specs(cluster), output_specs(cluster)))
    return [specs, *sources, digests[cluster.graph.output_node()]]


def node_digests(cluster: GraphModule, keep_fp32: Patterns) -> dict[Node, str]:
    """Return a digest of what each node computes, which covers those of its arguments.

    Names do not count, so the same node has the same digest in another process.
    """
    symbols, digests, inputs = _Symbols(), dict[Node, str](), itertools.count()
    for node in cluster.graph.nodes:
        args: Any = node.args
        if node.op == "placeholder":
            content, args = f"input {next(inputs)} {node.meta.get(FORM)}", ()
        elif node.op == "get_attr":
            content = weight_digest(attribute(cluster, node))
        else:
            content = f"{_target_name(node.target)} {keep_fp32.match(node) is not None}"
        value = symbols.describe(node.meta.get("val"))
        call = json.dumps(_plain((args, node.kwargs), digests), sort_keys=True)
        digests[node] = sha256(node.op, content, call, value)
    return digests


def _plain(value: Any, digests: dict[Node, str]) -> Any:
    if isinstance(value, Node):
        return f"node {digests[value]}"
    if isinstance(value, (list, tuple)):
        return [_plain(item, digests) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, digests) for name, item in value.items()}
    # repr tells 1, 1.0 and True apart, and can write nan.
    return f"{type(value).__name__}:{value!r}"


def _target_name(target: Any) -> str:
    """Return the name of a target; the repr of a function would have its address in it."""
    if isinstance(target, (str, OpOverload)):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}"


class _Symbols:
    """Describes dynamic sizes by symbols that are renamed in the order of their first use."""

    def __init__(self) -> None:
        self._renamed: dict[sympy.Symbol, sympy.Symbol] = {}

    def describe(self, value: Any) -> str:
        """Return a text of a node's value: dtype and sizes of its tensors, and its numbers."""
        parts: list[Any] = []
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, torch.Tensor):
                parts.append([str(leaf.dtype), *map(self._number, leaf.shape)])
            else:
                parts.append(self._number(leaf))
        return json.dumps(parts)

    def _number(self, value: Any) -> str:
        if not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return repr(value)
        expr = value.node.expr
        for symbol in sorted(expr.free_symbols, key=str):
            self._renamed.setdefault(symbol, sympy.Symbol(f"s{len(self._renamed)}"))
        return str(expr.xreplace(self._renamed))
