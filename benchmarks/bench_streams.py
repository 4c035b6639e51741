"""Threads against images per second and latency: eager on one stream, on many, and fxtrt's slots.

    python benchmarks/bench_streams.py --out benchmarks/results

Each thread sends one image after the other and waits for the result of each, as a server's worker
does. Outputs are checked before anything is timed: the backbone's against float32, the detector's
detections against eager's, and those of all threads against one thread's. `--quick` ends within 90
seconds, engine builds included: it takes the backbone only, and fewer settings.
"""

from __future__ import annotations

import time

_START = time.perf_counter()

import argparse  # noqa: E402  # the clock counts the imports
import copy  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from harness import machine, relative_error  # noqa: E402
from stream_load import Load, Row, plot, show  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402
from torchvision.ops import box_iou  # noqa: E402

import fxtrt  # noqa: E402
from fxtrt.engines.select import select  # noqa: E402
from fxtrt.errors import FxtrtError  # noqa: E402
from fxtrt.examples import calibrate, load_example, load_photograph  # noqa: E402
from fxtrt.guarded import GuardedForward  # noqa: E402
from fxtrt.outside import as_graph  # noqa: E402
from fxtrt.stitched_call import StitchedCall, serve  # noqa: E402

_MOST_ERROR, _LEAST_AGREEMENT = 0.05, 0.7
_SECONDS_TO_BUILD = {"backbone": 50, "fasterrcnn": 75}
"""What engines may take; no build is begun with less time left."""


@dataclass(frozen=True)
class Subject:
    """A model in float32 on the GPU, its input, and how far outputs are from the expected ones."""

    name: str
    model: torch.nn.Module
    inputs: tuple[Any, ...]
    check: Callable[[Any], float]


@dataclass(frozen=True)
class Candidate:
    """A call; slots are 0 for eager, and `streams` says whether each thread has a stream."""

    name: str
    call: Callable[[], Any]
    slots: int = 0
    streams: bool = True


def main() -> None:
    arguments = parse()
    torch.manual_seed(0)
    # The expected values come from full float32.
    torch.backends.cudnn.allow_tf32 = False
    rows: list[Row] = []
    notes: dict[str, Any] = {}
    load = Load(0.4 if arguments.quick else 2.0, arguments.threads)
    subjects = {"backbone": backbone, "fasterrcnn": detector}
    with torch.no_grad():
        for name in arguments.models:
            subject = subjects[name](arguments.size)
            try:
                for candidate in candidates(subject, arguments, notes):
                    if left(arguments) < len(arguments.threads) * load.seconds * 2:
                        notes[f"{name}, {candidate.name}"] = "left out: the time was over"
                        continue
                    rows += measure(subject, candidate, load, notes)
                    save(arguments, rows, notes)
            except (RuntimeError, FxtrtError) as failure:
                notes[name] = f"failed: {failure}"
    save(arguments, rows, notes)
    print(show(rows))
    print("\n".join(f"{what}: {note}" for what, note in notes.items()))
    if arguments.out and rows:
        plot(rows, folder(arguments) / f"streams_{arguments.label}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within 90 seconds")
    parser.add_argument("--deadline", type=float, help="seconds after which nothing more is begun")
    parser.add_argument("--models", nargs="+", choices=["backbone", "fasterrcnn"])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--slots", type=int, nargs="+")
    parser.add_argument("--inductor", action="store_true", help="torch.compile's own backend too")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--optimization-level", type=int, default=3, help="of TensorRT's builder")
    parser.add_argument("--tactic-sources", nargs="*", help="names of trt.TacticSource")
    parser.add_argument("--cache-dir", type=Path, help="of plans; by default a new folder")
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--out", type=Path, help="folder for the result files")
    parser.add_argument("--label", default="threads", help="end of the result files' names")
    arguments = parser.parse_args()
    arguments.models = arguments.models or ["backbone", "fasterrcnn"][: 2 - arguments.quick]
    arguments.slots = arguments.slots or ([4, 1] if arguments.quick else [1, 2, 4, 8])
    if arguments.deadline is None:
        arguments.deadline = 80.0 if arguments.quick else float("inf")
    if arguments.cache_dir is None:
        arguments.cache_dir = Path(tempfile.mkdtemp(prefix="fxtrt-bench-"))
    return arguments


def left(arguments: argparse.Namespace) -> float:
    """Seconds until the deadline."""
    return float(arguments.deadline - (time.perf_counter() - _START))


def backbone(size: tuple[int, int]) -> Subject:
    """ResNet-50-FPN."""
    model = resnet_fpn_backbone(backbone_name="resnet50", weights=None).eval().cuda()
    x = torch.nn.functional.interpolate(load_photograph()[None], size).cuda()
    calibrate(model, (x,))
    expected = list(model(x).values())

    def check(outputs: Any) -> float:
        error = relative_error(list(outputs.values()), expected)
        if not error < _MOST_ERROR:
            raise RuntimeError(f"the outputs are off by {error:.1e}, more than {_MOST_ERROR}")
        return error

    return Subject("backbone", model, (x,), check)


def detector(size: tuple[int, int]) -> Subject:
    """torchvision's Faster R-CNN on a photograph, which it scales to these sides at most."""
    sides = {"min_size": min(size), "max_size": max(size)}
    example = load_example("fasterrcnn_resnet50_fpn", **sides).cuda()
    model, inputs = example.model, example.inputs
    (expected,) = model(*inputs)

    def check(outputs: Any) -> float:
        agreement = agreeing_share(outputs[0], expected)
        if not agreement >= _LEAST_AGREEMENT:
            raise RuntimeError(f"only {agreement:.0%} of the best detections are those of eager")
        return 1 - agreement

    return Subject("fasterrcnn", model, inputs, check)


def agreeing_share(actual: dict[str, Any], expected: dict[str, Any], best: int = 30) -> float:
    """The share of the best expected detections that have a partner of their label and place."""
    boxes, labels = expected["boxes"][:best].float(), expected["labels"][:best]
    overlap = box_iou(boxes, actual["boxes"].float())
    same = labels[:, None] == actual["labels"][None]
    return float(((overlap > 0.8) & same).any(1).float().mean())


def candidates(
    subject: Subject, arguments: argparse.Namespace, notes: dict[str, Any]
) -> Iterator[Candidate]:
    """The engines are built first, while nothing else disturbs the timing of their kernels."""
    fast = None
    if left(arguments) < _SECONDS_TO_BUILD[subject.name]:
        notes[f"{subject.name}, fxtrt"] = "left out: no time to build"
    else:
        try:
            fast = compile_subject(subject, arguments, notes)
        except (RuntimeError, FxtrtError) as failure:
            notes[f"{subject.name}, fxtrt"] = f"failed: {failure}"
    yield from eager_candidates(subject, arguments, notes)
    if fast is not None:
        yield from fxtrt_candidates(subject, fast, arguments, notes)


def fxtrt_candidates(
    subject: Subject, fast: torch.nn.Module, arguments: argparse.Namespace, notes: dict[str, Any]
) -> Iterator[Candidate]:
    guard = fast.forward
    assert isinstance(guard, GuardedForward)
    for graphs in (False, True):
        for slots in arguments.slots:
            call = serve_again(guard, slots, graphs)
            call.slots.each(lambda slot: [fast(*subject.inputs) for _ in range(3)])
            name = f"fxtrt {arguments.precision}, {slots} slots{', CUDA graphs' * graphs}"
            yield Candidate(name, lambda: fast(*subject.inputs), slots)
            if graphs:
                recorded = sum(runner.recorded for runner in call.recorders)
                reasons = "; ".join(call.reasons[:3]) or "nothing"
                notes[f"{subject.name}, {name}"] = f"{recorded} recorded; left out: {reasons}"
    slots = max(arguments.slots)
    serve_again(guard, slots, graphs=False)
    name = f"fxtrt {arguments.precision}, {slots} slots, default stream"
    yield Candidate(name, lambda: fast(*subject.inputs), slots, streams=False)


def eager_candidates(
    subject: Subject, arguments: argparse.Namespace, notes: dict[str, Any]
) -> Iterator[Candidate]:
    half = copy.deepcopy(subject.model).half().to(memory_format=torch.channels_last)
    inputs = pytree.tree_map(half_channels_last, subject.inputs)
    eager: Callable[[], Any] = lambda: half(*inputs)  # noqa: E731  # one of two
    try:
        subject.check(eager())
    except RuntimeError as error:
        notes[f"{subject.name}, eager"] = f"autocast, because in float16: {error}"
        eager = with_autocast(subject)
    yield Candidate("eager fp16, default stream", eager, streams=False)
    yield Candidate("eager fp16, stream per thread", eager)
    if arguments.inductor:
        compiled = torch.compile(half)
        yield Candidate("inductor fp16, stream per thread", lambda: compiled(*inputs))


def serve_again(guard: GuardedForward, slots: int, graphs: bool) -> StitchedCall:
    """Give a compiled model other slots, without compiling it again."""
    (call,) = serve([guard.graph], fxtrt.Settings(slots=slots, cuda_graphs=graphs))
    guard.run = as_graph(call)
    return call


def with_autocast(subject: Subject) -> Callable[[], Any]:
    model = copy.deepcopy(subject.model).to(memory_format=torch.channels_last)

    def call() -> Any:
        with torch.autocast("cuda", dtype=torch.float16):
            return model(*subject.inputs)

    return call


def compile_subject(
    subject: Subject, arguments: argparse.Namespace, notes: dict[str, Any]
) -> torch.nn.Module:
    """The compiled model.

    Raises:
        RuntimeError: its calls do not go through engines.
    """
    start = time.perf_counter()
    sources = arguments.tactic_sources
    fast = fxtrt.compile(
        subject.model,
        subject.inputs,
        engine=arguments.engine,
        precision=arguments.precision,
        optimization_level=arguments.optimization_level,
        tactic_sources=None if sources is None else tuple(sources),
        cache_dir=arguments.cache_dir,
    )
    notes[f"{subject.name}, fxtrt"] = f"compiled in {time.perf_counter() - start:.0f} s"
    notes[f"{subject.name}, report"] = str(fxtrt.report(fast)).splitlines()[0]
    guard = fast.forward
    if not isinstance(guard, GuardedForward):
        raise RuntimeError(f"nothing of it runs in an engine:\n{fxtrt.report(fast)}")
    fast(*subject.inputs)
    if fallbacks := [*guard.fallbacks, *fxtrt.report(fast).runtime[0].fallbacks]:
        raise RuntimeError(f"calls run in PyTorch: {fallbacks}")
    return fast


def half_channels_last(tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.half()
    return half.to(memory_format=torch.channels_last) if half.dim() == 4 else half


def measure(subject: Subject, candidate: Candidate, load: Load, notes: dict[str, Any]) -> list[Row]:
    """One row for each number of threads; none where the outputs are wrong."""
    try:
        error = subject.check(candidate.call())
        first = Row(subject.name, candidate.name, candidate.slots, error)
        return list(load.rows(first, candidate.call, candidate.streams))
    except (RuntimeError, FxtrtError) as failure:
        # The other candidates can still be measured.
        notes[f"{subject.name}, {candidate.name}"] = f"failed: {failure}"
        return []


@cache
def this_machine() -> dict[str, str]:
    return machine()


def folder(arguments: argparse.Namespace) -> Path:
    path: Path = arguments.out / this_machine().get("gpu", "cpu").replace(" ", "-")
    path.mkdir(parents=True, exist_ok=True)
    return path


def save(arguments: argparse.Namespace, rows: list[Row], notes: dict[str, Any]) -> None:
    """After each candidate, so that what was measured stays if a later one fails."""
    if not arguments.out:
        return
    record = {
        "machine": this_machine(),
        "engine": select(arguments.engine).features.version,
        "options": {
            "precision": arguments.precision,
            "optimization_level": arguments.optimization_level,
            "tactic_sources": arguments.tactic_sources,
        },
        "notes": notes,
        "rows": [row.record() for row in rows],
    }
    path = folder(arguments) / f"streams_{arguments.label}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
