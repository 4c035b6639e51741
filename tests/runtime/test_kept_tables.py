"""A replay copies a table again if a call was interrupted between the copy and its note."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fxtrt.detection import small_tables
from fxtrt.runtime.cuda_graphs import Replay


class _Interrupting(list[Any]):
    """Notes of what was copied; an exception comes before the next table is noted."""

    armed = False

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.armed and value is not None:
            self.armed = False
            raise KeyboardInterrupt
        super().__setitem__(index, value)


def _table(number: float) -> torch.Tensor:
    table = torch.tensor([number])
    table.__dict__[small_tables._KEPT] = True
    return table


def test_an_interrupted_copy_is_not_taken_for_the_table_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    mine = torch.zeros(1)
    replay = object.__new__(Replay)
    notes = _Interrupting([None])
    vars(replay).update(
        _last=stream,
        _inputs=[mine],
        _outputs=[mine],
        _copied=notes,
        _graph=SimpleNamespace(replay=lambda: None),
    )
    first, second = _table(1.0), _table(2.0)
    assert replay([first])[0].item() == 1.0
    notes.armed = True
    with pytest.raises(KeyboardInterrupt):
        replay([second])
    assert replay([first])[0].item() == 1.0
