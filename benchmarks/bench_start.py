"""Times the start of a detector without plans, with cached plans, and from a file of `fxtrt.save`.

    python benchmarks/bench_start.py --engine tensorrt --out benchmarks/results

Each start is a process of its own that imports torch, compiles or loads torchvision's Faster R-CNN,
and calls it once. The first start leaves its plans and the file to the others, and all detections
must be equal to the bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tabulate import tabulate

WAYS = ("no plans", "all plans cached", "artifact")
_OPTIONS = ("engine", "precision", "optimization_level", "tactic_sources")


def main() -> None:
    arguments = parse()
    if arguments.folder:
        print(json.dumps(start(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        starts = {way: in_new_process(folder, way) for way in WAYS}
    steps = list(starts[WAYS[0]]["s"])
    rows = [
        [way, *(f"{timed['s'][step]:.2f}" if step in timed["s"] else "" for step in steps)]
        for way, timed in starts.items()
    ]
    print(tabulate(rows, headers=["seconds", *steps], disable_numparse=True))
    print(*(f"{way}: {timed['engines']}" for way, timed in starts.items()), sep="\n")
    if arguments.out:
        gpu = starts[WAYS[0]]["machine"].get("gpu", "cpu").replace(" ", "-")
        kind = "_one_size" if arguments.one_size else ""
        path = arguments.out / gpu / f"start_faster_rcnn{kind}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(starts, indent=2) + "\n")
    if len({timed["detections"] for timed in starts.values()}) > 1:
        raise SystemExit("the starts do not find the same")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--optimization-level", type=int, default=3)
    parser.add_argument("--tactic-sources", nargs="*")
    parser.add_argument("--one-size", action="store_true", help="compile for this size only")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("H", "W"))
    parser.add_argument("--out", type=Path, help="folder for the results, one below it per GPU")
    parser.add_argument("--folder", type=Path, help="start once with what is here; print JSON")
    parser.add_argument("--way", choices=WAYS, default=WAYS[0])
    return parser.parse_args()


def in_new_process(folder: str, way: str) -> dict[str, Any]:
    """Return the result of a start in a new process, which shares plans and file in `folder`."""
    command = [sys.executable, __file__, *sys.argv[1:], "--folder", folder, "--way", way]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start once in this process, and return the seconds of each step with what was found."""
    moments = [time.perf_counter()]
    import torch
    from harness import machine
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    import fxtrt

    moments.append(time.perf_counter())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, box_score_thresh=0.0)
    model = model.eval().to(device)
    images = [torch.rand(3, *arguments.size, device=device)]
    path = arguments.folder / "detector.fxtrt"
    moments.append(time.perf_counter())
    if arguments.way == "artifact":
        fast = fxtrt.load(path, model)
    else:
        fast = fxtrt.compile(model, (images,), **options(arguments))
    moments.append(time.perf_counter())
    with torch.no_grad():
        (found,) = fast(images)
    if device == "cuda":
        torch.cuda.synchronize()
    moments.append(time.perf_counter())
    steps = ["import", "make the model", "compile or load", "first call"]
    if arguments.way == "no plans":
        fxtrt.save(fast, path)
        moments.append(time.perf_counter())
        steps.append("save")
    took = (end - begun for begun, end in pairwise(moments))
    return {
        "s": dict(zip(steps, took, strict=True)),
        "engines": engines(fxtrt.report(fast)),
        "detections": digest(found),
        "machine": machine(),
        "settings": settings(arguments),
    }


def settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what the command line gives, for the file of results."""
    return {name: str(getattr(arguments, name)) for name in ("size", "one_size", *_OPTIONS)}


def engines(report: Any) -> str:
    """Return a text with the number of engines, and how many were built."""
    builds = [row.build for row in report.clusters if row.build]
    seconds, cached = sum(build.seconds for build in builds), sum(build.cached for build in builds)
    return f"{len(builds)} engines in {seconds:.2f} s, {cached} of them not built"


def digest(found: dict[str, Any]) -> str:
    """Return a digest of the values of all detections."""
    values = [found[name].cpu().numpy().tobytes() for name in sorted(found)]
    return hashlib.sha256(b"".join(values)).hexdigest()


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `fxtrt.compile` that the command line gives."""
    return {name: getattr(arguments, name) for name in _OPTIONS} | {
        "cache_dir": arguments.folder / "cache",
        "dynamic_shapes": {} if arguments.one_size else None,
    }


if __name__ == "__main__":
    main()
