"""Keep small tables of numbers on a device, so that calls of the same sizes copy nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["SmallTables", "is_kept"]

Rows = tuple[tuple[float, ...], ...]
_MOST = 512
"""The most tables that are kept; others are copied at each call. None is ever dropped, because
another stream may still read it."""
_KEPT = "fxtrt_kept"


def is_kept(tensor: Tensor) -> bool:
    """Return whether a tensor is a table that is kept, whose numbers never change."""
    return _KEPT in tensor.__dict__


class SmallTables:
    """Tables of float32 numbers on a device; any number of threads may ask for them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[torch.device, tuple[Rows, ...]], tuple[list[Tensor], Any]] = {}

    def on(self, device: torch.device, *tables: Rows) -> list[Tensor]:
        """Return the tables on `device`, each with rows of one length.

        The host does not wait for the copy, and the current stream does.
        """
        if device.type != "cuda":
            return [torch.tensor(rows, dtype=torch.float32, device=device) for rows in tables]
        known = self._kept.get((device, tables))
        if known is not None:
            copied, done = known
            torch.cuda.current_stream(device).wait_event(done)
            return copied
        copied = _copied(device, tables)
        if len(self._kept) < _MOST:
            for table in copied:
                table.__dict__[_KEPT] = True
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
            done.record(torch.cuda.current_stream(device))
            self._kept[device, tables] = copied, done
        return copied


def _copied(device: torch.device, tables: Sequence[Rows]) -> list[Tensor]:
    """Copy the tables together, from memory that the GPU can read while the host goes on."""
    numbers = [number for rows in tables for row in rows for number in row]
    pinned = torch.tensor(numbers, dtype=torch.float32, pin_memory=True)
    together = pinned.to(device, non_blocking=True)
    sizes = [len(rows) * len(rows[0]) for rows in tables]
    parts = torch.split(together, sizes)
    return [part.view(len(rows), -1) for part, rows in zip(parts, tables, strict=True)]
