"""Imports between packages go one way, in the order of the pipeline."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = (
    "errors",
    "forks",
    "announce",
    "files",
    "settings",
    "registry",
    "graph",
    "numerics",
    "engines",
    "detection",
    "conversion",
    "passes",
    "pass_manager",
    "converters",
    "serialization",
    "capture",
    "partition",
    "cache",
    "runtime",
    "builder",
    "reporting",
    "quantization",
    "lowering",
    "accuracy",
    "backend",
    "ahead_of_time",
    "artifact",
    "diagnostics",
    "cli",
)
"""From what everything may import to what nothing may. `__init__` and `__main__` stand outside."""

MOST_MODULES_AT_THE_TOP = 10


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, once, whatever links lead to it."""
    found = {}
    for folder, package in (
        ("fxtrt", "fxtrt"),
        ("converters", "fxtrt.converters"),
        ("passes", "fxtrt.passes"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "fxtrt" and parts[0] in ("converters", "passes"):
                continue
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(module: str) -> Iterator[str]:
    """The modules of fxtrt that `module` imports, also within functions."""
    path = MODULES[module]
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("fxtrt."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            if name.split(".")[0] == "fxtrt":
                full = (f"{name}.{alias.name}" for alias in node.names)
                yield from (one if one in MODULES else name for one in full)


def room(module: str) -> str:
    """The package or top-level module that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def test_the_order_names_every_package_and_no_other() -> None:
    there = {room(module) for module in MODULES} - {"", "__main__"}
    assert there == set(ORDER)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_lead_to_earlier_packages(module: str) -> None:
    here = room(module)
    if here in ("", "__main__"):
        return
    upwards = [
        f"{module} imports {other}"
        for other in imported(module)
        if room(other) not in ("", here) and ORDER.index(room(other)) > ORDER.index(here)
    ]
    assert upwards == []


def test_modules_form_no_circle() -> None:
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join((*path, module))
        if module in state:
            return
        state[module] = 1
        for other in imported(module):
            if other in MODULES and room(other) and other != module:
                visit(other, (*path, module))
        state[module] = 2

    for module in MODULES:
        if room(module) not in ("", "__main__"):
            visit(module, ())


def test_the_top_holds_few_modules() -> None:
    top = [path.name for path in (ROOT / "fxtrt").glob("*.py")]
    assert len(top) <= MOST_MODULES_AT_THE_TOP, sorted(top)
