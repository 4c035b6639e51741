"""`fxtrt tune` measures a file here, and writes what it chose beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import fxtrt
from fxtrt.cli.main import _cli
from fxtrt.serving import tuner
from fxtrt.serving.tuned_file import tuned_settings


@pytest.mark.slow
def test_a_file_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.fxtrt"
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    with torch.no_grad():
        compiled = fxtrt.compile(
            model, (torch.rand(1, 3, 16, 16),), engine="reference", cache_dir=None
        )
    fxtrt.save(compiled, path, weights=True)
    asked = ["tune", str(path), "--p99", "100ms", "--seconds", "0.1s", "--most-slots", "1"]
    asked += ["--most-batch", "1"]
    monkeypatch.setattr(tuner, "_MOST_POINTS", 2)
    monkeypatch.setattr(tuner, "_FIRST", 0.02)
    result = CliRunner().invoke(_cli, asked, catch_exceptions=False)
    assert result.exit_code == 0
    assert "images/s at p99 <= 100 ms" in result.output
    assert "chosen" in result.output
    settings = tuned_settings(path)
    assert not isinstance(settings, str)
    assert settings["slots"] == 1
    assert f"written to {path.with_suffix('.tuned.json')}" in result.output
