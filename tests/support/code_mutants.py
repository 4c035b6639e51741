"""Mistakes that a converter could make, each as a wrong function in the place of a right one."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import pytest
import torch
from torch._ops import OpOverload

from fxtrt.conversion.context import Context
from fxtrt.converters.comparison import compare
from fxtrt.converters.softmax import softmax_layer
from fxtrt.registry import registered

__all__ = ["CODE_MUTANTS", "CodeMutant"]

aten = torch.ops.aten

Function = Callable[..., Any]


@dataclass(frozen=True)
class CodeMutant:
    """A wrong function.

    place:   the dotted name of the right one, from `fxtrt` on.
    wrong:   takes the right one, and what that takes.
    targets: the operators whose rows must notice, each on its own.
    """

    place: str
    wrong: Function
    targets: tuple[OpOverload, ...]

    @property
    def id(self) -> str:
        return self.wrong.__name__

    def make(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the wrong function into its place, and into the table of converters."""
        right = pkgutil.resolve_name(f"fxtrt.{self.place}")

        @wraps(right)
        def wrong(*args: Any, **kwargs: Any) -> Any:
            return self.wrong(right, *args, **kwargs)

        monkeypatch.setattr(f"fxtrt.{self.place}", wrong)
        table = {
            target: replace(converter, build=wrong) if converter.build is right else converter
            for target, converter in registered().items()
        }
        monkeypatch.setattr("fxtrt.registry._CONVERTERS", table)


CODE_MUTANTS: list[CodeMutant] = []


def instead_of(place: str, *targets: OpOverload) -> Callable[[Function], Function]:
    """Add the decorated function to `CODE_MUTANTS`."""

    def add(wrong: Function) -> Function:
        CODE_MUTANTS.append(CodeMutant(place, wrong, targets))
        return wrong

    return add


@instead_of("converters.elementwise.scaled", aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar)
def alpha_dropped(right: Function, ctx: Context, value: Any, factor: Any) -> Any:
    return value


@instead_of("converters.matmul.scaled", aten.addmm.default, aten.addmv.default)
def alpha_and_beta_dropped(right: Function, ctx: Context, value: Any, factor: Any) -> Any:
    return value


@instead_of("converters.elementwise.arithmetic", aten.add.Tensor, aten.sub.Scalar, aten.mul.Tensor)
@instead_of("converters.division.arithmetic", aten.div.Tensor, aten.div.Scalar)
def integers_not_promoted(right: Function, ctx: Context, operation: str, a: Any, b: Any) -> Any:
    dtype = a.dtype if isinstance(a, torch.Tensor) else ctx.dtype(a)
    operands = ctx.operands(a, b, dtype=dtype, rank=ctx.output.dim())
    return ctx.cast(ctx.elementwise(operation, *operands), ctx.output.dtype)


@instead_of("converters.elementwise._fits", aten.mul.Tensor, aten.div.Tensor)
def numbers_outside_of_float16(right: Function, value: Any, dtype: torch.dtype) -> bool:
    return True


@instead_of("converters.comparison._promoted", aten.eq.Scalar, aten.gt.Scalar, aten.lt.Scalar)
def compared_in_the_first_type(right: Function, ctx: Context, x: Any, other: Any) -> Any:
    return ctx.operands(x, other, dtype=ctx.dtype(x), rank=ctx.output.dim())


@instead_of("converters.comparison._compare_or_equal", aten.ge.Tensor, aten.le.Tensor)
def at_least_as_not_less(
    right: Function, ctx: Context, operation: str, opposite: str, x: Any, other: Any
) -> Any:
    return ctx.unary("NOT", compare(ctx, opposite, x, other))


@instead_of("converters.division._truncated", aten.div.Tensor_mode, aten.fmod.Tensor)
def floored_for_truncated(right: Function, ctx: Context, a: Any, b: Any) -> Any:
    return ctx.elementwise("FLOOR_DIV", a, b)


@instead_of("converters.division._floored", aten.floor_divide.default, aten.remainder.Tensor)
def truncated_for_floored(right: Function, ctx: Context, a: Any, b: Any) -> Any:
    return ctx.elementwise("DIV", a, b)


@instead_of("converters.unary.truncated", aten.trunc.default, aten.frac.default)
def rounded_for_truncated(right: Function, ctx: Context, x: Any) -> Any:
    return ctx.unary("ROUND", x)


@instead_of("converters.unary.expm1", aten.expm1.default)
def exp_minus_one(right: Function, ctx: Context, x: Any) -> Any:
    x, one = ctx.operands(x, 1, dtype=ctx.output.dtype)
    return ctx.elementwise("SUB", ctx.unary("EXP", x), one)


@instead_of("converters.unary.log1p", aten.log1p.default)
def log_of_the_sum(right: Function, ctx: Context, x: Any) -> Any:
    x, one = ctx.operands(x, 1, dtype=ctx.output.dtype)
    return ctx.unary("LOG", ctx.elementwise("SUM", x, one))


@instead_of("converters.power._product", aten.pow.Tensor_Scalar)
def one_factor_too_few(right: Function, ctx: Context, x: Any, count: int) -> Any:
    return right(ctx, x, max(1, count - 1))


@instead_of("converters.clamp.clamp", aten.clamp.default)
def bounds_that_cross(right: Function, ctx: Context, x: Any, min: Any, max: Any) -> Any:
    if None in (min, max) or not ctx.output.dtype.is_floating_point:
        return right(ctx, x, min, max)
    wide = ctx.cast(x, ctx.output.dtype)
    return ctx.activation("CLIP", wide, alpha=float(min), beta=float(max))


@instead_of("converters.activation.threshold", aten.threshold.default)
def nan_replaced(right: Function, ctx: Context, x: Any, threshold: float, value: float) -> Any:
    old, bound, new = ctx.operands(x, threshold, value, dtype=ctx.dtype(x))
    return ctx.net.add_select(ctx.elementwise("GREATER", x, bound), old, new).get_output(0)


@instead_of("converters.activation.prelu", aten.prelu.default)
def slopes_along_the_last_dimension(right: Function, ctx: Context, x: Any, weight: Any) -> Any:
    operands = ctx.operands(x, weight, dtype=ctx.output.dtype)
    return ctx.net.add_parametric_relu(*operands).get_output(0)


@instead_of("converters.softmax.log_softmax", aten.log_softmax.int, aten._log_softmax.default)
def logarithm_of_softmax(right: Function, ctx: Context, x: Any, dim: int) -> Any:
    return ctx.unary("LOG", softmax_layer(ctx, ctx.cast(x, ctx.output.dtype), dim))


@instead_of("converters.variance._finite", aten.logsumexp.default)
def infinity_minus_infinity(right: Function, ctx: Context, x: Any) -> Any:
    return x


@instead_of("converters.variance._variance", aten.var.correction, aten.std.correction)
def correction_dropped(
    right: Function, ctx: Context, x: Any, dim: Any, correction: Any, keepdim: bool
) -> Any:
    return right(ctx, x, dim, 0, keepdim)


@instead_of("converters.attention._times", aten.scaled_dot_product_attention.default)
def scores_not_scaled(right: Function, ctx: Context, x: Any, factor: float) -> Any:
    return x


@instead_of("converters.attention._only_visible", aten.scaled_dot_product_attention.default)
def queries_that_see_nothing(right: Function, ctx: Context, result: Any, mask: Any) -> Any:
    return result


@instead_of("converters.normalization._scale", aten._native_batch_norm_legit_no_training.default)
def epsilon_dropped(right: Function, *args: Any) -> Any:
    return right(*args[:-1], 0.0)


@instead_of("converters.normalization._layer_norm", aten.layer_norm.default)
def only_the_last_dimension(right: Function, ctx: Context, x: Any, count: int, *rest: Any) -> Any:
    return right(ctx, x, 1, *rest)


@instead_of("converters.pooling._windows", aten.max_pool2d.default, aten.avg_pool2d.default)
def ceil_mode_ignored(right: Function, *args: Any) -> Any:
    return right(*args[:-1], False)


@instead_of("converters.pooling._padding_behind", aten.max_pool2d.default)
def window_behind_the_input(
    right: Function, size: int, kernel: int, stride: int, padding: int
) -> int:
    last = -(-(size + 2 * padding - kernel) // stride)
    return max(padding, last * stride + kernel - size - padding)


@instead_of("converters.pooling._average_pool", aten.avg_pool2d.default, aten.avg_pool3d.default)
def divisor_ignored(
    right: Function, ctx: Context, x: Any, windows: Any, count_include_pad: bool, *divisor: Any
) -> Any:
    return right(ctx, x, windows, count_include_pad)


@instead_of(
    "converters.adaptive_pooling._averaging_matrix",
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
)
def windows_that_do_not_overlap(
    right: Function, ctx: Context, size: int, output: int, rank: int
) -> Any:
    matrix = torch.zeros(output, size)
    for i in range(output):
        start = i * size // output
        end = max(start + 1, (i + 1) * size // output)
        matrix[i, start:end] = 1 / (end - start)
    return ctx.operands(matrix, dtype=torch.float32, rank=rank)[0]


@instead_of("converters.resize._factors", aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec)
def given_scale_ignored(right: Function, axes: Any, output: Any) -> None:
    return None


@instead_of("converters.padding._pad", aten.constant_pad_nd.default, aten.reflection_pad2d.default)
def pads_swapped(right: Function, ctx: Context, x: Any, pad: Sequence[Any], *rest: Any) -> Any:
    return right(ctx, x, [pad[i ^ 1] for i in range(len(pad))], *rest)


@instead_of("converters.padding._pad", aten.constant_pad_nd.default, aten.pad.default)
def value_of_padding_dropped(
    right: Function, ctx: Context, x: Any, pad: Any, mode: str, *value: Any
) -> Any:
    return right(ctx, x, pad, mode)


@instead_of("converters.rearrange._roll", aten.roll.default)
def rolled_backwards(
    right: Function, ctx: Context, x: Any, shape: Any, shifts: Sequence[int], dims: Any
) -> Any:
    return right(ctx, x, shape, [-shift for shift in shifts], dims)


@instead_of("converters.rearrange.pixel_shuffle", aten.pixel_shuffle.default)
def factors_before_channels(right: Function, ctx: Context, x: Any, upscale_factor: int) -> Any:
    *batch, channels, height, width = ctx.fake("x").shape
    r, n = upscale_factor, len(batch)
    split = ctx.reshape(x, [*batch, r, r, channels // (r * r), height, width])
    order = [*range(n), n + 2, n + 3, n, n + 4, n + 1]
    return ctx.reshape(split, ctx.output.shape, transpose=order)


@instead_of("converters.creation._range", aten.arange.start, aten.arange.start_step)
def counted_from_zero(right: Function, ctx: Context, start: Any, step: Any) -> Any:
    return right(ctx, 0, step)


@instead_of("converters.slicing._bound", aten.slice.Tensor)
def negative_bounds_clamped(right: Function, index: Any, size: Any, default: Any) -> Any:
    return default if index is None else max(index, 0)


@instead_of("converters.indexing._wrapped", aten.index.Tensor, aten.index_put.default)
def negative_indices_kept(right: Function, ctx: Context, indices: Any, dim: int) -> Any:
    return ctx.cast(ctx.tensor(indices[dim]), ctx.features.shape_dtype)


@instead_of("converters.indexing.plan_index", aten.index.Tensor)
def indexed_dimensions_first(right: Function, x: Any, indices: Any) -> Any:
    return replace(right(x, indices), first=0)


@instead_of("conversion.context.Context.raise_rank", aten.add.Tensor, aten.where.self)
def rank_raised_at_the_end(right: Function, ctx: Context, x: Any, rank: int) -> Any:
    missing = rank - len(x.shape)
    return ctx.reshape(x, [*x.shape, *[1] * missing]) if missing > 0 else x


if importlib.util.find_spec("torchvision"):
    import torchvision  # noqa: F401  # defines the operator

    _ROI_ALIGN = torch.ops.torchvision.roi_align.default

    def _attribute(name: str, change: Callable[[Any], Any]) -> Function:
        def wrong(right: Function, network: Any, inputs: Any, attributes: Any) -> Any:
            return right(network, inputs, {**attributes, name: change(attributes[name])})

        wrong.__name__ = f"roi_align_with_another_{name}"
        return wrong

    for _name, _change in (
        ("coordinate_transformation_mode", lambda aligned: 1 - aligned),
        ("sampling_ratio", lambda ratio: 1),
        ("spatial_scale", lambda scale: scale * 0.5),
    ):
        instead_of("converters.roi_align.add_roi_align", _ROI_ALIGN)(_attribute(_name, _change))
