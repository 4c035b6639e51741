"""Turns a measured row into the bars that it misses.

gpu_bars.json holds the bars: for all examples, and others for some examples and families, which
take their places. A bar on milliseconds belongs to a GPU, a precision, a level of TensorRT's
builder and a family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxtrt import Settings

__all__ = ["Bars", "read_bars"]

_FILE = Path(__file__).with_name("gpu_bars.json")
_SIDES = ("least", "most")
_ON_A_GPU_ONLY = ("host_waits", "ms_per_image")


def read_bars(path: Path = _FILE) -> Bars:
    """Read the bars of a file.

    Raises:
        ValueError: the file has a key that nothing reads.
    """
    record = json.loads(path.read_text())
    known = {"all", "examples", "families", "ms_per_image"}
    if unknown := set(record) - known:
        raise ValueError(f"{path} has {sorted(unknown)}, expected only {sorted(known)}")
    return Bars(record)


class Bars:
    """The bars that a row must keep."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record

    def of(self, example: str, family: str) -> dict[str, dict[str, float]]:
        """Return the lower ("least") and upper ("most") bars by the name of the value."""
        own = self._record.get("examples", {}).get(example, {})
        layers = [{} if own.get("only") else self._record["all"]]
        layers += [own, self._record.get("families", {}).get(family, {})]
        return {
            side: {name: bar for layer in layers for name, bar in layer.get(side, {}).items()}
            for side in _SIDES
        }

    def missed(
        self,
        row: Mapping[str, Any],
        gpu: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Return a line on each bar that `row` misses; a value that is missing misses its bar.

        Args:
            gpu: the name of the GPU, or None on a CPU, where only the GPU's own values are let off.
            options: of `fxtrt.compile`; the precision and the builder's level decide on times.
        """
        if problem := row.get("problem"):
            return [str(problem)]
        bars = self.of(row["example"], row["family"])
        given = Settings.of(None, options)
        name = f"{gpu}, {given.precision}, level {given.optimization_level}"
        times = self._record.get("ms_per_image", {}).get(name, {})
        if row["family"] in times:
            bars["most"]["ms_per_image"] = times[row["family"]]
        lines = []
        for side, named in bars.items():
            for name, bar in named.items():
                if gpu is None and name in _ON_A_GPU_ONLY:
                    continue
                value = row.get(name)
                if not _keeps(value, side, bar):
                    lines.append(f"{name} is {_text(value)}, at {side} {bar:g} is wanted")
        return lines


def _keeps(value: Any, side: str, bar: float) -> bool:
    # A comparison with NaN is false, so NaN keeps no bar.
    if value is None:
        return False
    return bool(value >= bar if side == "least" else value <= bar)


def _text(value: Any) -> str:
    return "missing" if value is None else f"{value:.4g}"
