"""Runs a cluster in its engine and in PyTorch, and compares the two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..capture.untouched import untouched_modes
from ..errors import EngineError
from ..numerics.agreement import agreement, loss
from ..numerics.random_rounding import RandomRounding
from ..numerics.tolerance import tolerances
from .engine_module import EngineModule

__all__ = ["LARGE_LOSS", "LARGE_LOSS_OF_INT8", "EngineCheck", "check_engine"]

LARGE_LOSS = 1e-2
"""A difference from the model's own precision that is worth a warning, and a second look."""
LARGE_LOSS_OF_INT8 = 1e-1
"""The same for a warning about int8, where a rounding error in float16 can be a step of int8."""


@dataclass(frozen=True, slots=True)
class EngineCheck:
    """The result of comparing an engine with PyTorch.

    values:    "example" where the inputs came from the example, or else "made-up".
    elements:  the number of elements of all outputs.
    compared:  those of them in which an error of 1 % of their magnitude, or of their tolerance if
               that is more, would have been found.
    largest:   the largest difference of floats, as a share of the magnitude there.
    loss:      the difference from the model's own precision (root mean square, as a share of the
               magnitude); None where the engine computes in that.
    unchecked: why nothing was compared, or "".
    """

    values: str = "example"
    elements: int = 0
    compared: int = 0
    largest: float = 0.0
    loss: float | None = None
    unchecked: str = ""

    def __str__(self) -> str:
        if self.unchecked:
            return f"not checked: {self.unchecked}"
        lost = "" if self.loss is None else f", {self.loss:.1e} from the model's own precision"
        return (
            f"{self.compared} of {self.elements} elements compared on {self.values} values, "
            f"largest difference {self.largest:.1e}{lost}"
        )


def check_engine(
    module: EngineModule, inputs: Sequence[Any], cast: GraphModule, precision: str, values: str
) -> tuple[EngineCheck, str]:
    """Compare an engine with PyTorch; return what was found, and what is wrong with it, or "".

    No memory is held afterwards: the engine runs in a context of its own.

    Args:
        inputs: those of the cluster.
        cast: the cluster with the casts of the engine's precision, in which PyTorch computes what
            the engine should give. The cluster itself tells what that precision costs.
        precision: `Settings.precision` of the cluster.
        values: where the inputs are from, as in `EngineCheck`.
    """
    tensors = module.taken(inputs)
    if reason := module.unfit(tensors):
        return EngineCheck(values, unchecked=reason), ""
    assert module.engine is not None
    with torch.no_grad(), untouched_modes(), _full_precision():
        try:
            own = module.fallback(*inputs)
        except Exception as error:
            if values == "example":
                raise
            # Numbers that mean nothing to the model may be out of its range.
            return EngineCheck(values, unchecked=f"PyTorch refuses these values: {error}"), ""
        try:
            actual = module.engine.run(tensors)
        except EngineError as error:
            if isinstance(error.__cause__, torch.OutOfMemoryError):
                raise error.__cause__ from error
            return EngineCheck(values), f"the engine fails on its inputs: {error}"
        expected = own if cast is module.fallback else _in_precision(cast, inputs, own)
        limits = tolerances(cast.graph, precision)

        def noisy(seed: int) -> Sequence[torch.Tensor]:
            results: Sequence[torch.Tensor] = RandomRounding(cast, precision, seed).run(*inputs)
            return results

        found = agreement(actual, expected, own, limits, noisy)
        narrow = cast is not module.fallback or precision == "tf32"
        lost = loss(actual, own) if narrow and found.wrong is None else None
        problem = "" if found.wrong is None else str(found.wrong)
        if lost is not None and lost > LARGE_LOSS and cast is not module.fallback:
            problem = _overflow(module.fallback, cast, inputs)
    return EngineCheck(values, found.elements, found.compared, found.largest, lost), problem


def _overflow(own: GraphModule, cast: GraphModule, inputs: Sequence[Any]) -> str:
    """Return which node has numbers in the model's own precision only, or "".

    What reads them may hide them: a sigmoid of infinity is 1.
    """
    before, now = _Finite(own), _Finite(cast)
    before.run(*inputs)
    now.run(*inputs)
    for name, finite in now.finite.items():
        if not finite and before.finite.get(name, False):
            return f"{name} overflows in the precision of the engine, and its readers hide it"
    return ""


class _Finite(Interpreter):
    """Notes of each call whether all floats of its result are numbers."""

    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm)
        self.finite: dict[str, bool] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        floats = [v for v in pytree.tree_leaves(value) if isinstance(v, torch.Tensor)]
        self.finite[n.name] = all(bool(v.isfinite().all()) for v in floats)
        return value


def _in_precision(
    cast: GraphModule, inputs: Sequence[Any], own: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """Run the cluster with its casts, or take its own outputs where PyTorch has no such kernel."""
    try:
        results: Sequence[torch.Tensor] = cast(*inputs)
    except (NotImplementedError, RuntimeError) as error:
        if "not implemented for" not in str(error):
            raise
        return own
    return results


@contextmanager
def _full_precision() -> Iterator[None]:
    """Let PyTorch's products of float32 on a GPU be as exact as the engine's."""
    flags = _precision_flags()
    before = [getattr(owner, name) for owner, name, _ in flags]
    try:
        for owner, name, exact in flags:
            setattr(owner, name, exact)
        yield
    finally:
        for (owner, name, _), value in zip(flags, before, strict=True):
            setattr(owner, name, value)


def _precision_flags() -> list[tuple[Any, str, Any]]:
    """Return torch's flags for TF32, each with the value that turns it off."""
    products: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if hasattr(products, "fp32_precision"):
        # The older flags must not be read where the newer ones were set.
        return [(products, "fp32_precision", "ieee"), (cudnn.conv, "fp32_precision", "ieee")]
    return [(products, "allow_tf32", False), (cudnn, "allow_tf32", False)]
