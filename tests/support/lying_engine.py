"""An engine with plans whose kernel for one type of layer is a little wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from failing_engine import FailingPlanner

from fxtrt.engines.interpreter.program import Step
from fxtrt.engines.network import Network
from fxtrt.engines.reference import ReferenceEngine
from fxtrt.graph.specs import TensorSpec

__all__ = ["LyingPlanner", "slightly_wrong"]


def slightly_wrong(value: torch.Tensor) -> torch.Tensor:
    """One element of a thousand is 1 % off; of integers it is one more, of bools the opposite.

    The elements are the largest ones, so that no later layer drops all of them.
    """
    flat = value.clone().flatten()
    if not flat.numel():
        return value
    count = -(-flat.numel() // 1000)
    size = flat.float().abs().nan_to_num(0.0, 0.0, 0.0)
    places = size.topk(count).indices
    if value.dtype == torch.bool:
        flat[places] = ~flat[places]
    elif value.is_floating_point():
        # The largest element would hide its own error if the smaller ones set the magnitude.
        flat[places] += 0.01 * size[places].clamp(min=float(size.mean())).to(value.dtype)
    else:
        flat[places] += 1
    return flat.reshape(value.shape)


class LyingPlanner(FailingPlanner):
    """The reference engine with plans, some of whose layers answer wrongly.

    Args:
        lies: takes a layer's name and type, and says whether its kernel is wrong.
        lie: takes a right result and returns the wrong one.
    """

    def __init__(
        self,
        lies: Callable[[str, str], bool],
        lie: Callable[[torch.Tensor], torch.Tensor] = slightly_wrong,
    ) -> None:
        super().__init__(lambda layers: "")
        self.lies, self.lie = lies, lie
        self.runs = 0
        """How many times engines ran."""

    def load(
        self, plan: bytes | Network, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> ReferenceEngine:
        engine = super().load(plan, inputs, outputs)
        engine._program.steps = [self._planted(step) for step in engine._program.steps]
        run = engine.run

        def counted(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            self.runs += 1
            return run(tensors)

        engine.run = counted  # type: ignore[method-assign]  # to count
        return engine

    def _planted(self, step: Step) -> Step:
        if not self.lies(step.layer, step.kind):
            return step

        def compute(*operands: Any) -> Any:
            results = step.compute(*operands)
            if isinstance(results, tuple):
                return tuple(map(self.lie, results))
            return self.lie(results)

        return replace(step, compute=compute)
