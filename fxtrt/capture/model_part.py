"""Captures one module whole, as a graph with an example call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..detection import Recipe
from ..detection.host_steps import CallSteps
from ..detection.substitution import substituted
from ..errors import ArtifactError
from ..graph.specs import Call, TensorSpec, tensor_specs
from ..serialization.graph_data import StoredGraph, store
from .attributes import attributes_kept
from .copies import distinct
from .export import capture_module
from .repeatable import repeatable

__all__ = ["ModelPart", "part_of"]


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A module that was captured whole, ready to be lowered.

    recipe: of the module's class, if there is one.
    stored: the graph before the passes as data to save, or why it cannot be saved.
    steps:  the host steps around the graph, if it is the core of a detector.
    """

    path: str
    module: torch.nn.Module
    graph: GraphModule
    call: Call
    specs: Sequence[TensorSpec]
    recipe: Recipe | None
    stored: StoredGraph | ArtifactError
    steps: CallSteps | None = None

    def values(self) -> list[Any]:
        """Return the values of the example call, one for each placeholder of the graph."""
        return pytree.tree_leaves((self.call.args, self.call.kwargs))

    @property
    def has_values(self) -> bool:
        """Whether the tensors of the call have values; those of a restored graph have not."""
        return not any(isinstance(v, torch.Tensor) and v.is_meta for v in self.values())

    @property
    def sizes(self) -> str:
        """Describe the sizes of the first input, as "1x3x(96..1344)x(96..1344)"."""
        return self.specs[0].describe()

    def without_values(self) -> ModelPart:
        """Return the same part with a call whose tensors take no memory."""

        def blank(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty_like(tensor, device="meta")

        args, kwargs = pytree.tree_map_only(
            torch.Tensor, blank, (tuple(self.call.args), dict(self.call.kwargs))
        )
        return replace(self, call=Call(args, kwargs))


def part_of(
    module: torch.nn.Module, recipe: Recipe | None, call: Call, dynamic_shapes: Any, path: str
) -> ModelPart:
    """Capture `module`, which is called like `call`.

    Args:
        path: where the module is in its model.

    Raises:
        CaptureError: the module cannot be captured.
    """
    weights = [*module.parameters(), *module.buffers()]
    args, kwargs = distinct((call.args, call.kwargs), weights)
    # Attributes are restored here; tracing writes to no values.
    with (
        _without_hooks(module),
        attributes_kept(module),
        repeatable(module, call),
        substituted({} if recipe is None else recipe.equivalents),
    ):
        graph = capture_module(module, args, kwargs, dynamic_shapes, path)
    # GuardedForward checks the inputs instead: calls that do not fit run in PyTorch.
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    stored = _stored(graph, module, call)
    return ModelPart(path, module, graph, call, tensor_specs(graph), recipe, stored)


def _stored(graph: GraphModule, module: torch.nn.Module, call: Call) -> StoredGraph | ArtifactError:
    # The graph is stored now, because passes and lowering change it. This takes some 0.1 s.
    try:
        return store(graph, module, call)
    except ArtifactError as error:
        return error


@contextmanager
def _without_hooks(module: torch.nn.Module) -> Iterator[None]:
    """Leave a module's hooks out of its graph: only `forward` is replaced, so they still run."""
    names = ("_forward_hooks", "_forward_pre_hooks")
    hooks = {name: module.__dict__[name] for name in names}
    module.__dict__.update({name: OrderedDict() for name in names})
    try:
        yield
    finally:
        module.__dict__.update(hooks)
