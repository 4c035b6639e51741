"""Execute a network as a list of PyTorch steps, and check every result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import EngineError
from .layers import Compute

__all__ = ["Program", "Result", "Step"]

_HALVES = (torch.float16, torch.bfloat16)
_PRODUCTS = {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"}
"""The layers that a CPU computes in float32, as kernels accumulate: in float16 it takes 100 times
as long."""


@dataclass(frozen=True)
class Result:
    """The shape and dtype that TensorRT infers for a tensor; -1 stands for any size.

    loose: whether the builder chooses the floating-point type (in weakly typed networks).
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    loose: bool = False

    def mismatch(self, value: torch.Tensor) -> str | None:
        """Return how `value` differs from the inferred shape and dtype, or None."""
        agrees = value.dim() == len(self.shape) and all(
            expected in (-1, size) for expected, size in zip(self.shape, value.shape, strict=True)
        )
        if not agrees:
            return f"has shape {tuple(value.shape)}, TensorRT infers {self.shape}"
        floating = value.is_floating_point() and self.dtype.is_floating_point
        if value.dtype != self.dtype and not (self.loose and floating):
            return f"is {value.dtype}, TensorRT infers {self.dtype}"
        return None


@dataclass(frozen=True)
class Step:
    """A layer as a function, with the names of its operands and results.

    dead: the values that no later step reads.
    """

    layer: str
    kind: str
    compute: Compute
    operands: tuple[str | None, ...]
    results: tuple[Result, ...]
    dead: tuple[str, ...] = ()

    def run(self, values: dict[str, torch.Tensor]) -> None:
        """Add the step's results to `values`.

        Raises:
            EngineError: the layer failed, or disagrees with what TensorRT infers.
        """
        operands = [None if name is None else values[name] for name in self.operands]
        try:
            results = self._compute(operands)
        except EngineError:
            raise
        except Exception as error:
            shapes = ", ".join(
                "-" if t is None else f"{tuple(t.shape)} {t.dtype}" for t in operands
            )
            raise EngineError(f"layer {self.layer!r} ({self.kind}) of {shapes}: {error}") from error
        for result, value in zip(self.results, results, strict=True):
            if reason := result.mismatch(value):
                raise EngineError(f"layer {self.layer!r} ({self.kind}): {result.name} {reason}")
            values[result.name] = value
        for name in self.dead:
            del values[name]

    def _compute(self, operands: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
        halves = [t for t in operands if t is not None and t.dtype in _HALVES]
        if not (halves and self.kind in _PRODUCTS and halves[0].device.type == "cpu"):
            try:
                return _as_tuple(self.compute(*operands))
            except RuntimeError as error:
                if not halves or "not implemented for" not in str(error):
                    raise
        wide = [t.float() if t is not None and t.dtype in _HALVES else t for t in operands]
        results = _as_tuple(self.compute(*wide))
        return tuple(
            value.to(result.dtype) if value.dtype == torch.float32 else value
            for result, value in zip(self.results, results, strict=True)
        )


@dataclass
class Program:
    """The steps of a network in an order in which they can run, and its weights."""

    steps: Sequence[Step]
    weights: Mapping[str, torch.Tensor]
    _placed: dict[torch.device, Mapping[str, torch.Tensor]] = field(default_factory=dict)

    @torch.no_grad()
    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.memory_format],
        device: torch.device,
    ) -> tuple[torch.Tensor, ...]:
        """Return the values named in `outputs`, each in memory of its own and in its format."""
        values = {**self._weights_on(device), **inputs}
        for step in self.steps:
            step.run(values)
        return tuple(values[name].clone(memory_format=form) for name, form in outputs.items())

    def _weights_on(self, device: torch.device) -> Mapping[str, torch.Tensor]:
        placed = self._placed.get(device)
        if placed is None:
            # Two threads may both copy, and one copy stays. A lock would be worse: a child that is
            # forked while another thread holds it could never take it.
            copies = {name: weight.to(device) for name, weight in self.weights.items()}
            placed = self._placed.setdefault(device, copies)
        return placed


def _as_tuple(results: Any) -> tuple[torch.Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)
