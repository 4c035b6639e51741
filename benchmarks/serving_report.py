"""Turns the rows of the serving benchmark into a table, a headline and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving_cases import BASELINE, CASES
from tabulate import tabulate

__all__ = ["headline", "plot", "saved", "show"]

Row = Mapping[str, Any]
_HEADERS = [
    *("model", "case", "best/s", "p50 ms", "p95", "p99", "queue ms", "batch", "busy %", "W"),
    *("too much/s", "because", "off", "agree", "witness", "problem"),
]


def show(rows: Sequence[Row]) -> str:
    """Return one line for each row: its best rate, and the first that was too much."""
    return tabulate([_cells(row) for row in rows], headers=_HEADERS, disable_numparse=True)


def _cells(row: Row) -> list[str]:
    points = row.get("points", [])
    best: Row = next((point for point in points if point["rate"] == row.get("best")), {})
    bad: Row = next((point for point in points if point["collapse"]), {})
    names = ("p50_ms", "p95_ms", "p99_ms", "queue_ms", "batch", "gpu_utilization", "power_w")
    return [
        *(row["model"], row["case"], _number(row.get("best"))),
        *(_number(best.get(name)) for name in names),
        *(_number(bad.get("rate")), str(bad.get("collapse", ""))[:40]),
        *(_number(row.get(name), 3) for name in ("off", "agreement")),
        *(str(row.get("witness", {}).get("result", "")), row.get("problem", "")[:60]),
    ]


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def saved(eager: float, fast: float) -> float:
    """Return the share of GPUs that are saved, from the highest rates of one GPU."""
    return 1.0 - eager / fast


def headline(rows: Sequence[Row], p99: float) -> str:
    """Return the best rates of eager and of fxtrt, and the share of GPUs that are saved."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        best = {row["case"]: row.get("best", 0.0) for row in rows if row["model"] == model}
        served = _highest(best, lambda key: key in BASELINE)
        any_eager = _highest(best, lambda key: CASES[key].side == "eager")
        for name, over_http in (("in process", False), ("over HTTP", True)):
            fast = _highest(
                best, lambda key, o=over_http: CASES[key].side == "fxtrt" and CASES[key].http == o
            )
            if fast is None:
                continue
            text = f"{model}, {name}: {fast[1]:.0f}/s with p99 <= {1e3 * p99:g} ms ({fast[0]})"
            for what, eager in (("eager as served", served), ("the best eager", any_eager)):
                if eager is not None:
                    share = saved(eager[1], fast[1])
                    text += f"; {what} {eager[1]:.1f}/s ({eager[0]}): {share:.0%} of GPUs saved"
            lines.append(text)
    return "\n".join(lines)


def _highest(best: Mapping[str, float], is_wanted: Any) -> tuple[str, float] | None:
    found = [(key, rate) for key, rate in best.items() if rate and is_wanted(key)]
    return max(found, key=lambda pair: pair[1], default=None)


def plot(rows: Sequence[Row], path: Path, p99: float) -> list[Path]:
    """Plot p99 against the rate, measured and simulated, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("no plots: matplotlib is not installed")
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    for model in dict.fromkeys(row["model"] for row in rows if row.get("points")):
        figure, axes = pyplot.subplots(figsize=(9, 5))
        for row in rows:
            if row["model"] != model or not row.get("points"):
                continue
            (line,) = axes.plot(*_curve(row["points"]), marker="o", label=row["case"])
            if row.get("simulated"):
                axes.plot(*_curve(row["simulated"]), ":", color=line.get_color())
        axes.axhline(1e3 * p99, color="grey", linewidth=0.8)
        axes.set(xlabel="requests in a second", ylabel="p99 in ms (dotted: simulated)", title=model)
        axes.set(ylim=(0, 4e3 * p99), xlim=(0, None))
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
        written.append(Path(f"{path}_{model}.png"))
        figure.savefig(written[-1], dpi=120, bbox_inches="tight")
        pyplot.close(figure)
    return written


def _curve(points: Sequence[Row]) -> tuple[list[float], list[float]]:
    known = [point for point in points if point["p99_ms"] is not None]
    return [point["rate"] for point in known], [point["p99_ms"] for point in known]
