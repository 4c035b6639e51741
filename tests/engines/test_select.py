"""Choosing an engine: the best one that runs here, or a clear word on what to install."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import pytest
import torch

from fxtrt.engines import select as select_module
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.engines.select import select
from fxtrt.engines.tensorrt import TensorRTBackend
from fxtrt.errors import EngineUnavailable


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, *args: Any) -> Any:
        return None if name.startswith("tensorrt") else found(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.usefixtures("nothing_installed")
def test_reference_without_tensorrt_says_what_to_install() -> None:
    with pytest.raises(EngineUnavailable, match="pip install tensorrt-rtx"):
        ReferenceBackend()


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("gpu", [False, True])
def test_an_engine_without_its_package_says_what_to_install(
    gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with pytest.raises(EngineUnavailable, match="pip install tensorrt-rtx"):
        TensorRTBackend("tensorrt_rtx")
    with pytest.raises(EngineUnavailable, match="pip install tensorrt" if gpu else "NVIDIA GPU"):
        TensorRTBackend("tensorrt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_auto_without_a_gpu_is_the_reference_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    select_module._automatic.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert select("auto").name == "reference"
        assert select("auto").name == "reference"
    assert len([r for r in caplog.records if "does not make them fast" in r.message]) == 1
