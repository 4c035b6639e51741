"""Times the stages of a detector's call, beside the floor of their FLOPs and bytes.

    python benchmarks/detector_stages.py --family faster --batch 1 8 --precision fp16 \\
        --out benchmarks/results

The graph runs node by node in ranges of PyTorch's profiler, and the GPU's work belongs to the range
in which it was launched. So a stage's time is that of its kernels, without gaps between them; what
the whole call takes, as users make it, is measured beside it. The floor of a stage is the larger of
its FLOPs at the GPU's peak and of its bytes at the memory's bandwidth.
`python benchmarks/performance_table.py` writes the tables and plots of the documents.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench_detectors import add_engine_options, options_of
from detector_cases import CASES, Built
from detector_timing import Plan, measure
from gpu_trace import CALL, by_range, trace_of
from result_file import ResultFile, folder_of_gpu, setup_of
from stage_costs import AFTER, BEFORE, GPUS, REST, STAGES, Cost, CostObserver, RangeObserver
from tabulate import tabulate
from torch import nn

import fxtrt
from fxtrt.detection.host_steps import CallSteps
from fxtrt.lowering.outcome import outcome_of
from fxtrt.runtime.stitched_call import StitchedCall

__all__ = ["KEY", "main", "measure_stages"]

KEY = ("family", "batch")
_CALLS = 5


def main() -> None:
    arguments = _parser().parse_args()
    results = ResultFile(folder_of_gpu(arguments.out) / "detector_stages.json", KEY)
    setup = setup_of(arguments.engine, options_of(arguments), size=arguments.size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for family in arguments.family:
        built = CASES[family].build(tuple(arguments.size), device)
        fast = fxtrt.compile(built.model, (built.batch(1),), **options_of(arguments))
        for batch in arguments.batch:
            half = arguments.precision in ("fp16", "bf16")
            row = measure_stages(built, fast, batch, Plan(arguments.seconds), half)
            results.add(setup, {"family": family, "batch": batch, **row})
            print(f"{family}, batch {batch}\n{_table(row)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", nargs="+", default=["faster", "mask"], choices=list(CASES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed calls")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    add_engine_options(parser)
    return parser


def measure_stages(
    built: Built, fast: nn.Module, count: int, plan: Plan, half: bool
) -> dict[str, Any]:
    """Return the stages of one call with `count` images, and the times of the whole.

    Raises:
        ValueError: the detector was not captured as one graph, so that it has no stages.
    """
    call, steps = _graph_of(fast)
    batch = built.batch(count)
    with torch.no_grad():
        whole = measure(fast, batch, plan)
        costs = CostObserver(call.graph.graph, half)
        with call.observe(costs):
            fast(batch)
        with call.observe(RangeObserver(call.graph.graph)), _in_ranges(steps):
            times = by_range(trace_of(lambda: fast(batch), _CALLS), (*STAGES, CALL))
    times[REST] = times.pop(CALL, (0.0, 0.0))
    gpu = GPUS.get(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    stages = []
    for name in STAGES:
        cost = costs.costs.get(name, Cost())
        ms, kernels = times.get(name, (0.0, 0.0))
        if kernels or cost.bytes or cost.flops:
            stages.append(
                {
                    "stage": name,
                    "ms": ms,
                    "kernels": kernels,
                    "gflops": cost.flops / 1e9,
                    "mb": cost.bytes / 1e6,
                    "floor_ms": gpu.floor_ms(cost) if gpu else None,
                }
            )
    return {**whole, "stages": stages}


def _graph_of(fast: nn.Module) -> tuple[StitchedCall, CallSteps | None]:
    outcome = outcome_of(fast)
    calls = [] if outcome is None else [part.call for part in outcome.reported]
    if outcome is None or len(calls) != 1 or calls[0] is None:
        raise ValueError(f"the detector has {len(calls)} graphs, expected one")
    return calls[0], outcome.captured.parts[0].steps


@contextmanager
def _in_ranges(steps: CallSteps | None) -> Iterator[None]:
    """Put the host steps into ranges while the block runs."""
    if steps is None:
        yield
        return
    with (
        patch.object(steps, "before", _ranged(BEFORE, steps.before)),
        patch.object(steps, "after", _ranged(AFTER, steps.after)),
    ):
        yield


def _ranged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def ranged(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(name):
            return function(*args, **kwargs)

    return ranged


def _table(row: Mapping[str, Any]) -> str:
    stages: Sequence[Mapping[str, Any]] = row["stages"]
    cells = [
        [
            *(s["stage"], f"{s['ms']:.3f}", f"{s['kernels']:.0f}", f"{s['gflops']:.1f}"),
            *(f"{s['mb']:.1f}", "" if s["floor_ms"] is None else f"{s['floor_ms']:.3f}"),
        ]
        for s in stages
    ]
    return tabulate(cells, ["stage", "ms", "kernels", "GFLOP", "MB", "floor ms"])


if __name__ == "__main__":
    main()
