"""What takes long is announced: in a line on a terminal, or else in the log."""

from __future__ import annotations

import io
import logging
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import fxtrt
from fxtrt.announce import announced


class Terminal(io.StringIO):
    """Says when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.written.set()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_what_takes_long_is_one_line_on_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO), announced("capturing the model", patience=0):
        monkeypatch.setattr("sys.stderr", io.StringIO())  # As torch.export's output is held back.
        assert terminal.written.wait(60)
    assert terminal.getvalue() == "fxtrt: capturing the model\n"
    assert caplog.text == ""


def test_what_is_quick_is_not(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO), announced("capturing the model", patience=600):
        pass
    assert terminal.getvalue() == caplog.text == ""
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_elsewhere_it_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), announced("capturing the model"):
        pass
    start, end = caplog.messages
    assert start == "capturing the model"
    assert end.startswith("capturing the model: done after ")


def test_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with announced("capturing the model"):
        pass


def test_every_stage_says_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    shapes = ({0: Dim("batch", min=2, max=8)},)
    with caplog.at_level(logging.INFO, "fxtrt"):
        fxtrt.compile(model, (torch.randn(3, 4),), dynamic_shapes=shapes, engine="reference")
    stages = [text for text in caplog.messages if ": done after" not in text]
    assert stages == [
        "capturing the model (Sequential), with sizes that vary",
        "simplifying a graph of 9 nodes",
        "building engines: 1",
    ]
