"""Measures the highest rate of requests that a GPU answers in time, for eager and for fxtrt.

    python benchmarks/bench_serving.py --model faster --precision fp16 --cases main eager slots \\
        --cache-dir build/serving --deadline 540 --out benchmarks/results

Requests come at random moments (Poisson) and never wait for answers. The rate is raised until the
99th percentile of the latency is above `--p99`, requests are refused, or the answers fall behind;
then rates in between are tried. A latency counts from the moment when its request was due. Answers
are compared with eager in float32 before anything is measured, and some of each rate afterwards.
`--witness` lets MLPerf's own load generator judge the best rate of each case in the process, where
mlcommons-loadgen is installed.

The result file is written after each case, and what it has is not measured again: a run that
`--deadline` ends is resumed by the next one. Without a GPU everything runs on the CPU, which only
shows that the script works:

    python benchmarks/bench_serving.py --model tv-ssd --size 320 320 --engine reference \\
        --cases main --p99 5 --seconds 10
"""

from __future__ import annotations

import time

_START = time.perf_counter()  # It counts the imports, which come after it.

import argparse
import gc
import math
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from bench_detectors import add_engine_options, options_of
from detection_match import agreement
from detector_cases import CASES as DETECTORS
from detector_cases import Case
from detector_sides import make_side, without_tf32
from loadgen_witness import witness
from power_meter import find_meter
from result_file import ResultFile, folder_of_gpu, setup_of, source_digest
from serving_cases import CASES, GROUPS, ServingCase, cases_of
from serving_images import FromPixels, Sent, numbers_of, sent_images
from serving_prediction import predictions
from serving_report import headline, plot, show
from serving_ways import Way, open_way

import fxtrt
from fxtrt.serving.load import Measured, highest_rate, shortest_load

__all__ = ["KEY", "Subject", "measure_cases"]

KEY = ("model", "case")
_IMAGES = 4
_KEPT_ANSWERS = 16
_ALONE = 5
"""The requests, one after the other, whose latency gives the first rate to try."""
_CASE_SECONDS = 60.0
"""The seconds without which no case is begun, besides those of its rates."""


def main() -> None:
    arguments = parse()
    results = ResultFile(folder_of_gpu(arguments.out) / f"{arguments.label}.json", KEY)
    fixed = {name: getattr(arguments, name) for name in ("size", "p99", "seconds", "eager")}
    setup = setup_of(arguments.engine, options_of(arguments), **fixed)
    measure_cases(DETECTORS[arguments.model], arguments, results, setup)
    rows = results.rows_of(setup)
    print(show(rows))
    print(headline(rows, arguments.p99))
    plot(rows, results.path.with_suffix(""), arguments.p99)


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="faster", choices=list(DETECTORS))
    parser.add_argument("--cases", nargs="+", default=["main"], choices=[*GROUPS, *CASES])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"))
    parser.add_argument("--p99", type=float, default=0.05, help="the bound in seconds")
    parser.add_argument("--seconds", type=float, help="of each rate; 5, or 20 times p99")
    parser.add_argument("--fewest", type=int, default=200, help="requests of each rate at least")
    parser.add_argument("--points", type=int, default=12, help="the most rates of a case")
    gpu = torch.cuda.is_available()
    parser.add_argument("--eager", default="eager-autocast" if gpu else "eager-tf32")
    parser.add_argument("--least-agreement", type=float, default=0.9)
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds of this run")
    parser.add_argument("--cache-dir", type=Path, help="keeps the compiled file for later runs")
    parser.add_argument("--witness", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--label", default="serving", help="name of the result file")
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    add_engine_options(parser)
    arguments = parser.parse_args(given)
    if arguments.seconds is None:
        arguments.seconds = max(5.0, shortest_load(arguments.p99))
    if arguments.cache_dir is None:
        arguments.cache_dir = Path(tempfile.mkdtemp(prefix="fxtrt-serving-"))
    return arguments


def measure_cases(
    detector: Case, arguments: argparse.Namespace, results: ResultFile, setup: Mapping[str, Any]
) -> None:
    """Measure the cases that the results lack, as long as there is time."""
    subject = None
    for case in cases_of(arguments.cases):
        row: dict[str, Any] = {"model": detector.key, "case": case.key}
        if not arguments.again and results.has(setup, row):
            continue
        needed = _CASE_SECONDS + arguments.points * (arguments.seconds + 1)
        if time.perf_counter() - _START + needed > arguments.deadline:
            print(f"{case.key} and what follows is left out: the time was over", flush=True)
            return
        if subject is None:
            subject = Subject(detector, arguments)
        try:
            row |= subject.measured(case)
        except Exception as error:  # The other cases are measured all the same.
            traceback.print_exc()
            row["problem"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        results.add(setup, row)
        print(show([row]).splitlines()[-1], flush=True)


class Subject:
    """A detector with its images, and what eager in float32 answers."""

    def __init__(self, detector: Case, arguments: argparse.Namespace) -> None:
        self._detector, self._arguments = detector, arguments
        self._device = torch.device("cuda") if torch.cuda.is_available() else None
        self._size = tuple(arguments.size)
        self._built = detector.build(self._size, "cpu" if self._device is None else "cuda")
        self._meter = find_meter()
        self._forms: dict[str, tuple[Sent, list[Any], tuple[int, int]]] = {}

    def measured(self, case: ServingCase) -> dict[str, Any]:
        """Return the rates of a case, or what is wrong with it."""
        sent, expected, original = self._form(case.form)
        with torch.no_grad():
            made, close = self._model(case)
            model = FromPixels(made, self._detector.package, original)
            self._warm(model, case, sent)
            try:
                with open_way(case, model, sent, self._device) as way:
                    return self._rates(case, model, way, sent, expected)
            finally:
                close()
                del made, model
                gc.collect()
                if self._device is not None:
                    torch.cuda.empty_cache()

    def _form(self, form: str) -> tuple[Sent, list[Any], tuple[int, int]]:
        if form not in self._forms:
            sent, original = sent_images(self._detector, self._size, form, _IMAGES, self._device)
            model = FromPixels(self._built.model, self._detector.package, original)
            with torch.no_grad(), without_tf32():
                answers = [numbers_of(model([self._moved(one)])[0]) for one in sent.pixels]
            self._forms[form] = sent, answers, original
        return self._forms[form]

    def _moved(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels if self._device is None else pixels.to(self._device)

    def _model(self, case: ServingCase) -> tuple[Any, Callable[[], None]]:
        """Return what runs the model, and what puts back what making it changed."""
        if case.side != "fxtrt":
            name = self._arguments.eager if case.side == "eager" else case.side
            side = make_side(name, self._built, case.max_batch, options_of(self._arguments), False)
            return side.call, side.close
        path = self._file()
        return fxtrt.load(path, slots=case.workers, cuda_graphs=case.graphs), lambda: None

    def _file(self) -> Path:
        """Return a file that serves alone; it is made once for a source, model and options."""
        options = options_of(self._arguments)
        words = [source_digest(), self._detector.key, *map(str, self._size)]
        words += [f"{name}={value}" for name, value in sorted(options.items())]
        name = "".join(c if c.isalnum() or c in "=._" else "-" for c in "-".join(words))
        folder: Path = self._arguments.cache_dir
        path = folder / f"{name}.fxtrt"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            given = {"cache_dir": folder / "plans", **options}
            compiled = fxtrt.compile(self._built.model, (self._built.batch(1),), **given)
            fxtrt.save(compiled, path, weights=True)
        return path

    def _warm(self, model: FromPixels, case: ServingCase, sent: Sent) -> None:
        """Run every size of a batch, so that no request waits for what happens once."""
        images = [self._moved(one) for one in sent.pixels]
        for count in range(1, case.max_batch + 1):
            batch = [images[i % len(images)] for i in range(count)]
            if case.side == "fxtrt":
                fxtrt.warm_up(cast(torch.nn.Module, model.model), (model.inputs(batch),))
            else:
                model(batch)

    def _rates(
        self, case: ServingCase, model: FromPixels, way: Way, sent: Sent, expected: list[Any]
    ) -> dict[str, Any]:
        answers = [way.ask(payload) for payload in sent.payloads]
        share = self._share(answers, expected)
        row: dict[str, Any] = {"agreement": share}
        if share < self._arguments.least_agreement:
            return row | {"problem": f"only {share:.1%} of the detections are those of eager"}
        began = time.perf_counter()
        for number in range(_ALONE):
            way.ask(sent.payloads[number % len(sent.payloads)])
        alone = (time.perf_counter() - began) / _ALONE
        points: dict[float, dict[str, Any]] = {}
        sweep = highest_rate(
            lambda rate: self._point(way, rate, expected, points),
            0.5 / alone,
            self._arguments.p99,
            step=1.4,
            most_points=self._arguments.points,
        )
        row |= {"alone_ms": 1e3 * alone, "best": sweep.best.rate if sweep.best else 0.0}
        row["points"] = [points[point.rate] for point in sweep.points]
        if all(point.collapse(sweep.p99) is None for point in sweep.points):
            row["problem"] = "no rate was too much: the best is at least this, allow more --points"
        if missing := self._meter.missing:
            row["power_missing"] = missing
        if way.server is not None and not case.http and case.form != "jpeg":
            each = self._arguments.seconds / 8
            settings = way.server.settings
            row |= predictions(model, sent.pixels, settings, sweep, self._device, each)
        if self._arguments.witness and way.submit is not None and sweep.best is not None:
            rate, p99 = 0.9 * sweep.best.rate, self._arguments.p99
            row["witness"] = witness(way.submit, sent.payloads, rate, p99=p99, seconds=10.0)
        return row

    def _share(self, answers: Sequence[Any], expected: Sequence[Any]) -> float:
        return agreement([numbers_of(answer) for answer in answers], expected).share

    def _point(
        self, way: Way, rate: float, expected: list[Any], points: dict[float, dict[str, Any]]
    ) -> Measured:
        """Measure one rate, and note it in `points`."""
        seconds = min(20.0, max(self._arguments.seconds, self._arguments.fewest / rate))
        before = way.waited(), way.counted.images, way.counted.calls
        with self._meter.running() as readings:
            found = way.measure(rate, seconds, _KEPT_ANSWERS)
        images, calls = way.counted.images - before[1], way.counted.calls - before[2]
        point = {
            "rate": rate,
            "sent": found.sent,
            "throughput": found.throughput,
            **{f"p{p}_ms": 1e3 * found.percentile(p / 100) for p in (50, 95, 99)},
            "queue_ms": _queue_ms(before[0], way.waited()),
            "batch": images / max(1, calls),
            "refused": found.refused,
            "failed": found.failed,
            "late_ms": 1e3 * found.late,
            "collapse": found.collapse(self._arguments.p99),
            **readings.record(),
        }
        if found.answers:
            numbers, answers = zip(*found.answers, strict=True)
            share = self._share(answers, [expected[number] for number in numbers])
            if share < self._arguments.least_agreement:
                raise RuntimeError(f"under load only {share:.1%} of the detections are eager's")
        points[rate] = {k: v if v != math.inf else None for k, v in point.items()}
        return found


def _queue_ms(before: tuple[float, int] | None, after: tuple[float, int] | None) -> float | None:
    """Return the mean time of a request in the queue; None where nothing counts it."""
    if before is None or after is None or after[1] == before[1]:
        return None
    return 1e3 * (after[0] - before[0]) / (after[1] - before[1])


if __name__ == "__main__":
    main()
