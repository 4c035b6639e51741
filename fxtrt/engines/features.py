"""Ask a TensorRT module for its features, never for its version number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch

__all__ = ["Features"]

_DTYPE_NAMES = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BF16",
    torch.int64: "INT64",
    torch.int32: "INT32",
    torch.int8: "INT8",
    torch.uint8: "UINT8",
    torch.bool: "BOOL",
}
_COMPUTE_DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.bool,
)


@dataclass(frozen=True)
class Features:
    """The differences between TensorRT 8.6, 10, 11 and TensorRT-RTX that matter to fxtrt.

    stand_ins: whether a plugin is replaced by a layer that only the `reference` engine understands
               (engines/plugins.py).
    """

    trt: ModuleType
    stand_ins: bool = False

    @cached_property
    def version(self) -> str:
        return f"{self.trt.__name__} {self.trt.__version__}"

    @cached_property
    def weakly_typed(self) -> bool:
        """Whether only builder flags and layer precisions can type a network (8.6)."""
        return not hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @cached_property
    def infinite_operands(self) -> bool:
        """Whether an operand may be infinite; 8.6 uses the largest float32 instead."""
        return not self.weakly_typed

    @cached_property
    def samples_bools(self) -> bool:
        """Whether a SLICE of bools may sample outside of its input (not in 8.6)."""
        return not self.weakly_typed

    @cached_property
    def dtypes(self) -> frozenset[torch.dtype]:
        """The dtypes that a cluster's tensors may have."""
        known = self.trt.DataType.__members__
        return frozenset(d for d in _COMPUTE_DTYPES if _DTYPE_NAMES[d] in known)

    @cached_property
    def shape_dtype(self) -> torch.dtype:
        """The dtype of shape tensors: int64, or int32 if TensorRT has no INT64 (8.6)."""
        return torch.int64 if torch.int64 in self.dtypes else torch.int32

    def has(self, method: str) -> bool:
        """Return whether networks have `method`, such as "add_normalization_v2"."""
        return hasattr(self.trt.INetworkDefinition, method)

    def member(self, enum: str, name: str) -> bool:
        """Return whether an enum has a member, such as ("ActivationType", "GELU_ERF")."""
        return name in getattr(getattr(self.trt, enum, None), "__members__", ())

    def to_trt(self, dtype: torch.dtype) -> Any:
        """Return the `trt.DataType` of a torch dtype.

        Raises:
            ValueError: this TensorRT has no such type.
        """
        name = _DTYPE_NAMES.get(dtype)
        member = self.trt.DataType.__members__.get(name) if name else None
        if member is None:
            raise ValueError(f"{self.version} has no data type for {dtype}")
        return member

    def to_torch(self, dtype: Any) -> torch.dtype:
        """Return the torch dtype of a `trt.DataType`."""
        for torch_dtype, name in _DTYPE_NAMES.items():
            if self.trt.DataType.__members__.get(name) == dtype:
                return torch_dtype
        raise ValueError(f"torch has no dtype for {dtype}")
