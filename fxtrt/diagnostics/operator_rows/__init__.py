"""The operator table: at least one row per converted overload, in a file per converter family."""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict

from torch._ops import OpOverload

from .row import OpRow

__all__ = ["FAMILIES", "ROWS", "ROWS_OF"]

FAMILIES: dict[str, list[OpRow]] = {
    name: importlib.import_module(f"{__name__}.{name}").ROWS
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name != "row"
}
"""The rows by family; a module of `fxtrt.converters` has the same name."""

ROWS: list[OpRow] = [row for rows in FAMILIES.values() for row in rows]

ROWS_OF: dict[OpOverload, list[OpRow]] = defaultdict(list)
"""The rows that convert, by operator."""
for _row in ROWS:
    if _row.rejected is None:
        ROWS_OF[_row.target].append(_row)
