"""Names the fields of `Settings` as keyword arguments, for type checkers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

from typing_extensions import TypedDict

__all__ = ["Options"]


class Options(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments, with all types that they accept."""

    engine: Literal["auto", "tensorrt", "tensorrt_rtx", "reference"]
    precision: Literal["model", "fp32", "tf32", "fp16", "bf16", "int8"]
    keep_fp32: Sequence[str] | Set[str]
    keep_fp16: Sequence[str] | Set[str]
    quantize: Sequence[str] | Set[str]
    calibration_table: str | os.PathLike[str] | None
    int8_if_faster: bool
    min_cluster_size: int
    whitelist: Sequence[str] | Set[str]
    blacklist: Sequence[str] | Set[str]
    components: Mapping[str, Mapping[str, Any]]
    partition: Literal["all", "measured"]
    self_check: Literal["auto", "off", "raise"]
    fuel: int | None
    max_growth: int | None
    most_images: int
    on_build_failure: Literal["fallback", "bisect", "raise"]
    cache_dir: str | os.PathLike[str] | None
    cache_limit_bytes: int | None
    cache_trust: Literal["owner", "anyone"]
    optimization_level: int
    workspace_bytes: int | None
    tactic_sources: Sequence[str] | None
    compute_capabilities: Sequence[str]
    check_weights: Literal["versions", "contents"]
    slots: int
    slot_timeout: float
    cuda_graphs: bool | None
