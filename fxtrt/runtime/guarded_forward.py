"""A compiled call that stands in for a module's `forward` wherever it is sure to give the same."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..errors import FxtrtError
from ..graph.provenance import as_graph
from ..graph.size_relations import SizeRelations
from ..graph.sizes import is_static, size_range
from ..graph.specs import Call, TensorSpec
from ..graph.weight_states import Snapshot, live_weights
from .fallbacks import Fallbacks
from .write_conflicts import Writes

__all__ = ["GuardedForward"]

_TRAINING = operator.itemgetter("training")


class GuardedForward:
    """Replaces `module.forward`: runs the compiled graph for inputs like the example's.

    Anything else runs the original `forward`: training mode, also of one submodule; other shapes
    than the graph was captured for; other constants; weights that were changed since. `fallbacks`
    counts and logs them, and counts the calls that run as compiled. A module may have several, one
    for each structure of arguments: what does not fit the last goes to the one before it, and they
    count together.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        graph: GraphModule,
        specs: Sequence[TensorSpec],
        example: Call,
        run: Callable[..., Any],
        arguments: Callable[..., tuple[Any, ...]] | None = None,
        check_weights: str = "versions",
    ) -> None:
        """Guard `graph`, which was captured from `module` with `example`.

        Args:
            specs: of the tensors among the flattened example, in order.
            run: calls the graph.
            arguments: makes the graph's positional arguments of the call's, as in
                `Recipe`; None takes them as they are.
            check_weights: as in `Settings`.
        """
        self.graph = graph
        self.run = as_graph(run)
        self._arguments = arguments
        self._original: Callable[..., Any] = module.forward
        before = self._original
        self.fallbacks: Fallbacks = (
            before.fallbacks
            if isinstance(before, GuardedForward)
            else Fallbacks(f"{type(module).__name__} runs in PyTorch")
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
        self.live = live_weights(graph, self._tensors)
        self._frozen = [i for i, t in enumerate(self._tensors) if id(t) not in self.live]
        self._live_at = [
            (i, t.data_ptr()) for i, t in enumerate(self._tensors) if id(t) in self.live
        ]
        self._snapshot = Snapshot([self._tensors[i] for i in self._frozen], check_weights)
        self._modules = tuple(child.__dict__ for child in module.modules())
        self._relations = SizeRelations.of(graph)
        self._writes = Writes.of(graph, self._tensors)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given: tuple[Any, ...] = args
        reason = None
        if self._arguments is not None:
            try:
                given = self._arguments(*args)
            except Exception as error:  # A plan's function meets whatever the caller passed.
                reason = (
                    f"the arguments are of another form than the example's: {type(error).__name__}"
                )
        reason = reason or self._unfit(given, kwargs)
        if reason is None:
            self.fallbacks.count_compiled()
            return self.run(*given, **kwargs)
        if not isinstance(self._original, GuardedForward):
            self.fallbacks.record(reason)
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
                    return f"an int argument is not from {low} to {high}, as the graph was captured"
                sized.append(leaf)
            elif (type(leaf), leaf) != constant:
                return _difference(leaf, constant[0])
        if self._relations is not None and not self._relations.hold(sized):
            return "the graph was captured for other relations between the inputs' sizes"
        if self._writes is not None and (reason := self._writes.conflict(leaves)):
            return reason
        current = [owner[name] for owner, name, _ in self._weights]
        if not all(map(operator.is_, current, self._tensors)):
            return f"the weight {self._replaced()!r} was replaced after compiling: compile again"
        if any(current[i].data_ptr() != at for i, at in self._live_at):
            return "a weight that the model writes to was replaced after compiling: compile again"
        if not self._snapshot.holds([current[i] for i in self._frozen]):
            return (
                f"the weight {self._changed(current)!r} was changed after compiling: compile again"
            )
        return None

    def _replaced(self) -> str:
        pairs = ((name, owner[name] is tensor) for owner, name, tensor in self._weights)
        return next((name for name, is_same in pairs if not is_same), "")

    def _changed(self, current: Sequence[torch.Tensor]) -> str:
        position = self._snapshot.changed([current[i] for i in self._frozen])
        return "" if position is None else self._weights[self._frozen[position]][1]

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise FxtrtError(
            "a compiled model cannot be copied, pickled or compiled again: do that with the model "
            "that it was compiled from"
        )


def _difference(leaf: Any, kind: type) -> str:
    """How an argument differs from the example's, without the values."""
    if type(leaf) is kind:
        return f"an argument of type {kind.__name__} has another value than in the example"
    return f"an argument is {type(leaf).__name__}, in the example it was {kind.__name__}"


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
