"""Fixtures that every test shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fxtrt.engines.base import EngineBackend
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.engines.tensorrt import TensorRTBackend

pytest_plugins = ("shards", "seconds_by_package")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-samples",
        action="store_true",
        help="run every sample of PyTorch's operator database, and not a few of each operator; "
        "and many random chains",
    )
    parser.addoption(
        "--opdb-json",
        type=Path,
        help="where to keep what became of the samples (default: pytest's temporary folder)",
    )


@pytest.fixture
def no_grad() -> Iterator[None]:
    """Record nothing for autograd while a test runs."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def reference() -> EngineBackend:
    """The engine that executes networks with PyTorch."""
    return ReferenceBackend()


@pytest.fixture(scope="session")
def rtx() -> TensorRTBackend:
    """TensorRT-RTX on a machine without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if torch.cuda.is_available():
        pytest.skip("the GPU may be one that TensorRT-RTX does not support")
    return TensorRTBackend("tensorrt_rtx")
