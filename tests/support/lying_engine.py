"""Engines with plans whose kernels are a little wrong, or right and round differently."""

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

__all__ = ["LyingPlanner", "OtherKernels", "rounded_once", "slightly_wrong"]


def slightly_wrong(value: torch.Tensor) -> torch.Tensor:
    """One element of a thousand is 1 % off; of integers it is one more, of bools the opposite.

    The elements are the largest ones, so that no ReLU or maximum after them drops all of them.
    """
    flat = value.clone().flatten()
    if not flat.numel():
        return value
    count = -(-flat.numel() // 1000)
    size = flat.float().nan_to_num(0.0, 0.0, 0.0)
    places = size.topk(count).indices
    if value.dtype == torch.bool:
        flat[places] = ~flat[places]
    elif value.is_floating_point():
        least = float(size.abs().mean())
        flat[places] += 0.01 * size[places].abs().clamp(min=least).to(value.dtype)
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


def rounded_once(step: Step) -> Step:
    """The layer computed in float64, as a kernel that adds up in another order might be."""
    if step.kind in ("CAST", "CONSTANT", "NMS"):
        return step

    def compute(*operands: Any) -> Any:
        wide = [
            t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t
            for t in operands
        ]
        try:
            results = step.compute(*wide)
        except RuntimeError:  # PyTorch has no such kernel for float64
            return step.compute(*operands)
        several = results if isinstance(results, tuple) else (results,)
        back = [
            value.to(result.dtype) if value.dtype == torch.float64 else value
            for value, result in zip(several, step.results, strict=True)
        ]
        return tuple(back) if isinstance(results, tuple) else back[0]

    return replace(step, compute=compute)


class OtherKernels(LyingPlanner):
    """The reference engine with plans, whose layers are right, but round differently."""

    def __init__(self) -> None:
        super().__init__(lambda layer, kind: False)

    def _planted(self, step: Step) -> Step:
        return rounded_once(step)
