"""Turns operators into names and back, and refuses those that do more than compute."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection
from importlib import import_module
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket, _OpNamespace
from torch.fx import Graph

from ..detection.ops import define
from ..errors import ArtifactError
from ..registry import registered

__all__ = ["WRITES_OWN", "read_target", "untrusted", "write_target"]

_FUNCTIONS: dict[str, Any] = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in {
        operator: "getitem add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge "
        "and_ or_ xor not_ inv lshift rshift",
        math: "ceil floor trunc sqrt exp log log2 cos sin tan",
        torch: "sym_max sym_min sym_int sym_float sym_not sym_ite sym_sum",
    }.items()
    for name in names.split()
    if hasattr(module, name)
} | {f"builtins.{function.__name__}": function for function in (abs, max, min, pow, round)}
"""The functions of sizes by name, which a graph may call besides operators."""

WRITES_OWN = "aten.copy_.default"
"""The operator by which captured graphs write, to the model's own buffers and inputs only."""
_OWN = ("fxtrt",)
"""The namespaces of fxtrt's own operators, which the recipes of `fxtrt.detection` use."""
_OF_TORCH = ("aten", "prims", "torchvision")
"""The namespaces of operators that compute. torchvision's input and output is in `image`."""
_TYPES = frozenset({"Tensor", "int", "float", "bool", "number", "complex", "Device", "Generator"})
"""The types that arguments may have, alone, optional or in lists. No file can hold a Generator."""
_OUTER = re.compile(r"(?:Optional|List)\[(.*)\]$")
_STRINGS = frozenset(
    (
        *("approximate", "assert_msg", "driver", "equation", "indexing"),
        *("interpolation", "mode", "norm", "ord", "p", "pad_mode", "padding"),
        *("padding_side", "reduce", "rounding_mode", "side", "UPLO"),
    )
)
"""The string arguments of torch's operators that choose how to compute. Any other may name a
resource."""
_ASSERTIONS = frozenset(
    (
        *("_assert_async", "_assert_scalar", "_assert_tensor_metadata"),
        *("sym_constrain_range", "sym_constrain_range_for_size"),
    )
)
"""The operators of torch that have no result and only raise if a condition does not hold."""
_PRIVATE = frozenset(
    (
        *("_aminmax", "_conj", "_conj_physical", "_convolution", "_fft_c2c"),
        *("_fft_c2r", "_fft_r2c", "_fused_rms_norm", "_is_all_true", "_is_any_true"),
        *("_linalg_det", "_linalg_eigh", "_linalg_slogdet", "_linalg_solve_ex"),
        *("_linalg_svd", "_local_scalar_dense", "_logcumsumexp", "_masked_softmax"),
        *("_native_multi_head_attention", "_neg_view", "_pad_circular", "_pad_enum"),
        *("_prelu_kernel", "_reshape_alias", "_reshape_copy", "_safe_softmax"),
        *("_scaled_dot_product_attention_math", "_scaled_dot_product_cudnn_attention"),
        *("_scaled_dot_product_efficient_attention",),
        *("_scaled_dot_product_flash_attention",),
        *("_scaled_dot_product_flash_attention_for_cpu", "_shape_as_tensor"),
        *("_thnn_fused_gru_cell", "_thnn_fused_lstm_cell"),
        *("_transformer_encoder_layer_fwd", "_trilinear", "_unique", "_unique2"),
        *("_unsafe_index", "_unsafe_view", "_upsample_bicubic2d_aa"),
        *("_upsample_bilinear2d_aa", "_upsample_nearest_exact1d"),
        *("_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
        *("_weight_norm_interface",),
    )
)
"""The private operators of torch that captured models call, besides those of the core set and those
with converters. Other private operators may not check their arguments, which a file chooses."""

_UNCHECKED = re.compile(
    r"backward|sparse|coalesce|nested|padded|quantized|^quantize|mkldnn|fbgemm|miopen|cudnn|mps_"
    "|ctc_loss|segment_reduce"
)
"""In the names of torch's operators for gradients, for tensors that are not dense, for single
libraries, and for ragged data. Some read or write wherever their indices say."""


def write_target(target: Any) -> str:
    """Return the name of the operator or function that a node calls.

    Raises:
        ArtifactError: the target is neither an operator nor a known function of sizes.
    """
    if isinstance(target, OpOverload):
        return str(target)
    for name, function in _FUNCTIONS.items():
        if target is function:
            return name
    raise ArtifactError(f"it calls {target}, which is no registered operator")


def read_target(name: str, trusted: Collection[str] | None = ()) -> Any:
    """Return the operator or function that `write_target` gave this name.

    Args:
        trusted: names of operators that a file may call in any case; None trusts all operators.

    Raises:
        ArtifactError: this process has no such operator, or no file may call it.
    """
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    target = _operator(name)
    if trusted is not None and name not in trusted and (reason := _why_not(target)):
        raise ArtifactError(
            f"no file may call {name}: {reason}. If the operator is safe with any arguments, name "
            f"it to fxtrt.load, as operators=[{name!r}]"
        )
    return target


def _operator(name: str) -> OpOverload:
    found: Any = torch.ops
    parts = name.split(".")
    kinds = (_OpNamespace, OpOverloadPacket, OpOverload)
    is_name = len(parts) == 3 and all(part.isidentifier() for part in parts)
    if is_name:
        _define(*parts[:2])
    for kind, part in zip(kinds, parts, strict=False):
        found = getattr(found, part, None) if is_name else None
        if not isinstance(found, kind):
            raise ArtifactError(
                f"there is no operator {name:.80} here: import the package that registers it"
            )
    return found  # type: ignore[no-any-return]  # an OpOverload, as the last of `kinds`


def _define(namespace: str, name: str) -> None:
    """Define an operator of fxtrt's or torchvision's own that no import has defined yet."""
    try:
        if namespace in _OWN:
            define(name)
        elif namespace == "torchvision":
            import_module("torchvision")
    except ImportError as error:
        raise ArtifactError(f"the operator {namespace}.{name:.80} needs {error.name}") from error


def untrusted(graph: Graph) -> list[str]:
    """Return the operators of a captured graph that a file may call only if a user names them."""
    called = {node.target for node in graph.nodes if isinstance(node.target, OpOverload)}
    names = sorted(str(target) for target in called if _why_not(target))
    return [name for name in names if name != WRITES_OWN]


def _why_not(target: OpOverload) -> str | None:
    """Return why a file may not call this operator, or None if it may with any arguments."""
    schema = target._schema
    if schema.is_mutable:
        return "it writes to its arguments"
    if target in registered() or target.namespace in _OWN:
        return None
    if target.namespace not in _OF_TORCH:
        return "it is neither one of torch or torchvision nor one with a converter"
    if not torch._C._dispatch_has_kernel(target.name()):  # type: ignore[no-untyped-call]  # torch's
        return "it is one of TorchScript"
    name = schema.name.partition("::")[2]
    for argument in schema.arguments:
        kind = _innermost(str(argument.type))
        if kind not in _TYPES and not (kind == "str" and argument.name in _STRINGS):
            return f"its argument {argument.name} is a {kind}"
    if any(_innermost(str(result.type)) not in _TYPES for result in schema.returns):
        return "its result is no tensor or number"
    if not schema.returns and name not in _ASSERTIONS:
        return "it has no result"
    if name not in _PRIVATE and _UNCHECKED.search(name):
        return "it is for gradients, for tensors that are not dense, or trusts its indices"
    is_core = torch.Tag.core in target.tags
    if name.startswith("_") and not (is_core or name in (*_PRIVATE, *_ASSERTIONS)):
        return "it is a private one of torch that captured models do not call"
    return None


def _innermost(kind: str) -> str:
    while outer := _OUTER.match(kind):
        kind = outer[1]
    return kind
