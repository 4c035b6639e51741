"""Convert Einstein sums to one EINSUM layer, with the equation in the form that TensorRT takes.

The layer adds up in float32, as matrix products do.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import wide
from ..registry import converts
from .matmul import floats_only

aten = torch.ops.aten

_MAX_OPERANDS = 2
_ELLIPSIS = "..."


def _within_einsum(equation: str, tensors: Sequence[torch.Tensor], path: Any) -> str | None:
    """Decline what EINSUM cannot do.

    `path` is an order for many operands; it means nothing for two.
    """
    if len(tensors) > _MAX_OPERANDS:
        return f"{len(tensors)} operands, EINSUM takes {_MAX_OPERANDS}"
    terms, _ = _parse(equation, [tensor.dim() for tensor in tensors])
    if repeated := [term for term in terms if len(set(term)) < len(term)]:
        return f"EINSUM takes no repeated subscript: {repeated[0]!r}"
    sizes: dict[str, Any] = {}
    for term, tensor in zip(terms, tensors, strict=True):
        for subscript, size in zip(term, tensor.shape, strict=True):
            if sizes.setdefault(subscript, size) != size:
                return f"EINSUM broadcasts nothing: {subscript!r} is {sizes[subscript]} and {size}"
    return None


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Return the subscripts of each operand and of the result, which may be implicit.

    Digits stand for an ellipsis; all operands share the last digits.
    """
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    covered = [
        rank - len(term) + len(_ELLIPSIS) if _ELLIPSIS in term else 0
        for term, rank in zip(terms, ranks, strict=True)
    ]
    digits = string.digits[: max(covered)]
    if not arrow:
        counts = Counter(inputs.replace(",", "").replace(".", ""))
        result = _ELLIPSIS + "".join(sorted(s for s, count in counts.items() if count == 1))
    terms = [
        term.replace(_ELLIPSIS, digits[len(digits) - count :])
        for term, count in zip(terms, covered, strict=True)
    ]
    return terms, result.replace(_ELLIPSIS, digits)


@converts(aten.einsum.default, check=(floats_only, _within_einsum))
def einsum(ctx: Context, equation: str, tensors: Sequence[Any]) -> Any:
    """einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor"""
    terms, result = _parse(equation, [len(tensor.shape) for tensor in tensors])
    used = sorted(set("".join(terms)))
    to_lower = str.maketrans(dict(zip(used, string.ascii_lowercase, strict=False)))
    written = f"{','.join(terms)}->{result}".translate(to_lower)
    dtype = ctx.output.dtype
    if not ctx.features.weakly_typed:
        tensors = [ctx.cast(tensor, wide(dtype)) for tensor in tensors]
    return ctx.cast(ctx.net.add_einsum(list(tensors), written).get_output(0), dtype)
