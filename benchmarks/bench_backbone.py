"""Times a ResNet-50-FPN backbone on a GPU: eager, torch.compile, the ONNX route and fxtrt.

    python benchmarks/bench_backbone.py --out benchmarks/results

Every candidate runs by itself and inside a CUDA graph. The outputs are checked against float64
before anything is timed. The ONNX route is torch.onnx and TensorRT's own parser, with the builder
settings of fxtrt.
"""

from __future__ import annotations

import argparse
import copy
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import Timing, graphed, machine, relative_error, save, show, time_calls, timing
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import fxtrt
from fxtrt.diagnostics.example_models import calibrate, load_photograph
from fxtrt.engines.network import create_network, logger_for
from fxtrt.engines.select import select
from fxtrt.engines.tensorrt import TensorRTBackend, TensorRTEngine
from fxtrt.graph.specs import TensorSpec

Call = Callable[[], tuple[torch.Tensor, ...]]


def main() -> None:
    arguments = parse()
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    model = resnet_fpn_backbone(backbone_name="resnet50", weights=None).eval().cuda()
    batch, _, *size = arguments.shape
    x = torch.nn.functional.interpolate(load_photograph()[None], size).expand(batch, -1, -1, -1)
    x = x.contiguous().cuda()
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        calibrate(model, (x,))
        expected = tuple(copy.deepcopy(model).double()(x.double()).values())
        calls, notes = candidates(model, x, arguments)
        for name in list(calls):
            try:
                calls[f"{name}, CUDA graph"] = graphed(calls[name], stream)
            except RuntimeError as error:
                print(f"{name}: no CUDA graph: {error}")
        errors = {name: relative_error(call(), expected) for name, call in calls.items()}
        times = time_calls(calls)
    timings = [timing(n, times[n], errors[n], notes.get(n, "")) for n in calls]
    print(show(timings))
    judge({t.name: t for t in timings})
    if arguments.out:
        engine = select("tensorrt").features.version
        context = {"engine": engine, "shape": arguments.shape}
        context |= {"options": options(arguments), "build": notes}
        gpu = machine()["gpu"].replace(" ", "-")
        save(arguments.out / gpu / f"backbone_{arguments.label}.json", timings, context)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=4, default=[1, 3, 800, 1344])
    parser.add_argument("--level", type=int, default=3, help="TensorRT's optimisation level")
    parser.add_argument("--tactic-sources", nargs="*", help="names of trt.TacticSource")
    parser.add_argument("--skip", nargs="*", default=[], help="inductor, onnx, fp32")
    parser.add_argument("--out", type=Path, help="folder for the result files")
    parser.add_argument("--label", default="r50_fpn", help="name of the result file")
    return parser.parse_args()


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of fxtrt, and of the ONNX route's builder."""
    sources = arguments.tactic_sources
    return {
        "optimization_level": arguments.level,
        "tactic_sources": None if sources is None else tuple(sources),
        "cache_dir": None,
    }


def candidates(
    model: torch.nn.Module, x: torch.Tensor, arguments: argparse.Namespace
) -> tuple[dict[str, Call], dict[str, str]]:
    """Return the calls to time by name, and notes on how they were compiled."""
    half = copy.deepcopy(model).half().to(memory_format=torch.channels_last)
    x_half = x.half().to(memory_format=torch.channels_last)
    calls: dict[str, Call] = {
        "eager fp32": lambda: tuple(model(x).values()),
        "eager fp16 channels-last": lambda: tuple(half(x_half).values()),
    }
    notes: dict[str, str] = {}
    if "inductor" not in arguments.skip:
        compiled = torch.compile(half)
        seconds = first_call(lambda: compiled(x_half))
        calls["inductor fp16"] = lambda: tuple(compiled(x_half).values())
        notes["inductor fp16"] = f"compiled in {seconds:.0f} s"
    if "onnx" not in arguments.skip:
        start = time.perf_counter()
        context = onnx_engine(model, x, fxtrt.Settings(**options(arguments))).context()
        calls["ONNX fp16"] = lambda: context.run([x])
        notes["ONNX fp16"] = f"built in {time.perf_counter() - start:.0f} s"
    precisions = ["fp16"] if "fp32" in arguments.skip else ["model", "fp16"]
    for precision in precisions:
        name = {"model": "fxtrt fp32", "fp16": "fxtrt fp16"}[precision]
        calls[name], notes[name] = fxtrt_call(model, x, precision, arguments)
    return calls, notes


def fxtrt_call(
    model: torch.nn.Module, x: torch.Tensor, precision: str, arguments: argparse.Namespace
) -> tuple[Call, str]:
    compiled = fxtrt.compile(model, (x,), precision=precision, **options(arguments))
    (row,) = fxtrt.report(compiled).clusters
    assert row.build is not None
    return lambda: tuple(compiled(x).values()), f"built in {row.build.seconds:.0f} s"


def onnx_engine(
    model: torch.nn.Module, x: torch.Tensor, settings: fxtrt.Settings
) -> TensorRTEngine:
    """Return the engine that TensorRT's ONNX parser makes of the model, with float16 allowed."""
    backend = select("tensorrt")
    assert isinstance(backend, TensorRTBackend)
    buffer = io.BytesIO()
    names = [f"y{i}" for i in range(len(model(x)))]
    torch.onnx.export(
        model, (x,), buffer, input_names=["x0"], output_names=names, opset_version=17, dynamo=False
    )
    network = create_network(backend.features)
    trt = backend.features.trt
    parser = trt.OnnxParser(network.definition, logger_for(trt))
    if not parser.parse(buffer.getvalue()):
        raise RuntimeError(parser.get_error(0).desc())
    config = backend.config(network, settings)
    config.set_flag(trt.BuilderFlag.FP16)
    plan = network.builder.build_serialized_network(network.definition, config)
    outputs = [network.definition.get_output(i) for i in range(network.definition.num_outputs)]
    specs = [static_spec(f"y{i}", tensor) for i, tensor in enumerate(outputs)]
    return backend.load(bytes(plan), [static_spec("x0", x)], specs)


def static_spec(name: str, tensor: Any) -> TensorSpec:
    shape = tuple(tensor.shape)
    return TensorSpec(name, torch.float32, shape, shape, shape)


def first_call(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def judge(timings: dict[str, Timing]) -> None:
    """Print the ratio of fxtrt's time to those that it must not exceed."""
    ours = timings.get("fxtrt fp16, CUDA graph")
    for name in ("ONNX fp16, CUDA graph", "inductor fp16, CUDA graph"):
        other = timings.get(name)
        if ours and other:
            print(f"fxtrt / {name}: {ours.median_ms / other.median_ms:.3f}")


if __name__ == "__main__":
    main()
