"""Mistakes that a converter could make, each as one wrong attribute of a layer that it built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fxtrt.engines.interpreter.layers import HANDLERS
from fxtrt.engines.network import Network

__all__ = ["LAYER_MUTANTS", "LayerMutant", "layer_at"]

Change = Callable[[Any], Any]
Where = Callable[[Any], bool]


@dataclass(frozen=True)
class LayerMutant:
    """A wrong attribute.

    kind:      the LayerType of the layers that have it.
    attribute: its name; "inputs" is the list of a layer's inputs.
    change:    the right value -> a wrong one; the right one itself where it cannot be wrong so.
    where:     in which of the layers the attribute means anything.
    """

    name: str
    kind: str
    attribute: str
    change: Change
    where: Where = lambda layer: True

    @property
    def id(self) -> str:
        return f"{self.kind} {self.name}"

    def wrong(self, layer: Any) -> Any:
        """The wrong value for `layer`, or None where it would not be wrong."""
        if not self.where(layer):
            return None
        right = _value(layer, self.attribute)
        wrong = None if right is None else self.change(right)
        return None if wrong is None or bool(np.all(wrong == right)) else wrong

    def make(self, network: Network, place: int) -> None:
        """Make the mistake in layer number `place`."""
        layer = layer_at(network, place)
        wrong = self.wrong(layer)
        if self.attribute == "inputs":
            for slot, tensor in enumerate(wrong):
                layer.set_input(slot, tensor)
        else:
            setattr(layer, self.attribute, wrong)
        # Weights that are set live as long as these two.
        network.kept += [layer, wrong]


def layer_at(network: Network, place: int) -> Any:
    """Layer number `place`, as an object of its own class."""
    layer = network.definition.get_layer(place)
    layer.__class__ = getattr(network.trt, HANDLERS[layer.type.name][0])
    return layer


def _value(layer: Any, attribute: str) -> Any:
    """Dims and permutations as tuples; None for what is unset, empty or unreadable."""
    if attribute == "inputs":
        return [layer.get_input(i) for i in range(layer.num_inputs)]
    value = getattr(layer, attribute)
    if type(value).__name__ in ("Dims", "Permutation"):
        return tuple(value)
    readable = not isinstance(value, np.ndarray) or value.size > 0
    return value if readable and type(value).__name__ != "Weights" else None


# Changes of a value


def to(wrong: Any) -> Change:
    return lambda right: wrong


def each(number: int) -> Change:
    """The same number for every dimension."""
    return lambda right: (number,) * len(right)


def member(**names: str) -> Change:
    """Another member of an enum, by the name of the right one."""
    return lambda right: type(right).__members__[names.get(right.name, right.name)]


def inverted(flag: bool) -> bool:
    return not flag


def turned(values: Any) -> Any:
    """In reverse order."""
    return values[::-1]


def swapped(inputs: list[Any]) -> list[Any]:
    """The two last ones, each in the place of the other."""
    return [*inputs[:-2], inputs[-1], inputs[-2]]


def one_less(count: int) -> int:
    return max(1, count - 1)


def neighbour(axis: int) -> int:
    return axis - 1 if axis else 1


def neighbours(axes: int) -> int:
    """A bit mask, each axis replaced by its neighbour."""
    return axes >> 1 if axes > 1 else axes << 1


def untransposed(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(len(order)))


def sizes_turned(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """In reverse order, where all are numbers (0 and -1 stand for others)."""
    return sizes[::-1] if min(sizes, default=0) > 0 else sizes


def moved(values: Any) -> Any:
    """Weights plus one; bools inverted; infinities, which do not move, as zero."""
    if values.dtype == np.bool_:
        return ~values
    return np.where(np.isfinite(values), values + 1, 0).astype(values.dtype)


# Where an attribute means anything


def of(attribute: str, *names: str) -> Where:
    """Layers whose enum `attribute` has one of these values."""
    return lambda layer: getattr(layer, attribute).name in names


def averages_padding(layer: Any) -> bool:
    padded = any(layer.pre_padding) or any(layer.post_padding)
    return bool(layer.type.name == "AVERAGE" and padded)


def has_a_rest(layer: Any) -> bool:
    """Whether the steps of the window do not end at the border."""
    sizes = tuple(layer.get_input(0).shape)[2:]
    windows = (layer.pre_padding, layer.post_padding, layer.window_size_nd, layer.stride_nd)
    each_axis = zip(sizes, *map(tuple, windows), strict=True)
    return any((n + before + after - k) % step for n, before, after, k, step in each_axis)


_ALPHA = of("type", "LEAKY_RELU", "ELU", "SELU", "SOFTPLUS", "CLIP", "HARD_SIGMOID")
_BETA = of("type", "SELU", "SOFTPLUS", "CLIP", "HARD_SIGMOID")
_PICKS = of("resize_mode", "NEAREST")
_CUBIC = of("resize_mode", "CUBIC")
_ORDERED = of("op", "SUB", "DIV", "POW", "FLOOR_DIV", "GREATER", "LESS")

_FUNCTIONS = member(
    RELU="TANH",
    SIGMOID="TANH",
    TANH="SIGMOID",
    ELU="SELU",
    SELU="ELU",
    LEAKY_RELU="RELU",
    SOFTPLUS="RELU",
    CLIP="RELU",
    HARD_SIGMOID="SIGMOID",
    GELU_ERF="GELU_TANH",
    GELU_TANH="GELU_ERF",
)
_ARITHMETIC = member(
    SUM="SUB",
    SUB="SUM",
    PROD="SUM",
    DIV="PROD",
    POW="PROD",
    FLOOR_DIV="DIV",
    MAX="MIN",
    MIN="MAX",
    AND="OR",
    OR="AND",
    XOR="OR",
    EQUAL="LESS",
    GREATER="LESS",
    LESS="GREATER",
)
_UNARY = member(
    EXP="ABS",
    LOG="ABS",
    SQRT="ABS",
    ERF="ABS",
    NEG="ABS",
    ABS="NEG",
    RECIP="NEG",
    SIGN="NEG",
    FLOOR="CEIL",
    CEIL="FLOOR",
    ROUND="FLOOR",
    SIN="COS",
    COS="SIN",
    TAN="ATAN",
    ATAN="TAN",
    ASIN="SIN",
    ACOS="COS",
    SINH="COSH",
    COSH="SINH",
    ASINH="SINH",
    ACOSH="COSH",
    ATANH="ATAN",
    ISNAN="ISINF",
    ISINF="ISNAN",
)
_TRANSPOSED = member(NONE="TRANSPOSE", TRANSPOSE="NONE")
_REDUCTIONS = member(SUM="AVG", AVG="SUM", MAX="MIN", MIN="MAX", PROD="SUM")
_INTERPOLATIONS = member(NEAREST="LINEAR", LINEAR="NEAREST", CUBIC="LINEAR")
_BORDERS = member(FILL="CLAMP", CLAMP="REFLECT", REFLECT="CLAMP", WRAP="CLAMP")
_ROUNDINGS = member(FLOOR="CEIL", HALF_UP="FLOOR", HALF_DOWN="FLOOR")
_CEILING = member(EXPLICIT_ROUND_DOWN="EXPLICIT_ROUND_UP")
_CENTRES = member(HALF_PIXEL="ASYMMETRIC", ALIGN_CORNERS="ASYMMETRIC", ASYMMETRIC="HALF_PIXEL")
_CORNERS = member(ALIGN_CORNERS="HALF_PIXEL", HALF_PIXEL="ALIGN_CORNERS")
_TYPES = member(FLOAT="INT32", HALF="FLOAT", BF16="FLOAT", INT64="INT32", INT32="INT64")


def windowed(kind: str) -> list[LayerMutant]:
    """Return the mutants of layers that slide a window."""
    return [
        LayerMutant("strides turned", kind, "stride_nd", turned),
        LayerMutant("strides dropped", kind, "stride_nd", each(1)),
        LayerMutant("pads turned", kind, "pre_padding", turned),
        LayerMutant("padding before dropped", kind, "pre_padding", each(0)),
        LayerMutant("padding after dropped", kind, "post_padding", each(0)),
    ]


def convolving(kind: str) -> list[LayerMutant]:
    return [
        *windowed(kind),
        LayerMutant("dilation dropped", kind, "dilation_nd", each(1)),
        LayerMutant("groups ignored", kind, "num_groups", to(1)),
        LayerMutant("bias dropped", kind, "bias", np.zeros_like),
        LayerMutant("kernel flipped", kind, "kernel", lambda kernel: kernel[::-1].copy()),
    ]


LAYER_MUTANTS = [
    LayerMutant("function", "ACTIVATION", "type", _FUNCTIONS),
    LayerMutant("alpha", "ACTIVATION", "alpha", lambda alpha: alpha + 0.25, _ALPHA),
    LayerMutant("beta", "ACTIVATION", "beta", lambda beta: beta + 0.25, _BETA),
    LayerMutant("type", "CAST", "to_type", _TYPES),
    LayerMutant("inputs turned", "CONCATENATION", "inputs", turned),
    LayerMutant("axis", "CONCATENATION", "axis", neighbour),
    LayerMutant("values", "CONSTANT", "weights", moved),
    *convolving("CONVOLUTION"),
    *convolving("DECONVOLUTION"),
    LayerMutant("exclusive", "CUMULATIVE", "exclusive", inverted),
    LayerMutant("backwards", "CUMULATIVE", "reverse", inverted),
    LayerMutant("inputs turned", "EINSUM", "inputs", turned),
    LayerMutant("operation", "ELEMENTWISE", "op", _ARITHMETIC),
    LayerMutant("inputs turned", "ELEMENTWISE", "inputs", turned, _ORDERED),
    LayerMutant("equal for less", "ELEMENTWISE", "op", member(LESS="EQUAL", GREATER="EQUAL")),
    LayerMutant("greater for equal", "ELEMENTWISE", "op", member(EQUAL="GREATER")),
    LayerMutant("axis", "GATHER", "axis", neighbour, of("mode", "DEFAULT", "ELEMENT")),
    LayerMutant("mode", "GATHER", "mode", member(ELEMENT="DEFAULT", ND="DEFAULT")),
    LayerMutant("corners", "GRID_SAMPLE", "align_corners", inverted),
    LayerMutant("mode", "GRID_SAMPLE", "interpolation_mode", _INTERPOLATIONS),
    LayerMutant("border", "GRID_SAMPLE", "sample_mode", _BORDERS),
    LayerMutant("first transposed", "MATRIX_MULTIPLY", "op0", _TRANSPOSED),
    LayerMutant("second transposed", "MATRIX_MULTIPLY", "op1", _TRANSPOSED),
    LayerMutant("epsilon", "NORMALIZATION", "epsilon", lambda epsilon: 1000 * epsilon),
    LayerMutant("axes", "NORMALIZATION", "axes", neighbours),
    LayerMutant("groups ignored", "NORMALIZATION", "num_groups", to(1)),
    LayerMutant("scale for shift", "NORMALIZATION", "inputs", swapped),
    LayerMutant("inputs turned", "PARAMETRIC_RELU", "inputs", turned),
    *windowed("POOLING"),
    LayerMutant("kind", "POOLING", "type", member(MAX="AVERAGE", AVERAGE="MAX")),
    LayerMutant("window turned", "POOLING", "window_size_nd", turned),
    LayerMutant("divisor", "POOLING", "average_count_excludes_padding", inverted, averages_padding),
    LayerMutant("rounding", "POOLING", "padding_mode", _CEILING, has_a_rest),
    LayerMutant("operation", "REDUCE", "op", _REDUCTIONS),
    LayerMutant("axes", "REDUCE", "axes", neighbours),
    LayerMutant("dimensions kept or not", "REDUCE", "keep_dims", inverted),
    LayerMutant("mode", "RESIZE", "resize_mode", _INTERPOLATIONS),
    LayerMutant("centres", "RESIZE", "coordinate_transformation", _CENTRES),
    LayerMutant("corners", "RESIZE", "coordinate_transformation", _CORNERS),
    LayerMutant("rounding", "RESIZE", "nearest_rounding", _ROUNDINGS, _PICKS),
    LayerMutant("cubic coefficient", "RESIZE", "cubic_coeff", to(-0.5), _CUBIC),
    LayerMutant("shift dropped", "SCALE", "shift", np.zeros_like),
    LayerMutant("scale dropped", "SCALE", "scale", np.ones_like),
    LayerMutant("axis", "SCATTER", "axis", neighbour, of("mode", "ELEMENT")),
    LayerMutant("branches swapped", "SELECT", "inputs", swapped),
    LayerMutant("first transpose dropped", "SHUFFLE", "first_transpose", untransposed),
    LayerMutant("second transpose dropped", "SHUFFLE", "second_transpose", untransposed),
    LayerMutant("sizes turned", "SHUFFLE", "reshape_dims", sizes_turned),
    LayerMutant("off by one, first", "SLICE", "start", lambda start: (start[0] + 1, *start[1:])),
    LayerMutant("off by one, last", "SLICE", "start", lambda start: (*start[:-1], start[-1] + 1)),
    LayerMutant("one too few", "SLICE", "shape", lambda shape: (*shape[:-1], one_less(shape[-1]))),
    LayerMutant("forwards", "SLICE", "stride", lambda stride: tuple(map(abs, stride))),
    LayerMutant("step dropped", "SLICE", "stride", lambda steps: tuple(min(1, s) for s in steps)),
    LayerMutant("border", "SLICE", "mode", _BORDERS),
    LayerMutant("axis", "SOFTMAX", "axes", neighbours),
    LayerMutant("smallest for largest", "TOPK", "op", member(MAX="MIN", MIN="MAX")),
    LayerMutant("axis", "TOPK", "axes", neighbours),
    LayerMutant("one too few", "TOPK", "k", one_less),
    LayerMutant("operation", "UNARY", "op", _UNARY),
]
