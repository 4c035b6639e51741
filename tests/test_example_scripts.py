"""The scripts of examples/ run as they stand, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_files import ROOT

pytest.importorskip("torchvision", reason="the examples compile its models")

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
SAID = {
    "coverage_bar": "100.0% of the FLOPs",
    "detector": "(90, 150): 10 boxes",
    "first_model": "largest difference from eager",
    "own_converter": "1 engine",
    "save_and_load": "the same bits",
    "serve_demo": "/ to see them",
}
"""Words that each script prints."""
QUICK = {
    "serve_demo": ["--once", "--port", "0", "--model", "fasterrcnn_mobilenet_v3_large_320_fpn"],
}
"""Arguments with which a script takes less time."""


def test_there_are_six() -> None:
    assert {path.stem for path in SCRIPTS} == set(SAID)


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "FXTRT_CACHE_DIR": str(tmp_path),
        "FXTRT_ENGINE": "reference",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(path), *QUICK.get(path.stem, [])]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    assert SAID[path.stem] in result.stdout
