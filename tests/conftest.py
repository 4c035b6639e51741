"""Fixtures that every test shares."""

from __future__ import annotations

import pytest

from fxtrt.engines.base import EngineBackend
from fxtrt.engines.reference import ReferenceBackend


@pytest.fixture(scope="session")
def reference() -> EngineBackend:
    """The engine that executes networks with PyTorch."""
    return ReferenceBackend()
