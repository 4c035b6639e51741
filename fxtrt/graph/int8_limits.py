"""Say why the quantizers of other tools cannot become TensorRT's, which are symmetric int8."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..registry import arguments_of
from .weights import weight

__all__ = ["constant_scale", "constant_value", "int8_range", "modelopt_limits", "symmetric"]

_INT8 = (-128, 127)
_NARROW = (-127, 127)


def int8_range(node: Node) -> str | None:
    """Decline to quantize to other ranges than int8's.

    A weight may have one step less than that, if it does not need the step.
    """
    arguments = arguments_of(node)
    found = (arguments["quant_min"], arguments["quant_max"])
    if found == _INT8:
        return None
    if found != _NARROW:
        return f"the range is {found[0]}..{found[1]}, and TensorRT's int8 is -128..127"
    return None if _fits_narrow(node) else "quant_min is -127, and TensorRT clamps to -128"


def _fits_narrow(node: Node) -> bool:
    """Return whether the input is a weight that no step below -127 is near to."""
    arguments = list(arguments_of(node).values())
    x, scale = constant_value(node, arguments[0]), constant_value(node, arguments[1])
    if x is None or scale is None:
        return False
    axis = arguments_of(node).get("axis")
    if axis is not None:
        scale = scale.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])
    return bool((x >= -127.5 * scale).all())


def constant_value(node: Node, argument: Any) -> torch.Tensor | None:
    """Return the value of an argument that is a number or a weight, or None."""
    if isinstance(argument, (int, float)):
        return torch.tensor(float(argument))
    module = node.graph.owning_module
    if not isinstance(argument, Node) or module is None:
        return None
    value = weight(module, argument)
    return None if value is None else value.detach()


def symmetric(node: Node) -> str | None:
    """Decline zero points other than 0."""
    arguments = arguments_of(node)
    zero = arguments.get("zero_point", arguments.get("zero_points"))
    if zero is None:
        return None
    value = constant_value(node, zero)
    if value is None:
        return "the zero point is computed, and TensorRT needs to know it"
    if bool((value != 0).any()):
        return f"the zero point {value.flatten()[value.flatten() != 0][0]:g} is not 0: asymmetric"
    return None


def constant_scale(node: Node) -> str | None:
    """Decline scales that are computed, or that no number could have."""
    arguments = arguments_of(node)
    value = constant_value(node, arguments.get("scale", arguments.get("scales")))
    if value is None:
        return "the scale is computed, and TensorRT needs to know it"
    if not bool((value.isfinite() & (value > 0)).all()):
        return f"a scale is {value.min():g}: it must be finite and above 0"
    return None


def modelopt_limits(node: Node) -> str | None:
    """Return why a call of ModelOpt's `tensorrt::quantize_op` is no symmetric int8, or None."""
    x, amax, num_bits, exponent_bits, unsigned, narrow_range = arguments_of(node).values()
    if (num_bits, exponent_bits) == (8, 4):
        return "float8 is refused: TensorRT 8.6 has none, and one graph serves all versions"
    if (num_bits, exponent_bits) != (8, 0):
        return f"{num_bits} bits with {exponent_bits} of the exponent are not int8"
    if unsigned:
        return "unsigned integers: TensorRT quantizes to int8"
    value = constant_value(node, amax)
    if value is None:
        return "amax is computed, and TensorRT needs to know it"
    if not bool((value.isfinite() & (value > 0)).all()):
        return f"amax is {value.min():g}: it must be finite and above 0"
    if sum(size > 1 for size in value.shape) > 1:
        return f"amax of shape {tuple(value.shape)}: one number, or one for each channel"
    if narrow_range:
        known = constant_value(node, x)
        if known is None or bool((known < -127.5 / 127 * value).any()):
            return "narrow_range, and TensorRT clamps to -128"
    return None
