"""Turns measurements of Detectron2's families into the tables of docs/reference/detectors.md."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from detector_families import FAMILIES, Family
from detector_measurement import Measurement
from tabulate import tabulate

__all__ = ["HEADING", "section"]

HEADING = "## Families\n"
_HEADERS = (
    *("family", "Detectron2", "nodes", "engines", "FLOPs", "cuts", "found"),
    *("boxes", "scores", "masks", "other", "notes"),
)
_EXACT = ("count", "classes", "segments")
_OWN_COLUMN = ("pred_boxes", "proposal_boxes", "scores", "pred_masks", *_EXACT)
_INTRODUCTION = (
    "Written by `PYTHONPATH=tests/support python benchmarks/detector_coverage.py --results FILE "
    "--table docs/reference/detectors.md`. Each model has random, calibrated weights and the zoo's "
    "settings (1000 proposals), takes one image of 480x640 and is captured with fixed sizes. "
    "*Nodes* are compute nodes, in engines of all; *engines* those with a convolution or a matrix "
    "product; *cuts* the tensors that pass between engines and PyTorch. Differences are the largest from "
    "eager in float32 on the same device, without TF32, over two images: boxes in pixels, scores "
    "as probabilities, of masks the share of pixels of the worst mask, else as named. Detectron2's "
    "main branch calls itself 0.6."
)


def section(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text below the heading, with a table of the families for each setup."""
    parts = [textwrap.fill(_INTRODUCTION, 100)]
    for setup, measured in records.items():
        rows = [_row(family, measured) for family in FAMILIES]
        parts += [
            textwrap.fill(f"With {setup}:", 100),
            tabulate(rows, _HEADERS, "pipe", disable_numparse=True),
        ]
    return "\n" + "\n\n".join(parts) + "\n"


def _row(family: Family, measured: Mapping[str, Any]) -> list[str]:
    if family.name not in measured:
        return [family.name, *[""] * 10, "not measured"]
    m = Measurement(**measured[family.name])
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
