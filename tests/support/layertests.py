"""Which types of layers the reference engine's own tests build."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "engines"


@cache
def unit_tested() -> frozenset[str]:
    """The LayerTypes whose `add_*` method occurs in tests/engines/test_reference*.py."""
    trees = (ast.parse(path.read_text()) for path in _FOLDER.glob("test_reference*.py"))
    methods = {name for tree in trees for name in _names(tree) if name.startswith("add_")}
    kinds = {re.sub(r"_(nd|v2)$", "", name.removeprefix("add_")).upper() for name in methods}
    # One method adds both.
    pair = {"ATTENTION_INPUT", "ATTENTION_OUTPUT"} if "ATTENTION" in kinds else set()
    return frozenset(kinds | pair)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
