"""Measures what of each of Detectron2's families runs in engines, and how near eager they stay.

    PYTHONPATH=tests python benchmarks/detector_coverage.py --results detectors.json \\
        --table docs/detectron2.md

Takes the Detectron2 on the path, or else version 0.4 from PyPI (tests/detectron2_package.py).
Results are kept family by family, so that a second run goes on where the first one ended; the table
is written below its heading, to the end of the file.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from detector_agreement import differences
from detector_families import FAMILIES, Family
from detectron2_package import require_detectron2
from tabulate import tabulate

import fxtrt
from fxtrt.errors import FxtrtError

HEADING = "## Families\n"
_HEADERS = (
    *("family", "Detectron2", "nodes", "engines", "FLOPs", "cuts", "found"),
    *("boxes", "scores", "masks", "other", "notes"),
)
_EXACT = ("count", "classes", "segments")
_OWN_COLUMN = ("pred_boxes", "proposal_boxes", "scores", "pred_masks", *_EXACT)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One family, compiled for `reference`.

    found: what eager finds, as "100 instances".
    nodes, converted: compute nodes, and those in engines; engines: how many, with work.
    differences: from eager, of the example and its mirror image.
    problem: why there is no answer; then all else is empty.
    """

    detectron2: str = ""
    found: str = ""
    nodes: int = 0
    converted: int = 0
    engines: int = 0
    flops_share: float = 0.0
    cuts: int = 0
    differences: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON file to go on with")
    parser.add_argument("--only", nargs="+", default=[], help="families to measure again")
    parser.add_argument("--table", type=Path, help="Markdown file to complete")
    arguments = parser.parse_args()
    path = arguments.results
    records = json.loads(path.read_text()) if path.exists() else {}
    for family in FAMILIES:
        if family.name in arguments.only or not (arguments.only or family.name in records):
            start = time.perf_counter()
            measurement = measure(family)
            records[family.name] = asdict(measurement)
            path.write_text(json.dumps(records, indent=1))
            seconds = time.perf_counter() - start
            print(f"{family.name} [{seconds:.0f} s]\n  {measurement}", flush=True)
    if arguments.table:
        before = arguments.table.read_text().partition(HEADING)[0]
        arguments.table.write_text(before + HEADING + section(records))


def measure(family: Family) -> Measurement:
    """Compile the family's model and compare it with eager."""
    require_detectron2()
    import detectron2

    model, example = family.build()
    mirrored = [one | {"image": one["image"].flip(2)} for one in example]
    with torch.no_grad():
        expected = [model(example), model(mirrored)]
    try:
        compiled = fxtrt.compile(
            model, (example,), engine="reference", dynamic_shapes={}, on_build_failure="raise"
        )
    except FxtrtError as error:
        return Measurement(detectron2.__version__, problem=" ".join(str(error).split()))
    with torch.no_grad():
        actual = [compiled(example), compiled(mirrored)]
    coverage = fxtrt.report(compiled)
    guard: Any = compiled.forward
    return Measurement(
        detectron2=detectron2.__version__,
        found=_found(expected[0][0]),
        nodes=coverage.nodes,
        converted=coverage.converted,
        engines=sum(bool(row.flops) for row in coverage.clusters),
        flops_share=coverage.flops_share,
        cuts=coverage.cuts,
        differences=differences(
            [one for answer in actual for one in answer],
            [one for answer in expected for one in answer],
        ),
        problem="; ".join(guard.fallbacks),
    )


def _found(answer: Mapping[str, Any]) -> str:
    counted = [f"{len(answer[key])} {key}" for key in ("instances", "proposals") if key in answer]
    if "panoptic_seg" in answer:
        counted.append(f"{len(answer['panoptic_seg'][1])} segments")
    return ", ".join(counted)


def section(records: Mapping[str, Any]) -> str:
    """What stands below the heading."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision"))
    text = (
        "Written by `PYTHONPATH=tests python benchmarks/detector_coverage.py --results FILE "
        "--table docs/detectron2.md`. Each model has random, calibrated weights and the zoo's "
        "settings (1000 proposals), takes one image of 480x640, is captured whole with fixed sizes "
        "and runs on the `reference` engine in float32. *Nodes* are compute nodes, in engines of "
        "all; *engines* those with a convolution or a matrix product; *cuts* the tensors that pass "
        "between engines and PyTorch. Differences are the largest from eager over two images: "
        "boxes in pixels, scores as probabilities, of masks the share of pixels of the worst mask, "
        f"else as named. {versions}; on a CPU. Detectron2's main branch calls itself 0.6. Swin and "
        "MViTv2 backbones were not tried."
    )
    rows = [_row(family, records) for family in FAMILIES]
    table = tabulate(rows, _HEADERS, "pipe", disable_numparse=True)
    return f"\n{textwrap.fill(text, 100)}\n\n{table}\n"


def _row(family: Family, records: Mapping[str, Any]) -> list[str]:
    if family.name not in records:
        return [family.name, *[""] * 10, "not tried"]
    m = Measurement(**records[family.name])
    notes = "; ".join(part for part in (family.notes, m.problem) if part)
    if not m.nodes:
        return [family.name, m.detectron2, *[""] * 9, notes]
    found = dict(m.differences)
    odd = [f"{name} {found[name]:.0f}" for name in _EXACT if found.get(name)]
    others = [f"{name} {v:.0e}" for name, v in found.items() if name not in _OWN_COLUMN]
    boxes = found.get("pred_boxes", found.get("proposal_boxes"))
    return [
        *(family.name, m.detectron2, f"{m.converted}/{m.nodes}", str(m.engines)),
        *(f"{m.flops_share:.1%}", str(m.cuts), m.found),
        *(_cell(boxes), _cell(found.get("scores")), _cell(found.get("pred_masks"))),
        *(", ".join([*odd, *others]), notes),
    ]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


if __name__ == "__main__":
    main()
