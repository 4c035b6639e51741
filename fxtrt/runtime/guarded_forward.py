"""Replaces a module's `forward`, and runs the compiled graph if that gives the same numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import CodeType
from typing import Any, NoReturn

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..capture.arguments import (
    CallForm,
    is_same,
    positional,
    signature_of,
)
from ..capture.write_conflicts import Writes
from ..errors import FxtrtError
from ..graph.ambient import Ambient, explicitly
from ..graph.layouts import Layouts
from ..graph.plain import as_plain, behaves_plainly
from ..graph.provenance import as_graph
from ..graph.size_relations import SizeRelations
from ..graph.sizes import is_static, size_range
from ..graph.specs import Call, TensorSpec
from ..graph.weight_states import Snapshot, live_weights
from .fallbacks import Fallbacks
from .loaded_model import LoadedModel
from .nesting import Nesting

__all__ = ["GuardedForward"]

_TRAINING = operator.itemgetter("training")


class GuardedForward:
    """Replaces `module.forward`: runs the compiled graph for inputs like the example's.

    Other calls run the original `forward`: in training mode, even of one submodule; with other
    shapes than the graph was captured for; with other constants; after a weight was changed; in
    other modes of torch, such as autocast; with tensors that engines cannot read. `fallbacks`
    counts and logs them, and counts the calls that run as compiled. An argument may be given by
    position or by keyword, and a default may be given or left out. A module may have several
    guarded forwards, one for each structure of arguments: a call that does not fit the last goes to
    the one before it, and they count together. A `LoadedModel` has no `forward` of its own: other
    calls are refused.
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
            specs: the specs of the tensors in the flattened example, in order.
            run: calls the graph.
            arguments: turns the positional arguments of a call into those of the graph, as in
                `Recipe`; None takes them as they are.
            check_weights: the setting of that name.
        """
        self.graph = graph
        self.run = as_graph(explicitly(run))
        self._arguments = arguments
        self._original: Callable[..., Any] = module.forward
        self.__signature__ = signature_of(self._original)
        before = self._original
        self.fallbacks: Fallbacks = (
            before.fallbacks
            if isinstance(before, GuardedForward)
            else Fallbacks(f"{type(module).__name__} {_what_else(module)}")
        )
        self._module = module
        self._form = CallForm(self._original, example)
        self._ambient = Ambient()
        nested = (tuple(example.args), dict(example.kwargs))
        self._nesting = Nesting(nested)
        self._expected = tuple(_expected(pytree.tree_leaves(nested), specs))
        self._varying = _varying_integers(graph)
        self._members = _Members(module)
        weights = self._members.weights
        self.live = live_weights(graph, list(weights.values()))
        frozen = {name: t for name, t in weights.items() if id(t) not in self.live}
        self._frozen_names, self._frozen = list(frozen), list(frozen.values())
        self._live_at = [(tensor, tensor.data_ptr()) for tensor in self.live.values()]
        self._snapshot = Snapshot(self._frozen, check_weights)
        self._modules = tuple(child.__dict__ for child in module.modules())
        self._relations = SizeRelations.of(graph)
        self._layouts = Layouts.of(graph)
        self._writes = Writes.of(graph, weights.values())

    @property
    def __code__(self) -> CodeType:
        """Return the code of the original, because torch.export asks for its source file."""
        code: CodeType = self._original.__code__
        return code

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_exporting():
            return self._original(*args, **kwargs)
        taken = self._taken(args, kwargs)
        if isinstance(taken, str):
            return self._fall_back(taken, args, kwargs)
        self.fallbacks.count_compiled()
        return self.run(*taken.args, **taken.kwargs)

    def _fall_back(self, reason: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the original `forward`, and count why.

        Raises:
            CallError: the model was loaded without its code.
        """
        if not isinstance(self._original, GuardedForward):
            self.fallbacks.record(reason)
            if isinstance(self._module, LoadedModel):
                self._module.refuse(reason)
        return self._original(*args, **kwargs)

    def _taken(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | str:
        """Return the call as the graph takes it, or why the graph cannot run it."""
        if reason := self._blocked():
            return reason
        given: Call | str
        if self._arguments is not None:
            given = self._read_arguments(self._arguments, Call(args, kwargs))
        elif self._form.has(args, kwargs):
            given = Call(args, kwargs)
        else:
            given = self._form.arrange(args, kwargs)
        fitting = given if isinstance(given, str) else self._fitting(given)
        return fitting if isinstance(fitting, str) else self._changed_weights() or fitting

    def _blocked(self) -> str | None:
        """Return why no call can run as compiled now, or None."""
        if reason := self._ambient.mismatch():
            return reason
        return "the module is in training mode" if any(map(_TRAINING, self._modules)) else None

    def _fitting(self, given: Call) -> Call | str:
        """Return the call with plain tensors, or why it does not fit the graph."""
        leaves = self._nesting.flatten((given.args, given.kwargs))
        if leaves is None:
            return "the arguments have another structure than the example's"
        if reason := self._unfit(leaves):
            return reason
        if any(
            type(leaf) is not torch.Tensor and isinstance(leaf, torch.Tensor) for leaf in leaves
        ):
            return Call(*as_plain((tuple(given.args), dict(given.kwargs))))
        return given

    def _read_arguments(self, read: Callable[..., tuple[Any, ...]], call: Call) -> Call | str:
        try:
            call = positional(self.__signature__, call) if call.kwargs else call
            return Call(read(*call.args), call.kwargs)
        except Exception as error:  # A recipe's function meets whatever the caller passed.
            return f"the arguments are of another form than the example's: {type(error).__name__}"

    def _unfit(self, leaves: Sequence[Any]) -> str | None:
        sized: list[torch.Tensor | int] = []
        wants_gradients = torch.is_grad_enabled()
        for i, (leaf, expected) in enumerate(zip(leaves, self._expected, strict=True)):
            if isinstance(expected, _Tensor):
                if not isinstance(leaf, torch.Tensor):
                    return f"an argument is {type(leaf).__name__}, in the example it was a tensor"
                if reason := expected.mismatch(leaf):
                    return reason
                sized.append(leaf)
                if wants_gradients and leaf.requires_grad:
                    return "an input requires grad"
            elif i in self._varying and type(leaf) is int:
                low, high = self._varying[i]
                if leaf < low or (high is not None and leaf > high):
                    return f"an int argument is not from {low} to {high}, as the graph was captured"
                sized.append(leaf)
            elif not is_same(leaf, expected):
                return _difference(leaf, type(expected))
        if self._relations is not None and not self._relations.hold(sized):
            return "the graph was captured for other relations between the inputs' sizes"
        if self._layouts is not None and (reason := self._layouts.mismatch(leaves)):
            return reason
        if self._writes is not None and (reason := self._writes.conflict(leaves)):
            return reason
        return None

    def _changed_weights(self) -> str | None:
        if not self._members.hold():
            return f"{self._members.replaced()} was replaced after compiling: compile again"
        if any(tensor.data_ptr() != at for tensor, at in self._live_at):
            return "a weight that the model writes to was replaced after compiling: compile again"
        if not self._snapshot.holds(self._frozen):
            position = self._snapshot.changed(self._frozen)
            name = "" if position is None else self._frozen_names[position]
            return f"the weight {name!r} was changed after compiling: compile again"
        return None

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise FxtrtError(
            "a compiled model cannot be copied, pickled or compiled again: do that with the model "
            "that it was compiled from"
        )


def _what_else(module: torch.nn.Module) -> str:
    return "refuses a call" if isinstance(module, LoadedModel) else "runs in PyTorch"


def _difference(leaf: Any, kind: type) -> str:
    """Say how an argument differs from the example's, without naming the values."""
    if type(leaf) is kind:
        return f"an argument of type {kind.__name__} has another value than in the example"
    return f"an argument is {type(leaf).__name__}, in the example it was {kind.__name__}"


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor that is expected among the arguments."""

    spec: TensorSpec
    layout: torch.layout

    def mismatch(self, tensor: torch.Tensor) -> str | None:
        kind = type(tensor)
        if kind is not torch.Tensor and not behaves_plainly(kind):
            return f"{self.spec.name} is a {kind.__name__}, a class with operators of its own"
        if tensor.is_nested or tensor.layout is not self.layout:
            layout = "nested" if tensor.is_nested else tensor.layout
            return f"{self.spec.name} is {layout}, expected {self.layout}"
        return self.spec.mismatch(tensor)


def _expected(leaves: Sequence[Any], specs: Sequence[TensorSpec]) -> Iterator[Any]:
    """Yield for each leaf of an example the tensor that is expected, or the leaf as a constant."""
    remaining = iter(specs)
    for leaf in leaves:
        is_tensor = isinstance(leaf, torch.Tensor)
        yield _Tensor(next(remaining), leaf.layout) if is_tensor else leaf


def _varying_integers(graph: GraphModule) -> dict[int, tuple[int, int | None]]:
    """Return the ranges of the integers that may vary, by their positions among the inputs."""
    values = (node.meta["val"] for node in graph.graph.find_nodes(op="placeholder"))
    return {
        i: size_range(value)
        for i, value in enumerate(values)
        if isinstance(value, torch.SymInt) and not is_static(value)
    }


class _Members:
    """Which parameters, buffers and submodules a module had when this was made.

    weights: the weights by their paths. A tensor that has several paths is under the first.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        modules = dict(module.named_modules())
        self._paths = [path for path in modules for _ in range(3)]
        self._tables: list[dict[str, Any]] = [
            table for m in modules.values() for table in (m._parameters, m._buffers, m._modules)
        ]
        self._before = [dict(table) for table in self._tables]
        self._values = list(chain.from_iterable(map(dict.values, self._before)))
        self.weights: dict[str, torch.Tensor] = {
            **dict(module.named_parameters()),
            **dict(module.named_buffers()),
        }

    def hold(self) -> bool:
        """Return whether the module still has the same members."""
        # This runs at every call: `map` is several times as fast as a loop.
        values = list(chain.from_iterable(map(dict.values, self._tables)))
        return len(values) == len(self._values) and all(map(operator.is_, values, self._values))

    def replaced(self) -> str:
        """Name the first member that was replaced, added or removed."""
        for path, now, before in zip(self._paths, self._tables, self._before, strict=True):
            for name in {**before, **now}:
                value, old = now.get(name), before.get(name)
                if value is not old or (name in now) != (name in before):
                    is_module = isinstance(value if old is None else old, torch.nn.Module)
                    full = f"{path}.{name}" if path else name
                    return f"the {'submodule' if is_module else 'weight'} {full!r}"
        return "a weight"
