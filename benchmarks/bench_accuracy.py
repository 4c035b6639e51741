"""Measures the box AP of trained detectors in each precision, and what a call costs.

    python benchmarks/train_shapes.py --architecture faster_rcnn_R_50_FPN --device cuda \\
        --out build/shapes/faster_rcnn_R_50_FPN
    python benchmarks/bench_accuracy.py build/shapes/* --precisions fp32 fp16 int8 --batch 1 8 \\
        --out benchmarks/results

The first row of a detector is eager in float32. The agreement of the others is with its answers.
INT8 is calibrated with pictures that are neither trained nor judged with. The result file is
written after each row, and what it has is not measured again unless `--again` says so.

Without a GPU everything runs on the CPU; its times say nothing of TensorRT:

    python benchmarks/train_shapes.py --out build/shapes/small
    python benchmarks/bench_accuracy.py build/shapes/small --engine reference
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from bench_detectors import add_engine_options, options_of
from detector_sides import without_tf32
from detector_timing import Plan, coverage_of, measure
from result_file import ResultFile, folder_of_gpu, setup_of
from shape_pictures import generate
from tabulate import tabulate
from train_shapes import Trained, load_trained
from typing_extensions import Self

import fxtrt
from fxtrt.accuracy import agreement, box_ap
from fxtrt.errors import SettingsError

__all__ = ["KEY", "measure_detector", "show"]

KEY = ("detector", "precision")
_EAGER = "eager"


def main() -> None:
    arguments = _parser().parse_args()
    results = ResultFile(folder_of_gpu(arguments.out) / f"{arguments.label}.json", KEY)
    setup = setup_of(arguments.engine, options_of(arguments), batch=arguments.batch)
    for folder in arguments.detectors:
        measure_detector(folder, arguments, results, setup)
    print(show(results.rows_of(setup)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("detectors", type=Path, nargs="+", help="folders of train_shapes.py")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "int8"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--calibration", type=int, default=64, help="pictures for INT8")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement of time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--label", default="accuracy", help="name of the result file")
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    add_engine_options(parser)
    return parser


def measure_detector(
    folder: Path, arguments: argparse.Namespace, results: ResultFile, setup: Mapping[str, Any]
) -> None:
    """Add a row for each precision of a detector that the results lack."""
    rows = [{"detector": folder.name, "precision": p} for p in (_EAGER, *arguments.precisions)]
    missing = [row for row in rows if arguments.again or not results.has(setup, row)]
    if not missing:
        return
    subject = _Subject.of(folder)
    for row in missing:
        try:
            row |= _measured(subject, row["precision"], arguments)
        except Exception as error:  # The other precisions are measured all the same.
            traceback.print_exc()
            row["problem"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        results.add(setup, row)
        print("  ".join(filter(None, _cells(row))), flush=True)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A trained detector on its device, and what eager in float32 answers for its pictures."""

    trained: Trained
    device: str
    expected: Sequence[Any]

    @classmethod
    def of(cls, folder: Path) -> Self:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        trained = load_trained(folder, device)
        with without_tf32():
            return cls(trained, device, _answers(trained, trained.model, device))

    def batch(self, count: int) -> list[Any]:
        """Return this many pictures as the model takes them."""
        pictures = [self.trained.pictures[i % len(self.trained.pictures)] for i in range(count)]
        return self.trained.architecture.inputs(pictures, self.device)

    def calibration(self, count: int) -> Iterator[tuple[list[Any]]]:
        """Yield arguments of the model with pictures that serve for nothing else."""
        architecture, seed = self.trained.architecture, self.trained.seed
        for picture in generate(architecture.task, count, seed=seed + 2):
            yield (architecture.inputs([picture], self.device),)


def _answers(trained: Trained, call: Callable[[Any], Any], device: str) -> list[Any]:
    inputs = trained.architecture.inputs(trained.pictures, device)
    with torch.no_grad():
        return [call([image])[0] for image in inputs]


def _measured(subject: _Subject, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    call = _call(subject, precision, arguments)
    row: dict[str, Any] = {"compile_seconds": time.perf_counter() - started}
    trained = subject.trained
    with without_tf32():
        found = _answers(trained, call, subject.device)
    row["box_ap"] = box_ap(found, trained.architecture.truth(trained.pictures))
    row["agreement"] = agreement(found, subject.expected)
    row["ms"] = {}
    for count in arguments.batch:
        with torch.no_grad():
            times = measure(call, subject.batch(count), Plan(arguments.seconds))
        row["ms"][str(count)] = times["ms_per_image"] * count
    if isinstance(call, torch.nn.Module) and precision != _EAGER:
        row["coverage"] = coverage_of(call)
    return row


def _call(subject: _Subject, precision: str, arguments: argparse.Namespace) -> Callable[[Any], Any]:
    """Return the model as it is, or compiled with the precision."""
    if precision == _EAGER:
        return subject.trained.model
    options: dict[str, Any] = {
        "most_images": max(arguments.batch),
        **options_of(arguments),
        "precision": precision,
    }
    if precision == "int8":
        if "calibration" not in signature(fxtrt.compile).parameters:
            raise SettingsError("this version of fxtrt cannot calibrate: it has no INT8")
        options["calibration"] = subject.calibration(arguments.calibration)
    return fxtrt.compile(subject.trained.model, (subject.batch(1),), **options)


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    headers = ["detector", "precision", "box AP", "agreement", "ms of a call by images"]
    return tabulate(
        [_cells(row) for row in rows], headers=[*headers, "problem"], disable_numparse=True
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    numbers = (row.get(name) for name in ("box_ap", "agreement"))
    times = (f"{count}: {ms:.2f}" for count, ms in row.get("ms", {}).items())
    return [
        *(row["detector"], row["precision"]),
        *("" if number is None else f"{number:.4f}" for number in numbers),
        *(", ".join(times), row.get("problem", "")[:80]),
    ]


if __name__ == "__main__":
    main()
