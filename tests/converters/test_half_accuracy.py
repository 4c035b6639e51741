"""In half precision no operator is further from float64 than PyTorch by more than half as much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from halfrows import ROWS
from oprow import OpRow, T, TracedRow, layer_kinds, rejection_of, trace_row
from torch.utils import _pytree as pytree

from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.network import Network
from fxtrt.pass_manager import run_passes
from fxtrt.registry import registered

aten = torch.ops.aten

HALVES = (torch.float16, torch.bfloat16)
RATIO = 1.5
WITH_BIAS = 1.75
"""The ratio of `linear`, whose bias is a layer that rounds again unless TensorRT fuses it."""
FLOOR = 2.0**-24
"""An error that is none: float16's smallest number."""

EXACT = {
    *(aten.amax.default, aten.amin.default, aten.max.default, aten.min.default),
    *(aten.any.default, aten.any.dim, aten.any.dims, aten.all.default, aten.all.dim, aten.all.dims),
    *(aten.abs.default, aten.neg.default, aten.sign.default, aten.sgn.default),
    *(aten.floor.default, aten.ceil.default, aten.round.default, aten.trunc.default),
    *(aten.isnan.default, aten.isinf.default, aten.isfinite.default),
    *(aten.relu.default, aten.threshold.default, aten.adaptive_max_pool2d.default),
    *(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default),
    *(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default),
}
"""Operators that pick numbers and compute none."""
FAMILIES = (
    *("activation", "adaptive_pooling", "attention", "convolution", "einsum", "elementwise"),
    *("matmul", "normalization", "pooling", "power", "reduction", "softmax", "unary", "variance"),
)
ACCUMULATING = ("REDUCE", "SOFTMAX", "CUMULATIVE", "MATRIX_MULTIPLY", "EINSUM", "POOLING")


def in_half(row: OpRow, dtype: torch.dtype) -> OpRow:
    def narrowed(value: Any) -> Any:
        is_float = isinstance(value, T) and value.dtype == torch.float32
        return replace(value, dtype=dtype) if is_float else value

    args, kwargs = pytree.tree_map(narrowed, (row.args, row.kwargs), is_leaf=_is_tensor)
    return replace(row, args=args, kwargs=kwargs)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, T)


def exact(row: OpRow) -> tuple[torch.Tensor, ...]:
    """What the row's own numbers give in float64."""
    generator = torch.Generator().manual_seed(0)

    def widened(value: Any) -> Any:
        made = value.make(generator) if isinstance(value, T) else value
        is_float = isinstance(made, torch.Tensor) and made.is_floating_point()
        return made.double() if is_float else made

    args, kwargs = pytree.tree_map(widened, (row.args, row.kwargs), is_leaf=_is_tensor)
    result = (row.call or row.target)(*args, **kwargs)
    return result if isinstance(result, tuple) else (result,)


def eager(traced: TracedRow, wanted: tuple[torch.Tensor, ...], dtype: torch.dtype) -> Any:
    """What PyTorch gives; where it has no kernel for the CPU, the nearest halves."""
    try:
        return traced.expected
    except NotImplementedError:
        return tuple(value.to(dtype) for value in wanted)


def errors(values: Any, wanted: tuple[torch.Tensor, ...]) -> tuple[float, float]:
    """The largest and the mean difference."""
    differences = [(a.double() - b).abs() for a, b in zip(values, wanted, strict=True)]
    return (
        max(float(difference.max()) for difference in differences),
        max(float(difference.mean()) for difference in differences),
    )


def networked(row: OpRow, reference: EngineBackend) -> tuple[TracedRow, Network]:
    traced = trace_row(row)
    assert rejection_of(traced, reference) is None
    return traced, convert(traced.gm, reference.features)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_is_as_near_to_float64_as_eager(
    row: OpRow, dtype: torch.dtype, reference: EngineBackend
) -> None:
    row = in_half(row, dtype)
    traced, network = networked(row, reference)
    actual = reference.load(network, network.inputs, network.outputs).run(traced.inputs)
    wanted = exact(row)
    assert all(value.dtype == dtype for value in actual)
    theirs = errors(eager(traced, wanted, dtype), wanted)
    ratio = WITH_BIAS if row.id == "linear.default" else RATIO
    for ours, limit in zip(errors(actual, wanted), theirs, strict=True):
        assert ours <= ratio * limit + FLOOR


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_no_layer_adds_up_in_a_half(
    row: OpRow, dtype: torch.dtype, reference: EngineBackend
) -> None:
    """The reference engine may add up in float32 by itself; TensorRT need not."""
    _, network = networked(in_half(row, dtype), reference)
    trt, definition = network.trt, network.definition
    layers = [definition.get_layer(i) for i in range(definition.num_layers)]
    narrow = {reference.features.to_trt(half) for half in HALVES}
    sums = [layer for layer in layers if layer.type.name in ACCUMULATING and not _picks(trt, layer)]
    assert [layer.name for layer in sums if layer.get_input(0).dtype in narrow] == []


def _picks(trt: Any, layer: Any) -> bool:
    """Whether it is a REDUCE that gives one of the numbers that it reads."""
    if layer.type.name != "REDUCE":
        return False
    layer.__class__ = trt.IReduceLayer
    return bool(layer.op.name in ("MAX", "MIN"))


def test_every_operator_that_rounds_has_a_row() -> None:
    families = {f"fxtrt.converters.{family}" for family in FAMILIES}
    targets = {
        target
        for target, converter in registered().items()
        if converter.build.__module__ in families
    }
    assert targets - EXACT - {row.target for row in ROWS} == set()


def _given(value: torch.Tensor) -> T:
    return T(tuple(value.shape), value.dtype, values=tuple(value.flatten().tolist()))


def test_a_sharp_softmax_keeps_its_scores(reference: EngineBackend) -> None:
    """Scores of 48 and 47.98 are the same float16; their shares differ by 2 %."""
    query = torch.tensor([[[[48.0, 1.0]]]], dtype=torch.float16)
    key = torch.tensor([[[[1.0, 0.0], [1.0, -0.02]]]], dtype=torch.float16)
    value = torch.tensor([[[[1.0], [-1.0]]]], dtype=torch.float16)
    row = OpRow(
        aten.scaled_dot_product_attention.default,
        tuple(_given(x) for x in (query, key, value)),
        {"scale": 1.0},
    )
    traced, network = networked(row, reference)
    (actual,) = reference.load(network, network.inputs, network.outputs).run(traced.inputs)
    assert actual.item() == pytest.approx(0.01, abs=1e-3)
    assert layer_kinds(network).count("SOFTMAX") == 1


NUMBERS = T((4, 2048), low=-3.0, high=3.0)
OTHERS = T((4, 2048), low=-2.0, high=3.0)
SHARES = T((4, 2048), low=0.02, high=0.98)
TARGETS = T((4, 2048), low=0.0, high=1.0)
COMPOSITES: dict[str, tuple[Callable[..., torch.Tensor], tuple[T, ...]]] = {
    "logit": (torch.logit, (SHARES,)),
    "logit, clamped": (lambda x: torch.logit(x, 1e-3), (SHARES,)),
    "logaddexp": (torch.logaddexp, (NUMBERS, OTHERS)),
    "xlogy": (torch.xlogy, (SHARES, TARGETS)),
    "sinc": (torch.sinc, (NUMBERS,)),
    "softsign": (F.softsign, (NUMBERS,)),
    "softmin": (lambda x: F.softmin(x, -1), (NUMBERS,)),
    "tanhshrink": (F.tanhshrink, (NUMBERS,)),
    "normalize": (lambda x: F.normalize(x), (OTHERS,)),
    "pairwise_distance": (lambda x, y: F.pairwise_distance(x, y), (NUMBERS, OTHERS)),
    "mse_loss": (lambda x, y: F.mse_loss(x, y), (NUMBERS, OTHERS)),
    "smooth_l1_loss": (lambda x, y: F.smooth_l1_loss(x, y), (NUMBERS, OTHERS)),
    "binary_cross_entropy": (lambda x, y: F.binary_cross_entropy(x, y), (SHARES, TARGETS)),
    "with logits": (
        lambda x, y: F.binary_cross_entropy_with_logits(x, y),
        (NUMBERS, TARGETS),
    ),
    "kl_div": (lambda x, y: F.kl_div(F.log_softmax(x, -1), y), (NUMBERS, SHARES)),
    "batch statistics": (
        lambda x: F.batch_norm(x.reshape(2, 16, 256), None, None, training=True),
        (OTHERS,),
    ),
    "pixel norm": (lambda x: (x - 120.3) / 57.1, (T((4, 2048), low=0.0, high=255.0),)),
    "attention, written out": (
        lambda x: (x @ x.mT * 0.125).softmax(-1) @ x,
        (T((4, 100, 64), low=-1.5, high=2.0),),
    ),
}


@pytest.mark.filterwarnings("ignore:reduction")  # What "mean" means for `kl_div`.
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", COMPOSITES.values(), ids=COMPOSITES)
def test_what_passes_take_apart_is_as_near(
    case: tuple[Callable[..., torch.Tensor], tuple[T, ...]],
    dtype: torch.dtype,
    reference: EngineBackend,
) -> None:
    function, given = case
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(one.make(generator).to(dtype) for one in given)
    gm = trace(lambda *tensors: function(*tensors), inputs)
    run_passes(gm)
    network = convert(gm, reference.features)
    actual = reference.load(network, network.inputs, network.outputs).run(inputs)
    wanted = (function(*(one.double() for one in inputs)),)
    theirs = errors((function(*inputs),), wanted)
    for ours, limit in zip(errors(actual, wanted), theirs, strict=True):
        assert ours <= RATIO * limit + FLOOR
