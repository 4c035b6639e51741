"""Writes the tables and plots of docs/reference/performance.md from the files of results.

    python benchmarks/performance_table.py

It reads detectors.json, detector_stages.json and gpu_check.json in each folder of
benchmarks/results, and writes the page from its marker to the end. A folder without these files has
no section.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

__all__ = ["MARKER", "PAGE", "plot_stages", "sections"]

_ROOT = Path(__file__).resolve().parent.parent
RESULTS = _ROOT / "benchmarks" / "results"
PAGE = _ROOT / "docs" / "reference" / "performance.md"
MARKER = "<!-- performance_table.py writes what follows -->\n"
_NONE = "No results of these scripts are in the repository yet."

Row = Mapping[str, Any]


def main() -> None:
    before, marker, _ = PAGE.read_text().partition(MARKER)
    if not marker:
        raise SystemExit(f"{PAGE} has no line {MARKER.strip()!r}")
    PAGE.write_text(before + MARKER + sections(RESULTS))
    for path in sorted(RESULTS.glob("*/detector_stages.json")):
        plot_stages(_rows(path), path.with_suffix(".png"))


def sections(results: Path) -> str:
    """Return the text with the tables of each GPU that has results."""
    parts = []
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        tables = [
            *_tables(folder / "detectors.json", _detectors),
            *_tables(folder / "detector_stages.json", _stages),
            *_tables(folder / "gpu_check.json", _checks),
        ]
        if tables:
            parts += [f"## {folder.name.replace('-', ' ')}", *tables]
    return "\n" + "\n\n".join(parts or [_NONE]) + "\n"


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, each with its setup in place of the setup's number."""
    record = json.loads(path.read_text())
    return [{**row, "setup": record["setups"][row["setup"]]} for row in record["rows"]]


def _tables(path: Path, table: Any) -> Iterable[str]:
    if not path.exists():
        return
    groups: dict[str, list[Row]] = {}
    for row in _rows(path):
        groups.setdefault(_words(row["setup"]), []).append(row)
    for words, rows in groups.items():
        yield textwrap.fill(f"{path.stem}: {words}.", 110, break_long_words=False)
        yield from table(rows, path)


def _words(setup: Row) -> str:
    machine, size = setup["machine"], "x".join(map(str, setup["size"]))
    versions = [f"{n} {machine[n]}" for n in ("torch", "driver", "python") if n in machine]
    options = [
        f"{name} {' and '.join(value) if isinstance(value, list) else value}"
        for name, value in setup["options"].items()
        if name != "engine"
    ]
    return ", ".join([f"images of {size}", setup["engine"], *versions, *options])


def _detectors(rows: Sequence[Row], path: Path) -> Iterable[str]:
    headers = [
        *("family", "side", "batch", "ms per image", "p95", "images/s", "GPU busy, ms", "busy"),
        *("kernels", "host waits", "4 threads, images/s", "FLOPs in engines", "agreement"),
        *("compile, s", "cached", "load", "memory, MB"),
    ]
    table = []
    for row in rows:
        coverage, seconds = row.get("coverage", {}), row.get("seconds", {})
        memory = row.get("torch_peak_mb", 0.0) + row.get("other_mb", 0.0)
        table.append(
            [
                *(row["family"], row["side"], str(row["batch"])),
                _number(row.get("ms_per_image"), 2) or row.get("problem", ""),
                *(
                    _number(row.get("p95_ms_per_image"), 2),
                    _number(row.get("images_per_second"), 0),
                ),
                _number(row.get("gpu_busy_ms_per_image"), 2),
                _percent(row.get("gpu_busy_share")),
                *(_number(row.get(name), 0) for name in ("kernels", "host_waits")),
                _number(row.get("threads", {}).get("4"), 0),
                _percent(coverage.get("flops_share")),
                _percent(row.get("agreement", {}).get("share")),
                _number(seconds.get("cold", seconds.get("first_call")), 1),
                *(_number(seconds.get(name), 1) for name in ("cached", "load")),
                _number(memory or None, 0),
            ]
        )
    yield tabulate(table, headers, "pipe", disable_numparse=True)


def _stages(rows: Sequence[Row], path: Path) -> Iterable[str]:
    for row in rows:
        wall = row["ms_per_image"] * row["batch"]
        busy = _percent(row.get("gpu_busy_share")) or "for an unknown time"
        name = f"{row['family']}, batch {row['batch']}"
        yield f"{name}: {wall:.2f} ms in all, of which the GPU is busy {busy}."
        table = [
            [
                *(one["stage"], _number(one["ms"], 3), _number(one["floor_ms"], 3)),
                _times(one["ms"], one["floor_ms"]),
                *(_number(one["kernels"], 0), _number(one["gflops"], 1), _number(one["mb"], 1)),
            ]
            for one in row["stages"]
        ]
        headers = ["stage", "ms", "floor, ms", "ms / floor", "kernels", "GFLOP", "MB"]
        yield tabulate(table, headers, "pipe", disable_numparse=True)
    if (plot := path.with_suffix(".png")).exists():
        yield f"![stages beside their floors](../../{plot.relative_to(_ROOT).as_posix()})"


def _checks(rows: Sequence[Row], path: Path) -> Iterable[str]:
    headers = [
        *("family", "example", "s", "FLOPs in engines", "agreement", "ms per image"),
        *("host waits", "fallbacks", "problem"),
    ]
    table = [
        [
            *(row["family"], row["example"], _number(row.get("seconds"), 0)),
            *(_percent(row.get("flops_share")), _percent(row.get("agreement"))),
            *(_number(row.get("ms_per_image"), 2), _number(row.get("host_waits"), 1)),
            *(_number(row.get("fallbacks"), 0), row.get("problem", "")[:100]),
        ]
        for row in rows
    ]
    yield tabulate(table, headers, "pipe", disable_numparse=True)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _times(ms: float, floor: float | None) -> str:
    return f"{ms / floor:.1f}" if floor else ""


def plot_stages(rows: Sequence[Row], path: Path) -> None:
    """Plot a bar of the stages' times and one of their floors for each family and batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.9 * len(rows)))
    names = list(dict.fromkeys(one["stage"] for row in rows for one in row["stages"]))
    colors = dict(zip(names, (f"C{i}" for i in range(10)), strict=False))
    for i, row in enumerate(rows):
        for offset, key in ((-0.2, "ms"), (0.2, "floor_ms")):
            left = 0.0
            for one in row["stages"]:
                width = (one[key] or 0.0) / row["batch"]
                color = colors[one["stage"]]
                axes.barh(i + offset, width, 0.36, left, color=color, alpha=_ALPHA[key])
                left += width
        axes.plot([row["ms_per_image"]] * 2, [i - 0.4, i + 0.4], "k", linewidth=1.5)
    axes.set_yticks(range(len(rows)), [f"{r['family']}, batch {r['batch']}" for r in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ms per image: stages, below them their floors; the line is the wall time")
    handles = [Rectangle((0, 0), 1, 1, color=colors[name]) for name in names]
    axes.legend(handles, names, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


_ALPHA = {"ms": 1.0, "floor_ms": 0.45}


if __name__ == "__main__":
    main()
