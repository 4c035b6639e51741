"""Digests of code change with the packages that they depend on, and with no others."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import fxtrt
from fxtrt.serialization import digests
from fxtrt.serialization.digests import (
    CAPTURE_CODE,
    NETWORK_CODE,
    capture_digest,
    code_digest,
)

SOURCE = Path(fxtrt.__file__).parent
HARMLESS = {
    "announce": "says what is going on",
    "cache": "keeps plans as they are",
    "errors": "only messages",
    "forks": "locks",
    "pass_manager": "what the passes did shows in the cluster's graph",
    "runtime": "runs what was built",
    "settings": "the values are in the key",
}
"""Modules that the code of networks or captures imports, and that decide nothing, with reasons."""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of fxtrt whose files are the ones that the digests cover."""
    root = tmp_path / "fxtrt"
    shutil.copytree(SOURCE, root, ignore=shutil.ignore_patterns("__pycache__"))

    def origin(name: str) -> Path:
        module = root / f"{name}.py"
        return module if module.is_file() else root / name / "__init__.py"

    monkeypatch.setattr(digests, "_origin", origin)
    _forget()
    yield root
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    code_digest.cache_clear()
    capture_digest.cache_clear()


def _changed_by_edits(root: Path, digest: Callable[[], str]) -> set[str]:
    """The modules and packages of `root` where an edit of any file changes the digest."""
    changed = set()
    before = digest()
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        path.write_text(f"{text}\n# edited\n")
        _forget()
        if digest() != before:
            changed.add(path)
        path.write_text(text)
    _forget()
    assert digest() == before
    files = {
        place: set(place.rglob("*.py")) or {place}
        for place in root.iterdir()
        if place.suffix == ".py" or (place / "__init__.py").is_file()
    }
    whole = {place.stem for place, own in files.items() if own <= changed}
    partly = {place.stem for place, own in files.items() if own & changed}
    assert whole == partly
    return whole


def test_an_edit_changes_the_digest_of_networks_only_where_networks_are_made(copy: Path) -> None:
    changed = _changed_by_edits(copy, code_digest)
    assert changed == {
        *("builder", "conversion", "converters", "engines", "graph", "passes", "registry")
    }


def test_an_edit_changes_the_digest_of_captures_only_where_graphs_are_made(copy: Path) -> None:
    changed = _changed_by_edits(copy, capture_digest)
    assert changed == {"capture", "detection", "graph", "registry", "serialization"}


def test_a_new_file_below_a_package_counts(copy: Path) -> None:
    before = code_digest()
    (copy / "engines" / "interpreter" / "another.py").write_text("")
    _forget()
    assert code_digest() != before


@pytest.mark.parametrize("name", sorted({*NETWORK_CODE, *CAPTURE_CODE}))
def test_a_name_leads_to_the_files_that_are_imported(name: str) -> None:
    expected = SOURCE if name == "registry" else SOURCE / name
    assert digests._origin(name).parent.resolve() == expected.resolve()
    assert digests._sources([name])


@pytest.mark.parametrize("names", [NETWORK_CODE, CAPTURE_CODE], ids=["networks", "captures"])
def test_the_code_of_a_digest_imports_nothing_that_decides_besides(names: tuple[str, ...]) -> None:
    imported = {name for file in digests._sources(names) for name in _imports(file)}
    assert imported - {*names, *HARMLESS} == set()


def _imports(file: Path) -> Iterator[str]:
    """The modules and packages right below fxtrt that a file of it imports."""
    inside = file.resolve()
    linked = inside.parts[-2] in ("converters", "passes")
    package = ("fxtrt", inside.parts[-2]) if linked else _package(inside)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            absolute = resolve_name(name, ".".join(package)) if node.level else name
            for path in (f"{absolute}.{alias.name}" for alias in node.names):
                if path.startswith("fxtrt."):
                    yield path.split(".")[1]


def _package(file: Path) -> tuple[str, ...]:
    return ("fxtrt", *file.parent.relative_to(SOURCE.resolve()).parts)
