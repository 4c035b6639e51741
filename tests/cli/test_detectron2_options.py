"""The command line with a config of Detectron2, a size, a drawing, and builds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from command_line import run
from detectron2_package import require_detectron2

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

import fxtrt
from fxtrt.diagnostics.example_models import load_example

pytestmark = pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn.

CONFIG = "Misc/semantic_R_50_FPN_1x.yaml"


@pytest.mark.detectron2
@pytest.mark.slow
def test_report_of_a_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_detectron2()
    size = ("--size", "64x96", "--engine", "reference")
    assert run(monkeypatch, "report", "--detectron2", CONFIG, *size, "--min-flops", "0.99") == 0
    assert "not built" in capsys.readouterr().out


@pytest.mark.detectron2
def test_a_config_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_detectron2()
    wrong = CONFIG.replace("semantic", "semantics")
    assert run(monkeypatch, "report", "--detectron2", wrong) == 2
    assert f"did you mean {CONFIG!r}?" in capsys.readouterr().err


def test_without_detectron2_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2.checkpoint", None)
    monkeypatch.setitem(sys.modules, "detectron2", None)
    assert run(monkeypatch, "report", "--detectron2", CONFIG) == 2
    error = capsys.readouterr().err
    assert error.startswith("fxtrt: a Detectron2 config needs detectron2")


def test_what_has_no_boxes_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    drawing = ("--draw", str(tmp_path / "drawn.png"))
    assert run(monkeypatch, "run", "--model", "alexnet", "--engine", "reference", *drawing) == 2
    assert "there is nothing to draw" in capsys.readouterr().err


def test_build_fills_the_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, weights = load_example("squeezenet1_1", size=(64, 64)).model, tmp_path / "weights.pt"
    torch.save(model.state_dict(), weights)
    base = ("build", "--model", "squeezenet1_1", "--size", "64x64", "--engine", "tensorrt_rtx")
    arguments = (*base, "--weights", str(weights))
    saved = tmp_path / "squeezenet.fxtrt"
    assert run(monkeypatch, *arguments) == 0
    assert "from cache" not in capsys.readouterr().out
    assert run(monkeypatch, *arguments, "--save", str(saved)) == 0
    assert "from cache" in capsys.readouterr().out
    (row,) = fxtrt.report(fxtrt.load(saved, model)).clusters
    assert row.build is not None
    assert row.build.cached
