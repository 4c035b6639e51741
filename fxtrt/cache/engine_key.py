"""Digests all that a plan depends on into one key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..conversion.convert import input_specs, output_specs
from ..engines.base import EngineBackend
from ..graph.patterns import Patterns
from ..graph.weights import attribute
from ..serialization.digests import code_digest, sha256, weight_digest
from ..settings import Settings

__all__ = [
    "EngineKey",
]


@dataclass(frozen=True, slots=True)
class EngineKey:
    """A digest of everything that decides what TensorRT builds for a cluster."""

    digest: str

    @classmethod
    def of(cls, cluster: GraphModule, backend: EngineBackend, settings: Settings) -> EngineKey:
        """Return the key of `cluster`: its calls with every argument, its weights' bytes, the shapes,
        ranges and dtypes of what it takes and gives, the settings and what they keep in float32,
        the engine, the GPU, torch, and the code that makes networks: a plan from before a converter
        was corrected is not found again. Neither the names of its nodes nor the order that they
        stand in count.

        Args:
            cluster: before casts are written into it.
        """
        parts = (
            *_structure(cluster, Patterns(settings.keep_fp32)),
            backend.name,
            backend.fingerprint,
            f"torch {torch.__version__}",
            settings.build_digest(),
            code_digest(),
        )
        return cls(sha256(*parts))


def _structure(cluster: GraphModule, keep_fp32: Patterns) -> list[str]:
    """Return what the cluster computes: a node's digest covers the digests of all that it reads."""
    symbols, digests = _Symbols(), dict[Node, str]()
    sources: list[str] = []
    for node in cluster.graph.nodes:
        args: Any = node.args
        if node.op == "placeholder":
            content, args = f"input {len(sources)}", ()
        elif node.op == "get_attr":
            content = weight_digest(attribute(cluster, node))
        else:
            content = f"{_target_name(node.target)} {keep_fp32.match(node) is not None}"
        value = symbols.describe(node.meta.get("val"))
        call = json.dumps(_plain((args, node.kwargs), digests), sort_keys=True)
        digests[node] = sha256(node.op, content, call, value)
        if node.op == "placeholder":
            sources.append(digests[node])
    specs = repr((input_specs(cluster), output_specs(cluster)))
    return [specs, *sources, digests[cluster.graph.output_node()]]


def _plain(value: Any, digests: dict[Node, str]) -> Any:
    if isinstance(value, Node):
        return f"node {digests[value]}"
    if isinstance(value, (list, tuple)):
        return [_plain(item, digests) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, digests) for name, item in value.items()}
    # repr, because 1, 1.0 and True are different arguments, and nan is one.
    return f"{type(value).__name__}:{value!r}"


def _target_name(target: Any) -> str:
    """Of a function without the address that its repr has."""
    if isinstance(target, (str, OpOverload)):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}"


class _Symbols:
    """Which dynamic sizes are equal or derived from each other, whatever their symbols' names."""

    def __init__(self) -> None:
        self._renamed: dict[sympy.Symbol, sympy.Symbol] = {}

    def describe(self, value: Any) -> str:
        """Return the dtype and sizes of each tensor in a node's value, and what else is in it."""
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
