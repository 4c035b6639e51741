"""Run a graph in PyTorch with each narrow call rounded as an engine rounds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..graph.fake_quantize import PER_CHANNEL, is_quantizer
from ..passes.insert_casts import is_product
from .node_precision import Narrow, rounds

__all__ = ["SimulatedRun", "round_to"]

aten = torch.ops.aten

_PRODUCTS_OF_SUMS: Mapping[Any, Callable[..., Any]] = {
    aten.linear.default: aten.linear.default,
    aten.addmm.default: aten.mm.default,
    aten.baddbmm.default: aten.bmm.default,
}
"""The operators that add a tensor to a product, with the product alone."""


class SimulatedRun(Interpreter):
    """Runs a graph once; what is narrow is rounded, and accumulates in float32 as kernels do."""

    def __init__(
        self, gm: GraphModule, narrow: Narrow, weights: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Begin a run.

        Args:
            weights: the rounded weights of earlier runs, to which those of this one are added.
        """
        super().__init__(gm)
        self.narrow = narrow
        self._weights = {} if weights is None else weights

    def run_node(self, n: Node) -> Any:
        dtype = self.narrow.inside.get(n)
        if dtype is None:
            return round_to(super().run_node(n), self.narrow.derived.get(n))
        return self.run_narrow(n, dtype)

    def run_narrow(self, node: Node, dtype: torch.dtype, *, rounds_inputs: bool = False) -> Any:
        """Run a call as an engine that computes it in `dtype`.

        Args:
            rounds_inputs: whether inputs are wide where they would be narrow in an engine.
        """
        if node.target is PER_CHANNEL:
            return self._remembered(
                node.all_input_nodes[0], "int8", lambda: self._call(node, dtype)
            )
        return self._call(node, dtype, rounds_inputs=rounds_inputs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, OpOverload) and target._schema.is_mutable:
            # The operator writes to copies, so that buffers and inputs stay as they are.
            args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def _call(self, node: Node, dtype: torch.dtype, *, rounds_inputs: bool = False) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if is_quantizer(node):
            args = (round_to(args[0], dtype), *args[1:])
        elif is_product(node) or rounds_inputs:
            known = {} if rounds_inputs else self.narrow.inside
            args, kwargs = self._rounded_arguments(node, dtype, known)
        if node.target in _PRODUCTS_OF_SUMS:
            value = _product_and_sum(node.target, args, kwargs, dtype)
        else:
            value = self.call_function(node.target, args, kwargs)
        return round_to(value, dtype) if rounds(node) else value

    def _rounded_arguments(
        self, node: Node, dtype: torch.dtype, known: Mapping[Node, torch.dtype]
    ) -> Any:
        """Return the arguments of a call; those that are `known` to be narrow are so already."""

        def value_of(source: Node) -> Any:
            if known.get(source) == dtype:
                return self.env[source]
            if source.op != "get_attr":
                return round_to(self.env[source], dtype)
            return self._remembered(source, str(dtype), lambda: round_to(self.env[source], dtype))

        return torch.fx.node.map_arg((node.args, node.kwargs), value_of)

    def _remembered(self, weight: Node, form: str, compute: Callable[[], Any]) -> Any:
        """Return what is made of a weight, which is the same in all runs."""
        key = f"{weight.target} {form}"
        if key not in self._weights:
            self._weights[key] = compute()
        return self._weights[key]


def _product_and_sum(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: torch.dtype
) -> Any:
    """Run a product with a sum as the two layers that it becomes: the product is rounded too."""
    multiply = _PRODUCTS_OF_SUMS[target]
    if target == aten.linear.default:
        x, weight, *bias = args
        product = round_to(multiply(x, weight), dtype)
        return product + bias[0] if bias and bias[0] is not None else product
    term, a, b = args
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    product = alpha * round_to(multiply(a, b), dtype)
    return product if beta == 0 else beta * term + product


def round_to(value: Any, dtype: torch.dtype | None) -> Any:
    """Return a value whose float32 tensors are rounded to `dtype`, and stay float32."""
    if dtype is None:
        return value
    return pytree.tree_map_only(torch.Tensor, lambda tensor: _rounded(tensor, dtype), value)


def _rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype).float() if tensor.dtype == torch.float32 else tensor
