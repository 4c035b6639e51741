"""Samples of PyTorch's operator database: each becomes a network, or is refused with a reason."""

from __future__ import annotations

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from oprow import TracedRow, rejection_of
from torch._ops import OpOverload
from torch.fx import GraphModule

from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.errors import ConversionError, EngineError
from fxtrt.registry import registered

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.int64,
    torch.bool,
)
TOLERANCES = {
    torch.float32: (1e-4, 1e-5),
    torch.float16: (1e-2, 2e-3),
    torch.bfloat16: (2e-2, 1.6e-2),
}
"""rtol and atol by the dtype of the result; others are exact."""

_ATTENTION = (
    "nn.functional.multi_head_attention_forward",
    "nn.functional.scaled_dot_product_attention",
)
"""More tolerance: a softmax of large scores widens what rounding them leaves.

In bfloat16 eager itself is up to 0.11 from float64 in results of up to 0.56.
"""
_BY_TOPK = ("argsort", "masked.argmin", "sort", "topk")
"""TOPK promises no order among equal elements and has no place for NaN: no samples with those."""

EQUAL, REFUSED, FAILED, SKIPPED = "equal", "refused", "failed", "skipped"


@dataclass(frozen=True)
class Outcome:
    """What became of one sample.

    verdict: equal to eager; refused by a check; failed; skipped, because its trace holds a target
             without a converter or because there is no trace.
    detail:  the reason, which for a failure tells the sample too.
    """

    op: str
    dtype: torch.dtype
    verdict: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """The detail with its numbers left out, to count by."""
        return re.sub(r"-?(\d+(\.\d*)?(e[-+]?\d+)?|\binf\b|\bnan\b)", "#", self.detail)


@dataclass(frozen=True)
class Sample:
    """A call of an operator: `function(*tensors)` gives a flat tuple of tensors."""

    op: str
    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]
    text: str


def run_op(
    op: Any, backend: EngineBackend, *, limit: int | None, dtypes: Iterable[torch.dtype] = DTYPES
) -> Iterator[Outcome]:
    """The outcome of each of the operator's samples.

    Args:
        limit: take only this many of each dtype, and no other dtype where all of one were skipped.
    """
    for dtype in dtypes:
        if not op.supports_dtype(dtype, "cpu"):
            continue
        torch.manual_seed(0)
        skipped = True
        with warnings.catch_warnings():
            # The samples are torch's: so is what they warn of.
            warnings.simplefilter("ignore")
            made = op.sample_inputs("cpu", dtype, requires_grad=False)
            for value in itertools.islice(made, limit):
                for sample in _samples(op, value):
                    verdict, detail = _run_sample(sample, backend)
                    skipped &= verdict == SKIPPED
                    yield Outcome(op.full_name, dtype, verdict, detail)
        if skipped and limit is not None:
            return


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts for people and for machines."""
    converted = {o.op for o in outcomes if o.verdict in (EQUAL, REFUSED)}
    return {
        "ops": len(converted),
        "ops equal": len({o.op for o in outcomes if o.verdict == EQUAL}),
        "samples": sum(o.verdict != SKIPPED for o in outcomes),
        **{verdict: dict(_by_reason(outcomes, verdict)) for verdict in (REFUSED, FAILED, SKIPPED)},
        EQUAL: sum(o.verdict == EQUAL for o in outcomes),
    }


def _by_reason(outcomes: Sequence[Outcome], verdict: str) -> list[tuple[str, int]]:
    return Counter(o.reason for o in outcomes if o.verdict == verdict).most_common()


def _samples(op: Any, value: Any) -> Iterator[Sample]:
    """The call with every tensor an input, and with every tensor but the first a weight."""
    leaves, spec = torch.utils._pytree.tree_flatten((value.input, value.args, value.kwargs))
    slots = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    if op.name in _BY_TOPK and value.input.dtype != torch.bool:
        leaves[0] = torch.randperm(value.input.numel()).to(value.input).reshape(value.input.shape)
    yield _sample(op, leaves, spec, slots)
    if len(slots) > 1:
        yield _sample(op, leaves, spec, slots[:1])


def _sample(op: Any, leaves: list[Any], spec: Any, slots: list[int]) -> Sample:
    def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = list(leaves)
        for slot, tensor in zip(slots, tensors, strict=True):
            values[slot] = tensor
        first, args, kwargs = torch.utils._pytree.tree_unflatten(values, spec)
        results = torch.utils._pytree.tree_leaves(op.op(first, *args, **kwargs))
        return tuple(result for result in results if isinstance(result, torch.Tensor))

    inputs = tuple(leaves[slot] for slot in slots)
    return Sample(op.name, function, inputs, f"{_text(leaves)}, inputs {slots}")


def _run_sample(sample: Sample, backend: EngineBackend) -> tuple[str, str]:
    try:
        gm = trace(sample.function, sample.tensors)
    except Exception as error:
        # Data-dependent sizes, samples that are meant to fail, layouts without FakeTensors.
        return SKIPPED, f"no trace: {type(error).__name__}"
    if missing := _unregistered(gm):
        return SKIPPED, f"no converter: {missing}"
    if not gm.graph.find_nodes(op="output")[0].args[0] or not _calls(gm):
        return SKIPPED, "nothing to convert"
    traced = TracedRow(gm, sample.tensors)
    if rejection := rejection_of(traced, backend):
        return REFUSED, f"{rejection.code}: {rejection.detail}"
    try:
        expected = sample.function(*(tensor.clone() for tensor in sample.tensors))
    except (NotImplementedError, RuntimeError) as error:
        return SKIPPED, f"eager raises {type(error).__name__}"
    difference = _difference(sample, traced, expected, backend)
    return (FAILED, f"{difference}; {sample.text}") if difference else (EQUAL, "")


def _difference(
    sample: Sample, traced: TracedRow, expected: Sequence[torch.Tensor], backend: EngineBackend
) -> str | None:
    """How the network's results differ from eager's, or why there are none."""
    try:
        network = convert(traced.gm, backend.features)
        engine = backend.load(network, network.inputs, network.outputs)
        actual = engine.run(sample.tensors)
    except (ConversionError, EngineError) as error:
        return f"{type(error).__name__}: {error}"
    for a, e in zip(actual, expected, strict=True):
        rtol, atol = _tolerance(sample.op, e)
        try:
            torch.testing.assert_close(a, e, rtol=rtol, atol=atol, equal_nan=True)
        except AssertionError as error:
            return str(error)
    return None


def _tolerance(op: str, expected: torch.Tensor) -> tuple[float, float]:
    """rtol and atol. Halves are measured against the largest of them, which sums cancel from."""
    factor = 1
    if op in _ATTENTION:
        factor = 20 if expected.dtype == torch.bfloat16 else 10
    rtol, atol = (factor * value for value in TOLERANCES.get(expected.dtype, (0.0, 0.0)))
    if expected.dtype not in (torch.float16, torch.bfloat16):
        return rtol, atol
    finite = expected[expected.isfinite()].float()
    return rtol, atol * max(1.0, float(finite.abs().max()) if finite.numel() else 0.0)


def _calls(gm: GraphModule) -> list[Any]:
    return [node.target for node in gm.graph.nodes if node.op == "call_function"]


def _unregistered(gm: GraphModule) -> OpOverload | None:
    targets = (target for target in _calls(gm) if isinstance(target, OpOverload))
    return next((target for target in targets if target not in registered()), None)


def _text(leaves: list[Any]) -> str:
    """The sample's arguments, a tensor as its shape and dtype."""
    parts = (
        f"{leaf.dtype}{list(leaf.shape)}" if isinstance(leaf, torch.Tensor) else repr(leaf)
        for leaf in leaves
    )
    return f"sample ({', '.join(parts)})".replace("torch.", "")
