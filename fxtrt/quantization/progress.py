"""Shows the progress of a calibration on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["shown"]

T = TypeVar("T")


def shown(items: Iterable[T], doing: str) -> Iterator[T]:
    """Yield `items`, with a bar on standard error if that is a terminal.

    The bar has no end if the items cannot be counted before.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    # rich is imported here, because it would make importing fxtrt slower.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining()
    count = len(items) if isinstance(items, Sized) else None
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=count, description=doing)
