"""A compiled call that stands in for a module's `forward` wherever it is sure to give the same."""

from __future__ import annotations

import logging
import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from .calls import Call
from .engines.network import TensorSpec
from .errors import FxtrtError
from .outside import as_graph
from .relations import SizeRelations
from .shapes import is_static, size_range
from .weights import states
from .writes import Writes

__all__ = ["GuardedForward"]

log = logging.getLogger(__name__)

_TRAINING = operator.itemgetter("training")


class GuardedForward:
    """Replaces `module.forward`: runs the compiled graph for inputs like the example's.

    Anything else runs the original `forward`: training mode, also of one submodule; other shapes
    than the graph was captured for; other constants; weights that were changed since. The first
    time is logged, and `fallbacks` counts them. A module may have several, one for each structure
    of arguments: what does not fit the last goes to the one before it, and they count together.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        graph: GraphModule,
        specs: Sequence[TensorSpec],
        example: Call,
        run: Callable[..., Any],
        arguments: Callable[..., tuple[Any, ...]] | None = None,
    ) -> None:
        """Guard `graph`, which was captured from `module` with `example`.

        Args:
            specs: of the tensors among the flattened example, in order.
            run: calls the graph.
            arguments: makes the graph's positional arguments of the call's, as in
                `ComponentPlan`; None takes them as they are.
        """
        self.graph = graph
        self.run = as_graph(run)
        self._arguments = arguments
        self._original: Callable[..., Any] = module.forward
        before = self._original
        self.fallbacks: dict[str, int] = (
            before.fallbacks if isinstance(before, GuardedForward) else {}
        )
        self._module = module
        self._specs = tuple(specs)
        leaves, self._tree = pytree.tree_flatten((tuple(example.args), dict(example.kwargs)))
        self._constants = tuple(
            None if isinstance(leaf, torch.Tensor) else (type(leaf), leaf) for leaf in leaves
        )
        self._varying = _varying_integers(graph)
        self._weights = tuple(_weights(module))
        self._tensors = [tensor for _, _, tensor in self._weights]
        self._states = states(self._tensors)
        self._modules = tuple(child.__dict__ for child in module.modules())
        self._relations = SizeRelations.of(graph)
        self._writes = Writes.of(graph, self._tensors)
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given: tuple[Any, ...] = args
        reason = None
        if self._arguments is not None:
            try:
                given = self._arguments(*args)
            except Exception as error:  # A plan's function meets whatever the caller passed.
                reason = f"the arguments are of another form than the example's: {error!r}"
        reason = reason or self._unfit(given, kwargs)
        if reason is None:
            return self.run(*given, **kwargs)
        if not isinstance(self._original, GuardedForward):
            self._record(reason)
        return self._original(*args, **kwargs)

    def _unfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if any(map(_TRAINING, self._modules)):
            return "the module is in training mode"
        leaves, tree = pytree.tree_flatten((args, kwargs))
        if tree != self._tree:
            return "the arguments have another structure than the example's"
        specs = iter(self._specs)
        sized: list[torch.Tensor | int] = []
        for i, (leaf, constant) in enumerate(zip(leaves, self._constants, strict=True)):
            if constant is None:
                if not isinstance(leaf, torch.Tensor):
                    return f"an argument is {type(leaf).__name__}, in the example it was a tensor"
                if reason := next(specs).mismatch(leaf):
                    return reason
                sized.append(leaf)
                if leaf.requires_grad and torch.is_grad_enabled():
                    return "an input requires grad"
            elif i in self._varying and type(leaf) is int:
                low, high = self._varying[i]
                if leaf < low or (high is not None and leaf > high):
                    return f"an argument is {leaf}, the graph was captured for {low} to {high}"
                sized.append(leaf)
            elif (type(leaf), leaf) != constant:
                return f"an argument is {leaf!r}, in the example it was {constant[1]!r}"
        if self._relations is not None and not self._relations.hold(sized):
            return "the graph was captured for other relations between the inputs' sizes"
        if self._writes is not None and (reason := self._writes.conflict(leaves)):
            return reason
        current = [owner[name] for owner, name, _ in self._weights]
        if not all(map(operator.is_, current, self._tensors)):
            return f"the weight {self._replaced()!r} was replaced after compiling: compile again"
        if states(current) != self._states:
            return f"the weight {self._changed()!r} was changed after compiling: compile again"
        return None

    def _replaced(self) -> str:
        pairs = ((name, owner[name] is tensor) for owner, name, tensor in self._weights)
        return next((name for name, is_same in pairs if not is_same), "")

    def _changed(self) -> str:
        pairs = zip(self._weights, self._states, strict=True)
        return next((name for (_, name, tensor), at in pairs if states([tensor]) != [at]), "")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise FxtrtError(
            "a compiled model cannot be copied, pickled or compiled again: do that with the model "
            "that it was compiled from"
        )

    def _record(self, reason: str) -> None:
        with self._lock:
            self.fallbacks[reason] = self.fallbacks.get(reason, 0) + 1
            first = self.fallbacks[reason] == 1
        if first:
            log.warning("%s runs in PyTorch: %s", type(self._module).__name__, reason)


def _varying_integers(graph: GraphModule) -> dict[int, tuple[int, int | None]]:
    """By their places among the inputs, the integers that may vary, and their ranges."""
    values = (node.meta["val"] for node in graph.graph.find_nodes(op="placeholder"))
    return {
        i: size_range(value)
        for i, value in enumerate(values)
        if isinstance(value, torch.SymInt) and not is_static(value)
    }


def _weights(module: torch.nn.Module) -> list[tuple[dict[str, Any], str, torch.Tensor]]:
    return [
        (owner, name, tensor)
        for child in module.modules()
        for owner in (child._parameters, child._buffers)
        for name, tensor in owner.items()
        if tensor is not None
    ]
