"""The command line, run in this process."""

from __future__ import annotations

import sys

import pytest

from fxtrt.cli.main import main

__all__ = ["run"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `fxtrt arguments`."""
    monkeypatch.setattr(sys, "argv", ["fxtrt", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
