"""Times detectors from images to detections: eager, torch.compile and fxtrt.

    python benchmarks/bench_detectors.py --family faster mask --batch 1 8 --precision fp16 \\
        --sides eager fxtrt --out benchmarks/results

All sides run in one process on the same images, and the answers of each are compared with eager in
float32 before anything is timed; a side that differs too much is not timed. Every time has one wait
for the GPU in it, at the end of the call. The result file is written after each measurement, and
what it has is not measured again, unless the source or the setup differ or `--again` says so:
several short runs make one file. `--merge FILE ...` adds the rows of other files.

Without a GPU everything runs on the CPU, which only shows that the script works:

    python benchmarks/bench_detectors.py --engine reference --family tv-ssd --size 320 320 \\
        --sides eager-tf32 fxtrt-fixed --batch 1 --seconds 1
"""

from __future__ import annotations

import argparse
import gc
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from detection_match import agreement
from detector_cases import CASES, Built, Case
from detector_sides import GROUPS, SIDES, Side, make_side, sides_of, without_tf32
from detector_timing import Memory, Plan, coverage_of, measure, threads
from result_file import ResultFile, folder_of_gpu, setup_of
from tabulate import tabulate

__all__ = ["KEY", "measure_case", "show"]

KEY = ("family", "side", "batch")
_MADE_ANEW = ("fxtrt-fixed", "inductor", "inductor-reduce-overhead")
"""The sides that are made for each number of images; the others take any."""


def main() -> None:
    arguments = _parser().parse_args()
    results = ResultFile(folder_of_gpu(arguments.out) / f"{arguments.label}.json", KEY)
    for path in arguments.merge:
        results.merge(path)
    setup = setup_of(arguments.engine, options_of(arguments), size=arguments.size)
    for key in arguments.family:
        measure_case(CASES[key], arguments, results, setup)
    print(show(results.rows_of(setup)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", nargs="*", default=["faster"], choices=list(CASES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sides", nargs="+", default=["eager", "fxtrt"], choices=[*GROUPS, *SIDES])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 4], help="at batch 1")
    parser.add_argument("--no-starts", action="store_true", help="time no second start")
    parser.add_argument("--least-agreement", type=float, default=0.9, help="of what is timed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--label", default="detectors", help="name of the result file")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="files to join first")
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    add_engine_options(parser)
    return parser


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what `options_of` reads."""
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", help="inside engines; the model's own by default")
    parser.add_argument("--optimization-level", type=int, help="of TensorRT's builder, 0 to 5")
    parser.add_argument("--tactic-sources", nargs="*", help="names of trt.TacticSource")
    parser.add_argument("--most-images", type=int, help="that a core takes at once")


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `fxtrt.compile` that the command line gives."""
    names = ("engine", "precision", "optimization_level", "tactic_sources", "most_images")
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def measure_case(
    case: Case, arguments: argparse.Namespace, results: ResultFile, setup: Mapping[str, Any]
) -> None:
    """Measure all sides of a detector that the results lack."""
    rows = [
        {"family": case.key, "side": side, "batch": batch}
        for side in sides_of(arguments.sides)
        for batch in arguments.batch
    ]
    missing = [row for row in rows if arguments.again or not results.has(setup, row)]
    if not missing:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    built = case.build(tuple(arguments.size), device)
    subject = _Subject(built, _expected(built, arguments.batch), arguments)
    for row in missing:
        try:
            row |= subject.measured(row["side"], row["batch"])
        except Exception as error:  # The other sides are measured all the same.
            traceback.print_exc()
            row["problem"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        results.add(setup, row)
        print(_line(row), flush=True)
    subject.forget()


class _Subject:
    """A detector, what eager in float32 answers, and the side that was made last."""

    def __init__(
        self, built: Built, expected: Mapping[int, Any], arguments: argparse.Namespace
    ) -> None:
        self._built, self._expected, self._arguments = built, expected, arguments
        self._made: tuple[Any, Side] | None = None
        self._memory = Memory()

    def measured(self, name: str, batch: int) -> dict[str, Any]:
        """Return the measurements of a side for batches of this many images."""
        side = self._side(name, batch)
        found = _measured(side, self._built.batch(batch), self._expected[batch], self._arguments)
        return {**found, **self._memory.used()}

    def forget(self) -> None:
        """Free what the last side holds."""
        if self._made is not None:
            self._made[1].close()
        self._made = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _side(self, name: str, batch: int) -> Side:
        count = _made_for(name, batch, self._arguments.batch)
        if self._made is None or self._made[0] != (name, count):
            self.forget()
            self._memory = Memory()
            options, starts = options_of(self._arguments), not self._arguments.no_starts
            self._made = (name, count), make_side(name, self._built, count, options, starts)
        return self._made[1]


def _made_for(name: str, batch: int, batches: Sequence[int]) -> int:
    """Return the number of images of the example: one, where the side takes other numbers too."""
    return batch if name in _MADE_ANEW else min(batches)


def _expected(built: Built, batches: Sequence[int]) -> dict[int, Any]:
    """Return the answers of eager in float32 by the number of images, one image at a time."""
    with torch.no_grad(), without_tf32():
        answers = [built.model([image])[0] for image in built.batch(max(batches))]
    return {count: answers[:count] for count in batches}


def _measured(
    side: Side, batch: Any, expected: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    agrees = agreement(side.call(batch), expected)
    row: dict[str, Any] = {"seconds": side.seconds, "agreement": asdict(agrees)}
    if agrees.share >= arguments.least_agreement:
        plan = Plan(arguments.seconds, tuple(arguments.threads))
        row |= measure(side.call, batch, plan)
        if len(batch) == 1 and plan.threads:
            row |= _threads(side, batch, plan)
    else:
        row["problem"] = f"only {agrees.share:.1%} of the detections are those of eager"
    if side.compiled is not None:
        row["coverage"] = coverage_of(side.compiled)
    return row


def _threads(side: Side, batch: Any, plan: Plan) -> dict[str, Any]:
    try:
        return {"threads": threads(side.call, batch, plan)}
    except RuntimeError as error:  # What one thread measured holds all the same.
        return {"problem": f"with several threads: {' '.join(str(error).split())}"}


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    headers = [
        *("family", "side", "batch", "ms/image", "p95", "images/s", "busy ms", "busy", "kernels"),
        *("waits", "4 threads", "FLOPs", "agree", "cold s", "cached", "load", "MB", "problem"),
    ]
    return tabulate([_cells(row) for row in rows], headers=headers, disable_numparse=True)


def _cells(row: Mapping[str, Any]) -> list[str]:
    coverage, seconds = row.get("coverage", {}), row.get("seconds", {})
    memory_mb = row.get("torch_peak_mb", 0.0) + row.get("other_mb", 0.0)
    return [
        *(row["family"], row["side"], str(row["batch"])),
        *(_number(row.get(k), 2) for k in ("ms_per_image", "p95_ms_per_image")),
        *(_number(row.get("images_per_second"), 0), _number(row.get("gpu_busy_ms_per_image"), 2)),
        _number(row.get("gpu_busy_share"), 2),
        *(_number(row.get(k), 0) for k in ("kernels", "host_waits")),
        _number(row.get("threads", {}).get("4"), 0),
        *(_number(v, 3) for v in (coverage.get("flops_share"), _share(row))),
        _number(seconds.get("cold", seconds.get("first_call")), 1),
        *(_number(seconds.get(k), 1) for k in ("cached", "load")),
        *(_number(memory_mb or None, 0), row.get("problem", "")[:60]),
    ]


def _share(row: Mapping[str, Any]) -> float | None:
    agrees: Mapping[str, float] = row.get("agreement", {})
    return agrees.get("share")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _line(row: Mapping[str, Any]) -> str:
    return "  ".join(cell for cell in _cells(row) if cell)


if __name__ == "__main__":
    main()
