"""The operator table: at least one row per converted overload, in a file per converter family."""

from __future__ import annotations

import importlib
import pkgutil

from oprow import OpRow

ROWS: list[OpRow] = [
    row
    for family in sorted(module.name for module in pkgutil.iter_modules(__path__))
    for row in importlib.import_module(f"{__name__}.{family}").ROWS
]
