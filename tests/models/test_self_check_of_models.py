"""The self-check finds nothing in right engines of whole models, however their kernels round."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")
pytest.importorskip("timm", reason="timm is not installed")

from lying_engine import OtherKernels
from zoo import EXAMPLES, Example
from zoo_inputs import make

import fxtrt

QUICK = ("squeezenet1_0", "box head")


def check(example: Example, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = OtherKernels()
    monkeypatch.setattr("fxtrt.engines.target.select", lambda name: backend)
    inputs = make(example.inputs.example)
    with torch.no_grad():
        compiled = fxtrt.compile(example.model(), inputs, cache_dir=None, precision=precision)  # type: ignore[arg-type]  # one of the parameters
    report = fxtrt.report(compiled)
    assert [row.detail for row in report.rejections if row.code == "wrong"] == []
    assert report.clusters
    for row in report.clusters:
        assert row.check is not None
        assert row.check.unchecked == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_right_engine_raises_no_alarm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (example for example in EXAMPLES if example.name == name)
    check(example, "model", monkeypatch)


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["model", "tf32", "fp16"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_no_right_engine_raises_an_alarm(
    example: Example, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(example, precision, monkeypatch)
