"""Measures how much of each Detectron2 family runs in engines, and how near to eager it stays.

    PYTHONPATH=tests/support python benchmarks/detector_coverage.py --results detectors.json \\
        --table docs/reference/detectors.md
    PYTHONPATH=tests/support python benchmarks/detector_coverage.py --results gpu.json \\
        --engine tensorrt --device cuda --precision fp32 --only "RPN R50-FPN"

It takes the Detectron2 on the path, or else version 0.4 from PyPI, as
tests/support/detectron2_package.py does. Results are kept by setup (engine, device, options) and by
family, so that a second run continues the first one. Several processes can measure at the same time
with `--only` and a file each, which `--merge` joins. The tables are written from their heading to
the end of the file.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detector_families import FAMILIES, Family
from detector_measurement import Measurement, Setup, measure
from detector_table import HEADING, section

log = logging.getLogger(__name__)

_OPTIONS = ("precision", "tactic_sources", "optimization_level")


def main() -> None:
    arguments = _parser().parse_args()
    results = Results(arguments.results)
    for path in arguments.merge:
        results.merge(path)
    given = {name: getattr(arguments, name) for name in _OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    setup = Setup(arguments.engine, arguments.device, options)
    for family in _wanted(arguments, results, setup):
        start = time.perf_counter()
        results.add(setup, family, measurement := _measured(family, setup))
        seconds = time.perf_counter() - start
        print(f"{family.name}, {setup} [{seconds:.0f} s]\n  {measurement}", flush=True)
    if arguments.table:
        before = arguments.table.read_text().partition(HEADING)[0]
        arguments.table.write_text(before + HEADING + section(results.records))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON file to go on with")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="only join these to it")
    names = [family.name for family in FAMILIES]
    parser.add_argument("--only", nargs="+", default=[], choices=names, metavar="FAMILY")
    parser.add_argument("--table", type=Path, help="Markdown file to complete")
    parser.add_argument("--engine", default="reference")
    parser.add_argument("--device", default="cpu", help="as torch names it")
    parser.add_argument("--precision", help="inside engines; the model's own by default")
    parser.add_argument("--tactic-sources", nargs="+", help="names of trt.TacticSource")
    parser.add_argument("--optimization-level", type=int, help="of TensorRT's builder, 0 to 5")
    return parser


class Results:
    """Keeps measurements by setup and family in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._join(path)

    def has(self, setup: Setup, family: Family) -> bool:
        return family.name in self.records.get(str(setup), {})

    def add(self, setup: Setup, family: Family, measurement: Measurement) -> None:
        self.records.setdefault(str(setup), {})[family.name] = asdict(measurement)
        self._write()

    def merge(self, path: Path) -> None:
        """Add the measurements of another file, which replace those of this one."""
        self._join(path)
        self._write()

    def _join(self, path: Path) -> None:
        for setup, measured in json.loads(path.read_text()).items():
            self.records.setdefault(setup, {}).update(measured)

    def _write(self) -> None:
        self._path.write_text(json.dumps(self.records, indent=1))


def _wanted(arguments: argparse.Namespace, results: Results, setup: Setup) -> Sequence[Family]:
    if arguments.merge and not arguments.only:
        return []
    if arguments.only:
        return [family for family in FAMILIES if family.name in arguments.only]
    return [family for family in FAMILIES if not results.has(setup, family)]


def _measured(family: Family, setup: Setup) -> Measurement:
    try:
        return measure(family, setup)
    except Exception as error:  # The other families are measured all the same.
        log.exception("%s failed", family.name)
        return Measurement(problem=f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
