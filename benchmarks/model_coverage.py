"""Measures how much of each vision model runs in engines, and writes docs/reference/coverage.md.

    python benchmarks/model_coverage.py --results coverage.json --table docs/reference/coverage.md

`--peer` adds the results of `peer_dryrun.py`. Results are kept by model, so that a second run
continues the first one.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from coverage_measurement import Measurement, Run, measure
from coverage_table import document, run_cells
from zoo import EXAMPLES, Example


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON file to go on with")
    parser.add_argument("--only", nargs="+", default=[], help="models to measure again")
    parser.add_argument("--peer", type=Path, help="JSON file of peer_dryrun.py, for the table")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    for example in EXAMPLES:
        wanted = example.name in arguments.only if arguments.only else example.name not in results
        if wanted:
            start = time.perf_counter()
            results.add(measurement := measure(example))
            seconds = time.perf_counter() - start
            print(f"{example.name} [{seconds:.0f} s]\n{describe(measurement)}", flush=True)
    if arguments.table:
        peer = json.loads(arguments.peer.read_text()) if arguments.peer else {}
        arguments.table.write_text(document([results.of(example) for example in EXAMPLES], peer))


class Results:
    """Keeps measurements by name in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = json.loads(path.read_text()) if path.exists() else {}

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def add(self, measurement: Measurement) -> None:
        self._records[measurement.name] = asdict(measurement)
        self._path.write_text(json.dumps(self._records, indent=1))

    def of(self, example: Example) -> Measurement:
        """Return the measurement of `example`, or one that says that there is none."""
        if example.name not in self:
            missing = Run(problem="not measured")
            return Measurement(
                example.source, example.name, example.inputs.varies, missing, missing
            )
        record = self._records[example.name]
        runs = {kind: Run(**record[kind]) for kind in ("static", "dynamic")}
        return Measurement(**{**record, **runs})


def describe(m: Measurement) -> str:
    """Return one line for each graph of the model."""
    return "\n".join(
        f"  {name:8}" + (run.problem or ", ".join([*run_cells(run), *run.outside]))
        for name, run in (("fixed", m.static), ("dynamic", m.dynamic))
    )


if __name__ == "__main__":
    main()
