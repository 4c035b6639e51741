"""The operator table: at least one row per converted overload, in a file per converter family."""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict

from oprow import OpRow
from torch._ops import OpOverload

ROWS: list[OpRow] = [
    row
    for family in sorted(module.name for module in pkgutil.iter_modules(__path__))
    for row in importlib.import_module(f"{__name__}.{family}").ROWS
]

ROWS_OF: dict[OpOverload, list[OpRow]] = defaultdict(list)
"""The rows that convert, by operator."""
for _row in ROWS:
    if _row.rejected is None:
        ROWS_OF[_row.target].append(_row)
