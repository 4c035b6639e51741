"""Times how long a detector takes to start: without plans, and with all of them in the cache.

    python benchmarks/bench_start.py --engine tensorrt --out benchmarks/results

Each start is a process of its own that imports torch, compiles torchvision's Faster R-CNN and calls
it once. The second finds the plans of the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tabulate import tabulate


def main() -> None:
    arguments = parse()
    if arguments.cache_dir:
        print(json.dumps(start(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        starts = {name: in_new_process(folder) for name in ("no plans", "all plans cached")}
    rows = [
        [name, *(f"{value:.2f}" for value in timed["s"].values())] for name, timed in starts.items()
    ]
    print(tabulate(rows, headers=["seconds", *starts["no plans"]["s"]], disable_numparse=True))
    print(*(f"{name}: {timed['engines']}" for name, timed in starts.items()), sep="\n")
    if arguments.out:
        gpu = starts["no plans"]["machine"].get("gpu", "cpu").replace(" ", "-")
        path = arguments.out / gpu / "start_faster_rcnn.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(starts, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--optimization-level", type=int, default=3)
    parser.add_argument("--tactic-sources", nargs="*")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"))
    parser.add_argument("--out", type=Path, help="folder for the results, one below it per GPU")
    parser.add_argument("--cache-dir", help="start once with these plans, and print JSON")
    return parser.parse_args()


def in_new_process(cache_dir: str) -> dict[str, Any]:
    """What a start finds that shares plans with others in `cache_dir`."""
    command = [sys.executable, __file__, *sys.argv[1:], "--cache-dir", cache_dir]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each step of one start in this process."""
    moments = [time.perf_counter()]
    import torch
    from harness import machine
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    import fxtrt

    moments.append(time.perf_counter())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval().to(device)
    images = [torch.rand(3, *arguments.size, device=device)]
    moments.append(time.perf_counter())
    compiled = fxtrt.compile(model, (images,), **options(arguments))
    moments.append(time.perf_counter())
    with torch.no_grad():
        compiled(images)
    if device == "cuda":
        torch.cuda.synchronize()
    moments.append(time.perf_counter())
    steps = ("import", "make the model", "compile", "first call")
    took = (end - begun for begun, end in pairwise(moments))
    builds = [row.build for row in fxtrt.report(compiled).clusters if row.build]
    return {
        "s": dict(zip(steps, took, strict=True)),
        "engines": f"{len(builds)} engines in {sum(build.seconds for build in builds):.2f} s, "
        f"{sum(build.cached for build in builds)} from the cache",
        "machine": machine(),
        "settings": {name: str(value) for name, value in vars(arguments).items()},
    }


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Settings` that the command line gives."""
    names = ("engine", "precision", "optimization_level", "tactic_sources", "cache_dir")
    return {name: getattr(arguments, name) for name in names}


if __name__ == "__main__":
    main()
