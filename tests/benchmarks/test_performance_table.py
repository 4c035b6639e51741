"""The page on performance has the numbers of the result files, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from performance_table import MARKER, PAGE, RESULTS, plot_stages, sections
from result_file import ResultFile

SETUP = {
    "machine": {"torch": "2.11.0", "gpu": "NVIDIA H200"},
    "engine": "tensorrt TensorRT 8.6.0",
    "options": {"precision": "fp16", "tactic_sources": ["CUBLAS", "CUDNN"]},
    "size": [800, 1344],
}
STAGE = {"kernels": 61.0, "gflops": 250.5, "mb": 92.0}


def stages(floor: float | None) -> dict[str, Any]:
    first = {"stage": "backbone and dense heads", "ms": 1.42, "floor_ms": floor, **STAGE}
    return {
        "family": "faster",
        "batch": 1,
        "ms_per_image": 2.1,
        "gpu_busy_share": 0.912,
        "stages": [first, {**first, "stage": "after"}],
    }


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text().partition(MARKER)[2] == sections(RESULTS)


def test_results_become_tables(tmp_path: Path) -> None:
    folder = tmp_path / "NVIDIA-H200"
    row = {"family": "faster", "side": "fxtrt", "batch": 1, "ms_per_image": 2.125}
    failed = {"family": "mask", "side": "inductor", "batch": 1, "problem": "RuntimeError: no"}
    bench = ResultFile(folder / "detectors.json", ("family", "side", "batch"))
    bench.add(SETUP, {**row, "coverage": {"flops_share": 0.9987}, "seconds": {"cold": 31.0}})
    bench.add(SETUP, failed)
    ResultFile(folder / "detector_stages.json", ("family", "batch")).add(SETUP, stages(0.355))
    check = {"family": "faster", "example": "readme", "flops_share": 1.0, "fallbacks": 2}
    ResultFile(folder / "gpu_check.json", ("family", "example")).add(SETUP, check)
    text = sections(tmp_path)
    assert "## NVIDIA H200" in text
    assert "images of 800x1344, tensorrt TensorRT 8.6.0, torch 2.11.0, precision fp16" in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert any(c[:4] == ["faster", "fxtrt", "1", "2.12"] and "99.9%" in c for c in cells)
    assert any(c[:4] == ["mask", "inductor", "1", "RuntimeError: no"] for c in cells)
    backbone = ["backbone and dense heads", "1.420", "0.355", "4.0", "61", "250.5", "92.0"]
    assert backbone in cells
    assert "2.10 ms in all, of which the GPU is busy 91.2%" in text
    assert any(c[:2] == ["faster", "readme"] and c[7] == "2" for c in cells)


def test_no_results_are_no_tables(tmp_path: Path) -> None:
    assert "|" not in sections(tmp_path)


def test_stages_are_plotted_with_and_without_floors(tmp_path: Path) -> None:
    plot_stages([stages(0.355), stages(None)], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
