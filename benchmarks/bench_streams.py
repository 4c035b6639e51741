"""Measures throughput and latency by threads, for eager, torch.compile and fxtrt's slots.

    python benchmarks/bench_streams.py --out benchmarks/results --cache-dir plans

Each thread sends one image after the other and waits for each result, like a worker of a server.
Outputs are checked before anything is timed: the backbone's against float32, the detector's against
eager's, and those of all threads against one thread's. `--quick` ends within 90 seconds, engine
builds included; it measures the backbone only, with fewer settings.

The result file is written after each measurement, and what it has is not measured again. So a run
that was ended, by `--deadline` or otherwise, is resumed by the next one; `--again` starts anew.
Without a GPU everything is float32 on the CPU, which only shows that the script works:

    python benchmarks/bench_streams.py --engine reference --precision model --size 64 96 --quick
"""

from __future__ import annotations

import time

_START = time.perf_counter()

import argparse  # noqa: E402  # the clock counts the imports
import copy  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from dataclasses import dataclass, replace  # noqa: E402
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
from fxtrt.diagnostics.example_models import (  # noqa: E402
    calibrate,
    load_example,
    load_photograph,
)
from fxtrt.engines.select import select  # noqa: E402
from fxtrt.errors import FxtrtError  # noqa: E402
from fxtrt.graph.provenance import as_graph  # noqa: E402
from fxtrt.runtime.guarded_forward import GuardedForward  # noqa: E402
from fxtrt.runtime.stitched_call import StitchedCall, serve  # noqa: E402

_MOST_ERROR, _LEAST_AGREEMENT = 0.05, 0.7
_GPU = torch.cuda.is_available()
_DEVICE = "cuda" if _GPU else "cpu"
_EAGER = "eager fp16" if _GPU else "eager fp32"
_SECONDS_TO_BUILD = {"backbone": 50, "fasterrcnn": 75}
"""The seconds that engines may take. No build is begun with less time left."""


@dataclass(frozen=True)
class Subject:
    """A model in float32 on the GPU, its inputs, and a check that returns the error of outputs."""

    name: str
    model: torch.nn.Module
    inputs: tuple[Any, ...]
    check: Callable[[Any], float]


@dataclass(frozen=True)
class Candidate:
    """A call to measure; slots are 0 for eager, and `streams` gives each thread a stream."""

    name: str
    call: Callable[[], Any]
    slots: int = 0
    streams: bool = True


def main() -> None:
    arguments = parse()
    torch.manual_seed(0)
    # The expected values come from full float32.
    torch.backends.cudnn.allow_tf32 = False
    results = Results(arguments)
    subjects = {"backbone": backbone, "fasterrcnn": detector}
    with torch.no_grad():
        for name in arguments.models:
            subject = subjects[name](arguments.size)
            try:
                for candidate in candidates(subject, arguments, results):
                    measure(subject, candidate, arguments, results)
            except (RuntimeError, FxtrtError) as failure:
                results.note(name, f"failed: {failure}")
    print(show(results.rows))
    print("\n".join(f"{what}: {note}" for what, note in results.notes.items()))
    if arguments.out and results.rows:
        plot(results.rows, folder(arguments) / f"streams_{arguments.label}")


class Results:
    """Keeps rows and notes in a file, together with those of earlier runs with the same options."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.rows: list[Row] = []
        self.notes: dict[str, Any] = {}
        self._path: Path | None = None
        self._head = {
            "machine": this_machine(),
            "engine": select(arguments.engine).features.version,
            "options": {
                "size": list(arguments.size),
                "precision": arguments.precision,
                "optimization_level": arguments.optimization_level,
                "tactic_sources": arguments.tactic_sources,
            },
        }
        if arguments.out:
            self._path = folder(arguments) / f"streams_{arguments.label}.json"
            if self._path.exists() and not arguments.again:
                self._go_on(json.loads(self._path.read_text()))

    def _go_on(self, known: dict[str, Any]) -> None:
        if {name: known.get(name) for name in self._head} != self._head:
            raise SystemExit(f"{self._path} is of another machine or options: --again or --label")
        self.rows = [Row(**row) for row in known["rows"]]
        self.notes = known["notes"]

    def missing(self, subject: Subject, name: str, threads: Sequence[int]) -> list[int]:
        """Return the numbers of threads with which a candidate has not been measured yet."""
        known = {row.case for row in self.rows}
        return [count for count in threads if (subject.name, name, count) not in known]

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self._save()

    def note(self, what: str, note: str) -> None:
        self.notes[what] = note
        self._save()

    def forget(self, what: str) -> None:
        """Drop the note of an earlier run."""
        if self.notes.pop(what, None) is not None:
            self._save()

    def _save(self) -> None:
        if self._path is not None:
            rows = [row.record() for row in self.rows]
            record = {**self._head, "notes": self.notes, "rows": rows}
            # The file is replaced in one step, because a run may be ended at any moment.
            written = self._path.with_suffix(".new")
            written.write_text(json.dumps(record, indent=2) + "\n")
            written.replace(self._path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="within 90 seconds")
    parser.add_argument("--deadline", type=float, help="seconds after which nothing more is begun")
    parser.add_argument("--models", nargs="+", choices=["backbone", "fasterrcnn"])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--slots", type=int, nargs="+")
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    parser.add_argument("--no-inductor", action="store_true", help="leave torch.compile out")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--optimization-level", type=int, default=3, help="of TensorRT's builder")
    parser.add_argument("--tactic-sources", nargs="*", help="names of trt.TacticSource")
    parser.add_argument("--cache-dir", type=Path, help="of plans; by default a new folder")
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--out", type=Path, help="folder for the result files")
    parser.add_argument("--label", default="threads", help="end of the result files' names")
    arguments = parser.parse_args()
    if arguments.models is None:
        arguments.models = ["backbone"] if arguments.quick else ["backbone", "fasterrcnn"]
    if arguments.slots is None:
        arguments.slots = [4, 1] if arguments.quick else [1, 2, 4, 8]
    if arguments.deadline is None:
        arguments.deadline = 80.0 if arguments.quick else float("inf")
    if arguments.cache_dir is None:
        arguments.cache_dir = Path(tempfile.mkdtemp(prefix="fxtrt-bench-"))
    return arguments


def left(arguments: argparse.Namespace) -> float:
    """Return the seconds until the deadline."""
    return float(arguments.deadline - (time.perf_counter() - _START))


def backbone(size: tuple[int, int]) -> Subject:
    """Return a ResNet-50-FPN on a photograph."""
    model = resnet_fpn_backbone(backbone_name="resnet50", weights=None).eval().to(_DEVICE)
    x = torch.nn.functional.interpolate(load_photograph()[None], size).to(_DEVICE)
    calibrate(model, (x,))
    expected = list(model(x).values())

    def check(outputs: Any) -> float:
        error = relative_error(list(outputs.values()), expected)
        if not error < _MOST_ERROR:
            raise RuntimeError(f"the outputs are off by {error:.1e}, more than {_MOST_ERROR}")
        return error

    return Subject("backbone", model, (x,), check)


def detector(size: tuple[int, int]) -> Subject:
    """Return torchvision's Faster R-CNN on a photograph, which it scales to `size` at most."""
    sides = {"min_size": min(size), "max_size": max(size)}
    example = load_example("fasterrcnn_resnet50_fpn", **sides).to(_DEVICE)
    model, inputs = example.model, example.inputs
    (expected,) = model(*inputs)

    def check(outputs: Any) -> float:
        agreement = agreeing_share(outputs[0], expected)
        if not agreement >= _LEAST_AGREEMENT:
            raise RuntimeError(f"only {agreement:.0%} of the best detections are those of eager")
        return 1 - agreement

    return Subject("fasterrcnn", model, inputs, check)


def agreeing_share(actual: dict[str, Any], expected: dict[str, Any], best: int = 30) -> float:
    """Return the share of the best expected detections that the actual ones have too."""
    boxes, labels = expected["boxes"][:best].float(), expected["labels"][:best]
    overlap = box_iou(boxes, actual["boxes"].float())
    same = labels[:, None] == actual["labels"][None]
    return float(((overlap > 0.8) & same).any(1).float().mean())


def candidates(
    subject: Subject, arguments: argparse.Namespace, results: Results
) -> Iterator[Candidate]:
    """Yield all ways to call a model."""
    # Engines are built first, while nothing else disturbs the timing of their kernels.
    fast, name = None, f"{subject.name}, fxtrt"
    if left(arguments) < _SECONDS_TO_BUILD[subject.name]:
        results.note(name, "left out: no time to build")
    else:
        try:
            fast = compile_subject(subject, arguments, results)
        except (RuntimeError, FxtrtError) as failure:
            results.note(name, f"failed: {failure}")
    yield from eager_candidates(subject, arguments, results)
    if fast is not None:
        yield from fxtrt_candidates(subject, fast, arguments, results)


def fxtrt_candidates(
    subject: Subject, fast: torch.nn.Module, arguments: argparse.Namespace, results: Results
) -> Iterator[Candidate]:
    guard = fast.forward
    assert isinstance(guard, GuardedForward)
    for graphs in (False, True) if _GPU else (False,):
        for slots in arguments.slots:
            name = f"fxtrt {arguments.precision}, {slots} slots{', CUDA graphs' if graphs else ''}"
            if not results.missing(subject, name, arguments.threads):
                continue
            call = serve_again(guard, slots, graphs)
            call.slots.each(lambda slot: [fast(*subject.inputs) for _ in range(3)])
            yield Candidate(name, lambda: fast(*subject.inputs), slots)
            if graphs:
                recorded = sum(runner.recorded for runner in call.recorders)
                reasons = "; ".join(call.reasons[:3]) or "nothing"
                note = f"{recorded} recorded; left out: {reasons}"
                results.note(f"{subject.name}, {name}", note)
    slots = max(arguments.slots)
    serve_again(guard, slots, graphs=False)
    name = f"fxtrt {arguments.precision}, {slots} slots, default stream"
    yield Candidate(name, lambda: fast(*subject.inputs), slots, streams=False)


def eager_candidates(
    subject: Subject, arguments: argparse.Namespace, results: Results
) -> Iterator[Candidate]:
    eager = in_half(subject) if _GPU else Eager(subject.model, subject.inputs)
    try:
        subject.check(eager())
    except RuntimeError as error:
        results.note(f"{subject.name}, eager", f"autocast, because in float16: {error}")
        eager = Eager(copy.deepcopy(subject.model), subject.inputs, autocast=True)
    yield Candidate(f"{_EAGER}, default stream", eager, streams=False)
    yield Candidate(f"{_EAGER}, stream per thread", eager)
    name = f"torch.compile {_EAGER.split()[1]}, stream per thread"
    if not arguments.no_inductor and results.missing(subject, name, arguments.threads):
        yield Candidate(name, replace(eager, model=torch.compile(eager.model)))


@dataclass(frozen=True)
class Eager:
    """Calls a model in PyTorch."""

    model: Callable[..., Any]
    inputs: tuple[Any, ...]
    autocast: bool = False

    def __call__(self) -> Any:
        with torch.autocast("cuda", dtype=torch.float16, enabled=self.autocast):
            return self.model(*self.inputs)


def in_half(subject: Subject) -> Eager:
    model = copy.deepcopy(subject.model).half().to(memory_format=torch.channels_last)
    return Eager(model, pytree.tree_map(half_channels_last, subject.inputs))


def serve_again(guard: GuardedForward, slots: int, graphs: bool) -> StitchedCall:
    """Give a compiled model other slots, without compiling it again."""
    (call,) = serve([guard.graph], fxtrt.Settings(slots=slots, cuda_graphs=graphs))
    guard.run = as_graph(call)
    return call


def compile_subject(
    subject: Subject, arguments: argparse.Namespace, results: Results
) -> torch.nn.Module:
    """Compile the model, and return it.

    Raises:
        RuntimeError: its calls do not run in engines.
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
        dynamic_shapes={},
        cache_dir=arguments.cache_dir,
    )
    results.note(f"{subject.name}, fxtrt", f"compiled in {time.perf_counter() - start:.0f} s")
    results.note(f"{subject.name}, report", str(fxtrt.report(fast)).splitlines()[0])
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


def measure(
    subject: Subject, candidate: Candidate, arguments: argparse.Namespace, results: Results
) -> None:
    """Add one row for each number of threads, or none if the outputs are wrong."""
    name = f"{subject.name}, {candidate.name}"
    threads = results.missing(subject, candidate.name, arguments.threads)
    load = Load(0.4 if arguments.quick else 2.0, threads)
    if not threads:
        return
    if left(arguments) < len(threads) * load.seconds * 2:
        results.note(name, "left out: the time was over")
        return
    try:
        error = subject.check(candidate.call())
        first = Row(subject.name, candidate.name, candidate.slots, error)
        for row in load.rows(first, candidate.call, candidate.streams):
            results.add(row)
    except (RuntimeError, FxtrtError) as failure:
        # The other candidates can still be measured.
        results.note(name, f"failed: {failure}")
    else:
        results.forget(name)


@cache
def this_machine() -> dict[str, str]:
    return machine()


def folder(arguments: argparse.Namespace) -> Path:
    path: Path = arguments.out / this_machine().get("gpu", "cpu").replace(" ", "-")
    path.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    main()
