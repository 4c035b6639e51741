"""A file knows in which form tensors cross the boundaries of its engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from levels import Levels

import fxtrt


def test_plans_with_boundaries_in_half_are_found_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if torch.cuda.is_available():
        pytest.skip("the GPU may be one that TensorRT-RTX does not support")
    x, path = torch.rand(1, 3, 32, 48), tmp_path / "model.fxtrt"
    options: dict[str, Any] = {"engine": "tensorrt_rtx", "precision": "fp16", "min_cluster_size": 1}
    fast = fxtrt.compile(Levels().eval(), (x,), cache_dir=tmp_path / "cache", **options)
    fxtrt.save(fast, path)
    loaded = fxtrt.load(
        path, Levels().eval(), operators=["fxtrt_test.pool_levels.default"], cache_dir=None
    )
    before, after = fxtrt.report(fast).clusters, fxtrt.report(loaded).clusters
    assert [row.build is not None and row.build.cached for row in after] == [True, True]
    assert [row.outputs for row in after] == [row.outputs for row in before]
    assert before[0].outputs[0].endswith(": float16 channels-last")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), fast(x), rtol=0, atol=0, check_stride=True)
