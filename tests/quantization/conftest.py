"""Says which TensorRT-RTX builds plans in int8."""

from __future__ import annotations

import pytest

from fxtrt.engines.tensorrt import TensorRTBackend


@pytest.fixture
def int8_rtx(rtx: TensorRTBackend) -> TensorRTBackend:
    """TensorRT-RTX, if it has kernels for convolutions in int8."""
    version = tuple(map(int, rtx.features.trt.__version__.split(".")[:2]))
    if version < (1, 5):
        pytest.skip("TensorRT-RTX 1.4 has no kernels for convolutions in int8")
    return rtx
