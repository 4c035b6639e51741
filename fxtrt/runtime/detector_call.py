"""Replaces the `forward` of a captured module; a detector's by its core between two host steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..capture.arguments import positional
from ..capture.model_part import ModelPart
from ..detection.host_steps import CallSteps, Prepared, TooManyCandidates
from ..graph.ambient import explicitly
from ..graph.provenance import as_graph
from ..graph.specs import Call
from ..settings import Settings
from .all_candidates import with_all_candidates
from .guarded_forward import GuardedForward
from .loaded_model import LoadedModel

__all__ = ["DetectorCall", "guarded"]

_TOO_MANY = "more candidates than the core looks at"


class DetectorCall(GuardedForward):
    """Replaces a detector's `forward`: prepares the images, runs the core, and cuts its results.

    A call with more images than the core takes is cut into chunks, and the core runs for each. A
    call that does not fit the core runs the original `forward`, as in `GuardedForward`. So does a
    call with more candidates than the core looks at, because the result may then differ. A
    `LoadedModel` answers such a call with the core again, whose selections then look at all
    candidates.
    """

    def __init__(
        self,
        part: ModelPart,
        graph: GraphModule,
        run: Callable[..., Any],
        check_weights: str = "versions",
    ) -> None:
        """Guard `graph`, the compiled core of `part`, which `run` calls."""
        assert part.steps is not None
        self._whole: Callable[..., Any] | None = None
        super().__init__(
            part.module, graph, part.specs, part.call, run, check_weights=check_weights
        )
        self._steps: CallSteps = part.steps
        self._most = part.specs[0].high[0] or sys.maxsize

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_exporting():
            return self._original(*args, **kwargs)
        prepared = self._blocked() or self._prepared(args, kwargs)
        if isinstance(prepared, str):
            return self._fall_back(prepared, args, kwargs)
        fitting = self._chunks(prepared.inputs)
        if isinstance(fitting, str):
            return self._fall_back(fitting, args, kwargs)
        outputs = _joined([self.run(*call.args) for call in fitting])
        # To ask hundreds of weights takes a while, and the GPU works meanwhile.
        if reason := self._changed_weights():
            return self._fall_back(reason, args, kwargs)
        try:
            result = self._steps.after(outputs, prepared.context)
        except TooManyCandidates:
            if not isinstance(self._module, LoadedModel):
                return self._fall_back(_TOO_MANY, args, kwargs)
            self.fallbacks.record(_TOO_MANY)
            return self._with_all_candidates(fitting, prepared.context)
        self.fallbacks.count_compiled()
        return result

    def _with_all_candidates(self, fitting: Sequence[Call], context: Any) -> Any:
        """Run the core again, with as many candidates as there are."""
        if self._whole is None:
            self._whole = as_graph(explicitly(with_all_candidates(self.graph)))
        whole = self._whole
        return self._steps.after(_joined([whole(*call.args) for call in fitting]), context)

    def _chunks(self, inputs: tuple[Tensor, ...]) -> list[Call] | str:
        """Return calls of the core that together take all images, or why the core cannot."""
        fitting: list[Call] = []
        for start in range(0, len(inputs[0]), self._most):
            chunk = inputs
            if len(inputs[0]) > self._most:
                chunk = tuple(tensor[start : start + self._most] for tensor in inputs)
            call = self._fitting(Call(chunk, {}))
            if isinstance(call, str):
                return call
            fitting.append(call)
        return fitting or "there are no images"

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Prepared | str:
        # The batch never requires grad, so only the caller's own tensors tell.
        if torch.is_grad_enabled() and any(map(_requires_grad, pytree.tree_leaves((args, kwargs)))):
            return "an input requires grad"
        try:
            call = Call(args, kwargs)
            if kwargs:
                call = positional(self.__signature__, call)
            with torch.no_grad():
                return self._steps.before(*call.args, **call.kwargs)
        except Exception as error:  # The caller may have passed anything.
            reason = "the arguments are of another form than the example's"
            if isinstance(self._module, LoadedModel):
                self.fallbacks.record(f"{reason}: {type(error).__name__}")
                self._module.refuse(f"{reason}: {error}", error)
            return f"{reason}: {type(error).__name__}"


def guarded(
    part: ModelPart, graph: GraphModule, run: Callable[..., Any], settings: Settings
) -> GuardedForward:
    """Return the `forward` that runs `graph`, made from the graph of `part`, where a call fits."""
    if part.steps is not None:
        return DetectorCall(part, graph, run, settings.check_weights)
    arguments = None if part.recipe is None else part.recipe.arguments
    return GuardedForward(
        part.module, graph, part.specs, part.call, run, arguments, settings.check_weights
    )


def _requires_grad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _joined(outputs: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    """Return the outputs for all images, from those of each chunk."""
    if len(outputs) == 1:
        return outputs[0]
    return [torch.cat(of_chunks) for of_chunks in zip(*outputs, strict=True)]
