"""Keeps the rows of a benchmark in a JSON file that several short runs complete.

    python benchmarks/result_file.py benchmarks/results/NVIDIA-H200/detectors.json FILE ...

adds the rows of other files to the first one, on any machine.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import machine

from fxtrt.engines.select import select

__all__ = ["ResultFile", "folder_of_gpu", "setup_of", "source_digest"]

_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = ("fxtrt", "converters", "passes")


class ResultFile:
    """Rows of measurements, each with the setup in which it was measured.

    A row replaces an earlier one of the same setup and the same values of `key`. The file holds
    every setup once.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path = path
        self.key = tuple(key)
        self.rows: list[dict[str, Any]] = []
        self.setups: list[dict[str, Any]] = []
        if path.exists():
            self._join(json.loads(path.read_text()))

    def has(self, setup: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
        """Return whether there is a row of this setup with these values of `key`."""
        wanted = tuple(values[name] for name in self.key)
        return any(row_setup == setup and k == wanted for row_setup, k in self._keys())

    def add(self, setup: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Add a row, and write the file."""
        self._put(dict(setup), dict(row))
        self._write()

    def merge(self, path: Path) -> None:
        """Add the rows of another file, which replace those of this one, and write the file."""
        self._join(json.loads(path.read_text()))
        self._write()

    def rows_of(self, setup: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of one setup."""
        return [row for row in self.rows if self.setups[row["setup"]] == setup]

    def _keys(self) -> Iterator[tuple[dict[str, Any], tuple[Any, ...]]]:
        for row in self.rows:
            yield self.setups[row["setup"]], tuple(row.get(name) for name in self.key)

    def _put(self, setup: dict[str, Any], row: dict[str, Any]) -> None:
        if setup not in self.setups:
            self.setups.append(setup)
        row["setup"] = self.setups.index(setup)
        wanted = (setup, tuple(row.get(name) for name in self.key))
        for i, known in enumerate(self._keys()):
            if known == wanted:
                self.rows[i] = row
                return
        self.rows.append(row)

    def _join(self, record: Mapping[str, Any]) -> None:
        for row in record["rows"]:
            self._put(record["setups"][row["setup"]], dict(row))

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        record = {"key": self.key, "setups": self.setups, "rows": self.rows}
        text = json.dumps(record, indent=1)
        # The file is replaced in one step, because a run may be ended at any moment.
        written = self.path.with_suffix(".new")
        written.write_text(text + "\n")
        written.replace(self.path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Join files of results.")
    parser.add_argument("into", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    key = json.loads(arguments.files[0].read_text())["key"]
    results = ResultFile(arguments.into, key)
    for path in arguments.files:
        results.merge(path)


def setup_of(engine: str, options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return what a row's numbers depend on: machine, versions, engine, options and source."""
    setup = {
        "machine": machine(),
        "engine": f"{engine} {select(engine).features.version}",
        "options": {name: value for name, value in options.items() if value is not None},
        "source": source_digest(),
        **more,
    }
    # Values such as tuples come back from JSON as lists.
    return dict(json.loads(json.dumps(setup)))


@functools.cache
def source_digest() -> str:
    """Return a digest of the package's source, so that results of other code are not mixed in."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def folder_of_gpu(out: Path) -> Path:
    """Return the folder in `out` that is named after this machine's GPU."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return out / name.replace(" ", "-")


if __name__ == "__main__":
    main()
