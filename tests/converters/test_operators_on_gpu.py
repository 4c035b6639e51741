"""The operator table, a backbone and the demo on a real TensorRT and a real GPU (`-m gpu`)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkrun
import numpy as np
import pytest
import torch
from oprow import OpRow, in_float16, rejection_of, trace_row

import fxtrt
from fxtrt.conversion.convert import convert
from fxtrt.diagnostics.operator_rows import ROWS
from fxtrt.engines.network import Network
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.engines.tensorrt import TensorRTBackend, TensorRTEngine
from fxtrt.errors import BuildError, EngineUnavailable

pytestmark = pytest.mark.gpu

ACCEPTED = [row for row in ROWS if row.rejected is None]
HALVES = [half for row in ACCEPTED if (half := in_float16(row)) is not None]
TACTICS = ("JIT_CONVOLUTIONS", "EDGE_MASK_CONVOLUTIONS")
"""Tactics that need neither cuBLAS nor cuDNN, so that the tests run wherever TensorRT does."""
WIDER = {torch.float32: 10, torch.float16: 5}
"""How much wider the rows' tolerances are: kernels sum in another order, and in float16."""
NAN_TO_ZERO = {torch.ops.aten.relu.default}
"""Kernels that take the larger of NaN and 0, which is 0; torch keeps NaN."""


@pytest.fixture(scope="module")
def tensorrt() -> TensorRTBackend:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    try:
        return TensorRTBackend("tensorrt")
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def ieee_float32() -> Iterator[None]:
    """Eager convolutions in full float32, as the engines are asked to do them."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.id)
def test_row_equals_eager(row: OpRow, tensorrt: TensorRTBackend) -> None:
    run_row(row, tensorrt)


@pytest.mark.parametrize("row", HALVES, ids=lambda row: row.id)
def test_row_in_float16_equals_eager(row: OpRow, tensorrt: TensorRTBackend) -> None:
    run_row(row, tensorrt)


def run_row(row: OpRow, tensorrt: TensorRTBackend) -> None:
    """Build the engine of one operator and compare it with PyTorch on the CPU."""
    traced = trace_row(row, device="cuda")
    if rejection := rejection_of(traced, tensorrt):
        pytest.skip(f"{tensorrt.features.version} declines: {rejection.detail}")
    network = convert(traced.gm, tensorrt.features)
    settings = fxtrt.Settings(optimization_level=0, tactic_sources=TACTICS)
    try:
        plan = tensorrt.build(network, settings)
    except BuildError as error:
        if "Could not find any implementation" in str(error):
            pytest.skip(f"needs cuDNN or cuBLAS, which {TACTICS} leave out: {error}")
        raise
    actual = tensorrt.load(plan, network.inputs, network.outputs).run(traced.inputs)
    # The reference values come from the CPU: the GPU's own eager kernels round in their own ways.
    try:
        expected = traced.gm.cpu()(*(tensor.cpu() for tensor in traced.inputs))
    except NotImplementedError as error:
        pytest.skip(f"PyTorch has no CPU kernel: {error}")
    for a, e in zip(actual, expected, strict=True):
        tolerance = row.tolerance * WIDER.get(e.dtype, 1)
        if row.target in NAN_TO_ZERO:
            e = e.nan_to_num(0.0, math.inf, -math.inf)
        torch.testing.assert_close(a.cpu(), e.cpu(), atol=tolerance, rtol=tolerance, equal_nan=True)


@pytest.mark.parametrize("precision", ["model", "fp16"])
def test_backbone_against_float64(
    precision: Any, tensorrt: TensorRTBackend, tmp_path: Path
) -> None:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    from fxtrt.diagnostics.example_models import calibrate, load_photograph

    torch.manual_seed(0)
    model = resnet_fpn_backbone(backbone_name="resnet50", weights=None).eval().cuda()
    x = torch.nn.functional.interpolate(load_photograph()[None], (480, 640)).cuda()
    with torch.no_grad():
        calibrate(model, (x,))
        expected = copy.deepcopy(model).double()(x.double())
        halved = copy.deepcopy(model).half()(x.half())
        compiled = fxtrt.compile(
            model,
            (x,),
            engine="tensorrt",
            precision=precision,
            optimization_level=1,
            tactic_sources=TACTICS,
            cache_dir=tmp_path,
        )
        actual = compiled(x)
    assert fxtrt.report(compiled).flops_share == 1.0
    error, of_halved = _largest_error(actual, expected), _largest_error(halved, expected)
    print(f"{precision}: relative error {error:.2e}; PyTorch in float16: {of_halved:.2e}")
    assert error < {"model": 1e-3, "fp16": 1e-2}[precision]


def _largest_error(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest ||a - e|| / ||e|| over the levels."""
    norm = torch.linalg.vector_norm
    return max(
        float(norm(actual[name].double() - value) / norm(value)) for name, value in expected.items()
    )


def test_streams_and_threads_share_an_engine(tensorrt: TensorRTBackend, tmp_path: Path) -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU()
    )
    model = model.eval().cuda()
    inputs = [torch.randn(1, 3, 64, 64, device="cuda") for _ in range(16)]
    compiled = fxtrt.compile(
        model, (inputs[0],), engine="tensorrt", tactic_sources=TACTICS, cache_dir=tmp_path
    )
    streams = [torch.cuda.Stream() for _ in range(4)]  # type: ignore[no-untyped-call]  # torch's
    torch.cuda.synchronize()
    with torch.no_grad():
        results = []
        for index, x in enumerate(inputs):
            with torch.cuda.stream(streams[index % 4]):
                results.append(compiled(x))
        torch.cuda.synchronize()
        for x, result in zip(inputs, results, strict=True):
            torch.testing.assert_close(result, model(x), atol=1e-4, rtol=1e-4)


def test_a_cuda_graph_holds_an_engine(tensorrt: TensorRTBackend, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    model = model.eval().cuda()
    x = torch.randn(1, 3, 64, 64, device="cuda")
    compiled = fxtrt.compile(
        model, (x,), engine="tensorrt", tactic_sources=TACTICS, cache_dir=tmp_path
    )
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
    with torch.no_grad(), torch.cuda.stream(stream):
        compiled(x)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            result = compiled(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        stream.synchronize()
        torch.testing.assert_close(result, model(x), atol=1e-4, rtol=1e-4)


def test_outputs_whose_size_depends_on_data(tensorrt: TensorRTBackend) -> None:
    """TensorRT allocates them while the engine runs; what they select is as on `reference`."""
    trt = tensorrt.features.trt
    # The layers point into these while the engine is built.
    numbers = [np.array(1000, np.int32), np.array(0.5, np.float32), np.array(-3.3e38, np.float32)]

    def build(net: Any, boxes: Any, scores: Any) -> tuple[Any, Any]:
        most, iou, least = (net.add_constant((), number).get_output(0) for number in numbers)
        layer = net.add_nms(boxes, scores, most)
        layer.bounding_box_format = trt.BoundingBoxFormat.CORNER_PAIRS
        layer.set_input(3, iou)
        layer.set_input(4, least)
        return layer.get_output(0), net.add_identity(boxes).get_output(0)

    class Built:
        features = tensorrt.features

        def load(self, network: Network, inputs: Any, outputs: Any) -> TensorRTEngine:
            settings = fxtrt.Settings(optimization_level=0, tactic_sources=TACTICS)
            return tensorrt.load(tensorrt.build(network, settings), inputs, outputs)

    generator = torch.Generator().manual_seed(0)
    example = (torch.zeros(1, 1000, 4), torch.zeros(1, 1000, 1))
    engine = networkrun.load(Built(), build, *(x.cuda() for x in example))  # type: ignore[arg-type]  # what it uses of one
    kept = networkrun.load(ReferenceBackend(trt), build, *example)
    for size in (1.0, 30.0, 5.0):
        corners = torch.rand(1, 1000, 2, generator=generator) * 50
        extents = torch.rand(1, 1000, 2, generator=generator) * size
        boxes = torch.cat([corners, corners + extents], 2)
        scores = torch.randn(1, 1000, 1, generator=generator)
        actual = engine.run((boxes.cuda(), scores.cuda()))
        torch.testing.assert_close(actual[0].cpu(), kept.run((boxes, scores))[0])
        torch.testing.assert_close(actual[1].cpu(), boxes)


def test_nms_in_an_engine(tensorrt: TensorRTBackend, tmp_path: Path) -> None:
    if torch.int64 not in tensorrt.features.dtypes:
        pytest.skip(f"{tensorrt.features.version} has no int64, which nms gives")
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

    class Suppressed(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> Any:
            kept = torchvision.ops.nms(boxes * 2, scores * 3, 0.5)
            return kept, (boxes[kept] + 1).relu() * scores[kept].unsqueeze(1)

    corners = torch.rand(500, 2, device="cuda") * 50
    inputs = (torch.cat([corners, corners + 10], 1), torch.randn(500, device="cuda"))
    model = Suppressed().eval()
    compiled = fxtrt.compile(
        model,
        inputs,
        engine="tensorrt",
        whitelist=("torchvision.nms",),
        tactic_sources=TACTICS,
        cache_dir=tmp_path,
    )
    assert fxtrt.report(compiled).rejections == ()
    torch.testing.assert_close(compiled(*inputs), model(*inputs))


@pytest.mark.parametrize("ratio", [0, -1, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_in_an_engine(
    aligned: bool, ratio: int, tensorrt: TensorRTBackend, tmp_path: Path
) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

    class Pooled(torch.nn.Module):
        def forward(self, x: torch.Tensor, regions: torch.Tensor) -> Any:
            return torchvision.ops.roi_align(x * 2, regions, 7, 0.25, ratio, aligned) + 1

    x = torch.randn(2, 16, 64, 96, device="cuda")
    image = torch.randint(0, 2, (100, 1), device="cuda").float()
    corners = torch.rand(100, 2, device="cuda") * 400 - 20
    sizes = torch.rand(100, 2, device="cuda") * 200
    sizes[:3] = 0
    regions = torch.cat([image, corners, corners + sizes], 1)
    model = Pooled().eval()
    compiled = fxtrt.compile(
        model,
        (x, regions),
        engine="tensorrt",
        whitelist=("torchvision.roi_align",),
        tactic_sources=TACTICS,
        cache_dir=tmp_path,
    )
    assert fxtrt.report(compiled).rejections == ()
    torch.testing.assert_close(compiled(x, regions), model(x, regions), atol=1e-4, rtol=1e-4)


def test_measured_clusters_stay_where_they_win(
    tensorrt: TensorRTBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Sequential(
        *(torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3), torch.nn.ReLU()) for _ in range(8))
    )
    model = model.eval().cuda()
    x = torch.randn(1, 16, 64, 64, device="cuda")
    options: dict[str, Any] = {
        "engine": "tensorrt",
        "partition": "measured",
        "tactic_sources": TACTICS,
        "cache_dir": tmp_path,
    }
    first = fxtrt.report(fxtrt.compile(model, (x,), **options))
    print(first)
    assert all(row.engine_ms < row.pytorch_ms for row in first.clusters)  # type: ignore[operator]  # both were measured
    assert {row.code for row in first.rejections} <= {"slower"}
    assert len(first.clusters) == 1 or first.rejections
    monkeypatch.setattr("fxtrt.lowering.settle.measure", None)  # The figures are in the cache.
    again = fxtrt.compile(model, (x,), **options)
    torch.testing.assert_close(again(x), model(x), atol=1e-4, rtol=1e-4)
    assert fxtrt.report(again).converted == first.converted


def test_the_demo_finds_what_eager_finds(tensorrt: TensorRTBackend, tmp_path: Path) -> None:
    from fxtrt.cli.run import Subject, run

    options = {
        "engine": "tensorrt",
        "optimization_level": 1,
        "tactic_sources": TACTICS,
        "cache_dir": tmp_path,
    }
    assert run(Subject(), options)
