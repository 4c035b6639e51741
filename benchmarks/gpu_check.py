"""Holds every documented example that compiles a detector to its bars, with real detectors.

    python benchmarks/gpu_check.py --family faster mask --optimization-level 0
    python benchmarks/gpu_check.py                      # all families, an hour from nothing

It runs the code of the documents with their defaults; the options of the command line are those
that a machine needs, such as the tactic sources that its TensorRT has. What the result file has of
the same source, machine and options is not run again (unless `--again` says so), so that several
short runs make one file; `--merge FILE ...` adds the rows of other files. The exit status is 1 if
any row misses a bar of gpu_bars.json, also one of an earlier run, and with `--all` if an example
has not run at all. `--read FILE` runs nothing, and judges what a file has of all setups.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_detectors import add_engine_options, options_of
from detection_match import agreement
from detector_cases import CASES, Built, Case
from detector_sides import without_tf32
from detector_timing import Plan, coverage_of, measure
from documented_detectors import EXAMPLES, Example, run_example
from gpu_bars import Bars, read_bars
from result_file import ResultFile, folder_of_gpu, setup_of
from tabulate import tabulate

__all__ = ["KEY", "check", "main", "report"]

KEY = ("family", "example")
_OTHER_SIZES = ((640, 480), (480, 640))


def main(given: Sequence[str] | None = None) -> int:
    """Run what is missing, print a table, and return the exit status."""
    arguments = _parser().parse_args(given)
    bars = read_bars(arguments.bars)
    if arguments.read:
        known = ResultFile(arguments.read, KEY)
        failures = [_judge(known, setup, bars) for setup in known.setups]
        return int(any(failures))
    results = ResultFile(folder_of_gpu(arguments.out) / "gpu_check.json", KEY)
    for path in arguments.merge:
        results.merge(path)
    setup = setup_of(arguments.engine, options_of(arguments), size=arguments.size)
    for family in arguments.family:
        _run_family(CASES[family], arguments, results, setup)
    failed = _judge(results, setup, bars)
    missing = [key for key in _wanted() if not results.has(setup, dict(zip(KEY, key, strict=True)))]
    if missing:
        print(f"not run yet: {', '.join(' '.join(key) for key in missing)}")
    return int(failed or (arguments.all and bool(missing)))


def _judge(results: ResultFile, setup: Mapping[str, Any], bars: Bars) -> bool:
    """Print the rows of a setup with the bars that they miss; return whether any misses one."""
    options = setup["options"]
    text, failed = report(results.rows_of(setup), bars, setup["machine"].get("gpu"), options)
    print(f"{setup['machine'].get('gpu', 'a CPU')}, {options}\n{text}")
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    families = list(dict.fromkeys(family for family, _ in _wanted()))
    parser.add_argument("--family", nargs="*", default=families, choices=families)
    parser.add_argument("--example", nargs="*", default=[e.key for e in EXAMPLES])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed calls")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--bars", type=Path, default=Path(__file__).with_name("gpu_bars.json"))
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="files to join first")
    parser.add_argument("--read", type=Path, help="judge this file, and run nothing")
    parser.add_argument("--again", action="store_true", help="run what the file has, too")
    parser.add_argument("--all", action="store_true", help="fail if an example has not run")
    add_engine_options(parser)
    return parser


def _wanted() -> Iterator[tuple[str, str]]:
    for example in EXAMPLES:
        for family in example.families:
            yield family, example.key


def _run_family(
    case: Case, arguments: argparse.Namespace, results: ResultFile, setup: Mapping[str, Any]
) -> None:
    for example in EXAMPLES:
        if case.key not in example.families or example.key not in arguments.example:
            continue
        known = results.has(setup, {"family": case.key, "example": example.key})
        if known and not arguments.again:
            continue
        plan = Plan(arguments.seconds)
        row = check(case, example, tuple(arguments.size), options_of(arguments), plan)
        results.add(setup, row)
        print(f"{case.key} {example.key}: {row['seconds']:.0f} s", flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def check(
    case: Case,
    example: Example,
    size: tuple[int, int],
    options: Mapping[str, Any],
    plan: Plan,
    other_sizes: Sequence[tuple[int, int]] = _OTHER_SIZES,
) -> dict[str, Any]:
    """Run an example with a detector, and return what was measured; "problem" if it failed.

    The seconds are those of the example alone.
    """
    row: dict[str, Any] = {"family": case.key, "example": example.key, "seconds": float("nan")}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        built = case.build(size, device)
        start = time.perf_counter()
        names = run_example(example, case, built, options)
        row["seconds"] = time.perf_counter() - start
        row |= _measured(built, names["fast"], plan)
        if example.other_sizes:
            _call_other_sizes(case, names["fast"], other_sizes, device)
        row |= _coverage(names["fast"])
    except Exception as error:  # The other examples run all the same.
        traceback.print_exc()
        row["problem"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return row


def _measured(built: Built, fast: Any, plan: Plan) -> dict[str, Any]:
    batch = built.batch(1)
    with torch.no_grad():
        with without_tf32():
            expected = built.model(batch)
        agrees = agreement(fast(batch), expected)
        row = measure(fast, batch, plan)
    return {"agreement": agrees.share, "compared": agrees.compared, "pixels": agrees.pixels, **row}


def _call_other_sizes(case: Case, fast: Any, sizes: Sequence[tuple[int, int]], device: str) -> None:
    """Call the detector with other sizes and two images; its report counts what falls back."""
    with torch.no_grad():
        for size in sizes:
            fast(case.images(2, size, device))


def _coverage(fast: Any) -> dict[str, Any]:
    found = dict(coverage_of(fast))
    reasons = found.pop("fallbacks")
    return {**found, "reasons": reasons, "fallbacks": sum(calls for _, calls in reasons)}


def report(
    rows: Sequence[Mapping[str, Any]],
    bars: Bars,
    gpu: str | None,
    options: Mapping[str, Any] | None = None,
) -> tuple[str, bool]:
    """Return a table of the rows with the bars that they miss, and whether any misses one."""
    lines, failed = [], False
    for row in rows:
        missed = bars.missed(row, gpu, options)
        failed |= bool(missed)
        numbers = [
            *(_number(row.get("seconds"), 0), _number(row.get("flops_share"), 3)),
            *(_number(row.get("agreement"), 3), _number(row.get("ms_per_image"), 2)),
            *(_number(row.get("host_waits"), 1), _number(row.get("fallbacks"), 0)),
        ]
        lines.append([row["family"], row["example"], *numbers, "; ".join(missed) or "kept"])
    headers = ["family", "example", "s", "FLOPs", "agree", "ms", "waits", "fallbacks", "bars"]
    return tabulate(lines, headers=headers, disable_numparse=True), failed


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
