"""Fixtures that every test shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxtrt.engines.base import EngineBackend
from fxtrt.engines.reference import ReferenceBackend


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


@pytest.fixture(scope="session")
def reference() -> EngineBackend:
    """The engine that executes networks with PyTorch."""
    return ReferenceBackend()
