"""The tree keeps its shape: packages, links, file sizes and names, and what an import pulls in."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fxtrt
from fxtrt.registry import registered

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("fxtrt", "converters", "passes", "tests", "benchmarks", "examples")
LINKED = ("converters", "passes")
VAGUE_NAMES = {"utils", "helpers", "common", "misc"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
HEAVY = ("tensorrt", "tensorrt_rtx", "detectron2", "torchvision", "onnx", "matplotlib", "rich")


def python_files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


FILES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in python_files()]


def test_the_package_list_is_what_is_on_disk() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "fxtrt").rglob("__init__.py")
    }
    for name in LINKED:
        packages = (ROOT / name).rglob("__init__.py")
        found |= {".".join(("fxtrt", *p.parent.relative_to(ROOT).parts)) for p in packages}
    assert sorted(config["packages"]) == sorted(found)
    for name in LINKED:
        assert config["package-dir"][f"fxtrt.{name}"] == name


def test_the_wheel_has_every_file_that_is_no_module() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk: dict[str, set[str]] = {}
    for path in (ROOT / "fxtrt").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            on_disk.setdefault(package, set()).add(path.name)
    assert {name: set(files) for name, files in config["package-data"].items()} == on_disk


def test_no_package_has_a_name_that_ruff_leaves_out() -> None:
    """Ruff skips a folder called `build`, for one, so nothing in it would be linted."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    parts = {part for name in config["setuptools"]["packages"] for part in name.split(".")}
    assert parts & {"build", "dist", "venv", "node_modules", "site-packages", "buck-out"} == set()
    assert not config["ruff"].keys() & {"exclude", "extend-exclude", "include"}


@pytest.mark.parametrize("name", LINKED)
def test_a_link_leads_to_its_folder(name: str) -> None:
    link = ROOT / "fxtrt" / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / name


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_small_and_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    assert path.stem not in VAGUE_NAMES
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    assert {f.name: n for f in functions if (n := _length(f)) > MAX_FUNCTION_LINES} == {}


def _length(function: ast.FunctionDef) -> int:
    """The lines of a function, its docstring left out."""
    documented = ast.get_docstring(function) is not None
    first = function.body[0]
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def test_import_is_light() -> None:
    code = f"import sys, fxtrt; fxtrt.compile; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert loaded.strip() == "[]"


@pytest.mark.parametrize(
    "statement",
    [
        "import fxtrt",
        "import fxtrt.cli.main; fxtrt.cli.main._cli(['--help'], standalone_mode=False)",
        "import fxtrt.cli.main; fxtrt.cli.main._cli(['--version'], standalone_mode=False)",
        "import fxtrt.cli.main; fxtrt.cli.main._cli(['report', '--help'], standalone_mode=False)",
        "import fxtrt.cli.main; fxtrt.cli.main._cli(['cache', 'ls'], standalone_mode=False)",
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(statement: str, tmp_path: Path) -> None:
    code = f"import sys; {statement}; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    environment = {**os.environ, "FXTRT_CACHE_DIR": str(tmp_path)}
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert printed.splitlines()[-1] == "[]"


def test_every_public_name_is_there_whatever_was_imported_before() -> None:
    """No module of the package has the name of a public function, which it would hide."""
    code = (
        "import fxtrt; assert set(fxtrt.__all__) <= set(dir(fxtrt)); import fxtrt.reporting.diff, "
        "fxtrt.backend, types; print({n: isinstance(getattr(fxtrt, n), types.ModuleType) "
        "for n in fxtrt.__all__})"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    modules = {name for name, is_module in ast.literal_eval(printed).items() if is_module}
    assert modules == {"detection", "errors"}
    with pytest.raises(AttributeError, match="no attribute 'repot'"):
        fxtrt.repot  # type: ignore[attr-defined]  # noqa: B018  # that is the point


@pytest.mark.parametrize("name", LINKED)
def test_a_linked_package_has_one_name(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True
    )
    assert f"this package is fxtrt.{name}" in result.stderr


def test_machinery_names_no_operator() -> None:
    """Operators have their place in converters/ and passes/; fxtrt/ asks the registry."""
    named = {
        path.name
        for path in python_files()
        if (ROOT / "fxtrt") in path.parents
        and "engines" not in path.parts
        and "ops.aten." in path.read_text()
    }
    assert named == set()


def test_every_converter_family_registers_something() -> None:
    pytest.importorskip("torchvision", reason="its operators have families of their own")
    families = {path.stem for path in (ROOT / "converters").glob("*.py")} - {"__init__"}
    modules = {c.build.__module__.rpartition(".")[2] for c in registered().values()}
    assert families - modules == set()
