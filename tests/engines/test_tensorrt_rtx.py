"""TensorRT-RTX builds real plans on any machine, through the pipeline of production."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch
from levels import Levels

import fxtrt
from fxtrt.builder.casts import with_precision
from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.network import logger_for
from fxtrt.engines.select import select
from fxtrt.engines.target import Target
from fxtrt.engines.tensorrt import TensorRTBackend
from fxtrt.errors import (
    BuildError,
    EngineUnavailable,
    SettingsError,
)
from fxtrt.lowering.divide import divide
from fxtrt.lowering.forms import extract_all

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="these tests are about machines without a GPU"
)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU()
    )
    return layers.eval()


@pytest.mark.parametrize("capabilities", [(), ("sm80",), ("sm86", "sm89", "sm120")])
def test_builds_for_chosen_gpus(rtx: TensorRTBackend, capabilities: tuple[str, ...]) -> None:
    gm = trace(model(), (torch.randn(1, 3, 16, 16),))
    plan = rtx.build(convert(gm, rtx.features), fxtrt.Settings(compute_capabilities=capabilities))
    assert len(plan) > 1000


def test_an_unknown_gpu_is_refused(rtx: TensorRTBackend) -> None:
    gm = trace(model(), (torch.randn(1, 3, 16, 16),))
    with pytest.raises(SettingsError, match=r"no 'sm90'.*sm89"):
        rtx.build(convert(gm, rtx.features), fxtrt.Settings(compute_capabilities=("sm90",)))


def test_a_failing_build_carries_the_message_of_tensorrt(rtx: TensorRTBackend) -> None:
    gm = trace(lambda x: x @ x, (torch.randn(4, 4),))
    with pytest.raises(BuildError, match="GEMM"):
        rtx.build(convert(gm, rtx.features), fxtrt.Settings(compute_capabilities=("sm75",)))


def test_without_a_gpu_plans_are_built_and_clusters_run_in_pytorch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net, x = model(), torch.randn(1, 3, 16, 16)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        compiled = fxtrt.compile(net, (x,), engine="tensorrt_rtx", cache_dir=tmp_path)
        torch.testing.assert_close(compiled(x), net(x))
    assert "another machine" in caplog.text
    (row,) = fxtrt.report(compiled).clusters
    assert row.build is not None
    assert row.build.plan_bytes
    assert not row.build.cached


def test_the_second_compilation_takes_the_plan_from_the_cache(tmp_path: Path) -> None:
    net, x = model(), torch.randn(1, 3, 16, 16)
    builds = []
    for _ in range(2):
        compiled = fxtrt.compile(net, (x,), engine="tensorrt_rtx", cache_dir=tmp_path)
        builds.append(fxtrt.report(compiled).clusters[0].build)
    first, second = builds
    assert first is not None
    assert second is not None
    assert (first.cached, second.cached) == (False, True)
    assert first.plan_bytes == second.plan_bytes


@pytest.mark.parametrize("most_images", [1, 8])
def test_dynamic_shapes_become_profiles(tmp_path: Path, most_images: int) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    compiled = fxtrt.compile(
        model(),
        (torch.randn(2, 3, 16, 16),),
        dynamic_shapes=({0: batch},),
        engine="tensorrt_rtx",
        cache_dir=tmp_path,
        most_images=most_images,
    )
    assert len(fxtrt.report(compiled).clusters) == 1


def test_tensorrt_without_a_driver_says_what_to_do() -> None:
    with pytest.raises(EngineUnavailable, match="engine='reference'"):
        select("tensorrt")


def test_a_gpu_that_rtx_does_not_support_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    with pytest.raises(EngineUnavailable, match=r"does not support NVIDIA H200 \(sm90\).*SM120"):
        TensorRTBackend("tensorrt_rtx")


def test_a_boundary_is_half_and_channels_last_in_the_plan(
    rtx: TensorRTBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    logger = type(logger_for(rtx.features.trt))
    monkeypatch.setattr(logger, "log", lambda self, severity, message: messages.append(message))
    settings = fxtrt.Settings(precision="fp16", min_cluster_size=1)
    gm = trace(Levels().eval(), (torch.rand(2, 3, 32, 48),))
    clusters = extract_all(gm, divide(gm, Target(rtx, settings)).clusters)
    for extracted in clusters:
        cluster, _ = with_precision(extracted.module, settings)
        network = convert(cluster, rtx.features)
        config = rtx.config(network, settings)
        config.profiling_verbosity = rtx.features.trt.ProfilingVerbosity.DETAILED
        assert network.builder.build_serialized_network(network.definition, config)
    body, head = (message for message in messages if message.startswith("Layers:"))
    assert io_formats(body) == [
        ("x0", "Float", "kLINEAR"),
        ("y0", "Half", "kHWC8"),
        ("y1", "Half", "kHWC8"),
    ]
    assert io_formats(head) == [("x0", "Half", "kLINEAR"), ("y0", "Float", "kLINEAR")]
    # The kernels of the convolutions write the outputs: nothing reformats or casts them behind.
    assert len(re.findall(r"^Name: ", body, re.MULTILINE)) == 1 + 3
    assert "Reformat" not in body


def io_formats(plan: str) -> list[tuple[str, ...]]:
    """Name, type and format of each input and output in TensorRT's description of a plan."""
    tensors = plan.partition("I/O Tensors:")[2]
    return re.findall(r"Name: (\w+), .*?DataType: (\w+), .*?\((k\w+)\)", tensors)
