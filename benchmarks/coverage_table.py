"""Turns measurements of models into docs/reference/coverage.md, and its tables back into cells."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from coverage_measurement import ARCHITECTURES, TOLERANCE, Measurement, Run
from tabulate import tabulate
from zoo import EXAMPLES

__all__ = ["HEADERS", "cells", "document", "run_cells"]

HEADERS = (
    "model",
    *("engines", "nodes", "FLOPs", "layers", "error", "plan"),
    *("dynamic sizes", "engines", "nodes", "FLOPs", "layers", "error", "plan"),
)
_SOURCES = {
    "torchvision": "torchvision's families",
    "detector": "The parts of torchvision's detectors",
    "timm": "Architectures of timm",
}
_PEER = "Side by side"
_PACKAGES = ("torch", "torchvision", "timm", "tensorrt_rtx")
_WIDTH = 100


def document(measurements: Sequence[Measurement], peer: Mapping[str, Any]) -> str:
    """Return the text of the page of coverage; `peer` has the results of `peer_dryrun.py`."""
    sections = [_introduction(measurements)]
    for source, title in _SOURCES.items():
        rows = [_row(m) for m in measurements if m.source == source]
        sections += [f"## {title}", tabulate(rows, HEADERS, "pipe", disable_numparse=True)]
    sections += ["## Differences in the measurements", _notes()]
    if peer:
        sections += [f"## {_PEER}", _peer(measurements, peer)]
    sections += ["## Models that are not whole, and why", _exceptions(measurements)]
    return "\n\n".join(sections) + "\n"


def cells(text: str) -> dict[str, list[str]]:
    """Return the rows by model of the tables in docs/reference/coverage.md, except `_peer`'s.

    Raises:
        ValueError: a table has other columns, or a row has other cells.
    """
    rows: dict[str, list[str]] = {}
    columns: list[str] | None = None
    for line in text.partition(f"## {_PEER}")[0].splitlines():
        values = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            columns = None
        elif columns is None:
            columns = values
            if tuple(columns) != HEADERS:
                raise ValueError(f"the columns are {columns}")
        elif set(line) - set("|:-"):
            if len(values) != len(HEADERS):
                raise ValueError(f"{len(values)} cells, not {len(HEADERS)}: {line}")
            rows[values[0]] = values[1:]
    return rows


def _introduction(measurements: Sequence[Measurement]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    static = sum(m.static.whole for m in measurements)
    dynamic = sum(m.dynamic.whole for m in measurements)
    paragraphs = (
        "Written by `python benchmarks/model_coverage.py --results FILE --peer FILE --table "
        "docs/reference/coverage.md`.",
        f"{len(measurements)} models with random weights go through capture, passes, partition "
        f"and conversion, run on the `reference` engine in float32, and are compared with eager. "
        f"{static} of them are whole with fixed sizes, and {dynamic} with dynamic ones: one "
        f"engine, all FLOPs and all compute nodes inside, and an error of at most 1e-4. The rest "
        f"is explained below.",
        f"*Nodes* are compute nodes: inside engines, of all. *Layers* are TensorRT's. *Error* is "
        f"the largest difference of any output from eager's, as a share of that output's largest "
        f"magnitude; of the dynamic graph, at three sizes. *Plan* is the time to convert and "
        f"build, and the size of, TensorRT-RTX plans for {', '.join(ARCHITECTURES)}, on "
        f"{os.cpu_count()} CPU cores that did other work too, without a GPU. Plans that were "
        "built are not plans that were run. Models are measured one by one, and a later version "
        "of the code goes on with the results of an earlier one.",
        "*Dynamic sizes* are those that vary, N images or regions of H by W: `32 H` stands for "
        "multiples of 32.",
        f"Versions: {versions}.",
    )
    return "\n\n".join(["# Whole models", *(textwrap.fill(p, _WIDTH) for p in paragraphs)])


def _row(m: Measurement) -> list[str]:
    return [m.name, *run_cells(m.static), m.varies, *run_cells(m.dynamic)]


def run_cells(run: Run) -> list[str]:
    """Return the cells of one graph, as in `HEADERS`."""
    if run.problem and not run.clusters:
        return ["-"] * 6
    return [
        str(run.clusters),
        f"{run.converted}/{run.nodes}",
        f"{run.flops_share:.1%}",
        str(run.layers),
        f"{run.error:.0e}",
        f"{run.plan_seconds:.1f} s, {run.plan_mib:.0f} MiB",
    ]


def _notes() -> str:
    return _bullets([f"**{example.name}** {example.note}." for example in EXAMPLES if example.note])


def _peer(measurements: Sequence[Measurement], peer: Mapping[str, Any]) -> str:
    versions = ", ".join(sorted({record["version"] for record in peer.values()}))
    text = (
        f"Torch-TensorRT's `dryrun` {versions} (`python benchmarks/peer_dryrun.py`) on the same "
        f"models and fixed sizes, with the same torch, `min_block_size` 5, without a GPU: what it "
        f"asks of one is answered in its place. It partitions only: it makes no network and no "
        f"numbers. Its operators are those of its own "
        f"graph, `getitem` included, so they are not to be compared with fxtrt's nodes."
    )
    headers = ("model", "engines, fxtrt", "nodes, fxtrt", "engines, dryrun", "operators, dryrun")
    rows = [
        [
            m.name,
            str(m.static.clusters),
            f"{m.static.converted} of {m.static.nodes}",
            *_peer_cells(peer[m.name]),
        ]
        for m in measurements
        if m.name in peer
    ]
    table = tabulate(rows, headers, "github", disable_numparse=True)
    return f"{textwrap.fill(text, _WIDTH)}\n\n{table}"


def _peer_cells(record: Mapping[str, Any]) -> list[str]:
    if "problem" in record:
        return ["-", record["problem"].splitlines()[0]]
    return [str(record["engines"]), f"{record['supported']} of {record['operators']}"]


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(f"- {text}", _WIDTH, subsequent_indent="  ") for text in texts)


def _exceptions(measurements: Sequence[Measurement]) -> str:
    lines = [
        f"**{m.name}**, {name}: {reason}"
        for m in measurements
        for name, run in (("fixed sizes", m.static), ("dynamic sizes", m.dynamic))
        for reason in _reasons(run)
    ]
    return _bullets(lines) or "None."


def _reasons(run: Run) -> list[str]:
    reasons = [*([run.problem] if run.problem else []), *run.outside]
    if run.error > TOLERANCE:
        engines, eager = run.from_float64
        reasons.append(
            f"the error is {run.error:.2e}; from the same model in float64, the engine's is "
            f"{engines:.1e} and eager's own {eager:.1e}"
        )
    return reasons
