"""The Triton kernels give the right numbers, in Triton's interpreter and on a GPU.

Triton decides when it is imported whether it interprets, so the tests, which are in the files
`kernel_*.py` beside this one, run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fxtrt.detection.kernels.available import TRITON

pytestmark = pytest.mark.skipif(not TRITON, reason="Triton is not installed")

FILES = sorted(Path(__file__).parent.glob("kernel_*.py"))


def run(interpret: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--durations=10", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": interpret}
    result = subprocess.run(
        [*command, *map(str, FILES)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


@pytest.mark.slow
def test_in_the_interpreter() -> None:
    run("1")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    run("0")
