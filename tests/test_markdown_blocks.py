"""Every Python block of every Markdown file runs; the blocks of one file share their names."""

from __future__ import annotations

import importlib.util
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from markdown_files import DOCUMENTS, name_of

from fxtrt import registered, registry
from fxtrt.detection import recipes

sybil = pytest.importorskip("sybil", reason="sybil is not installed")

from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser  # noqa: E402  # see above

_FENCE = "```python"
_SETUP = "invisible-code-block: python"
_NEEDS_DETECTRON2 = 'skip: start if(missing("detectron2")'
_DETECTRON2 = (
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
)


def _pages() -> Iterator[Any]:
    for path in DOCUMENTS:
        text = path.read_text()
        if _FENCE in text or _SETUP in text:
            marks = _DETECTRON2 if _NEEDS_DETECTRON2 in text else ()
            yield pytest.param(path, marks=marks, id=name_of(path))


@pytest.fixture
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder, a cache and registries of its own, and the engine that runs anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FXTRT_ENGINE", "reference")
    monkeypatch.setenv("FXTRT_CACHE_DIR", str(tmp_path / "cache"))
    registered()
    converters, known = dict(registry._CONVERTERS), dict(recipes._RECIPES)
    deferred = dict(registry._DEFERRED)
    torch.manual_seed(0)
    yield
    for target in set(registry._CONVERTERS) - set(converters):
        del registry._CONVERTERS[target]
    # Converters of packages that a document imported are among those that were taken away.
    registry._DEFERRED.update(deferred)
    for architecture in set(recipes._RECIPES) - set(known):
        del recipes._RECIPES[architecture]
    torch.compiler.reset()


def missing(package: str) -> bool:
    """Whether a block that needs `package` cannot run; for the conditions of `skip`."""
    if package == "detectron2":
        try:
            require_detectron2()
        except pytest.skip.Exception:
            return True
        return False
    return importlib.util.find_spec(package) is None


@pytest.mark.slow
@pytest.mark.usefixtures("_apart")
@pytest.mark.parametrize("path", list(_pages()))
def test_python_blocks_run(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fallbacks() -> list[str]:
        """What fxtrt has logged of calls that ran in PyTorch, for blocks that a reader sees not."""
        return [message for message in caplog.messages if "runs in PyTorch" in message]

    skipped = run_blocks(path, missing=missing, fallbacks=fallbacks)
    for reason in skipped:
        print(f"{name_of(path)}: {reason}")


def run_blocks(path: Path, **names: Any) -> list[str]:
    """Run the blocks of a file in order, with `names`; returns why some were skipped."""
    parsers = [PythonCodeBlockParser(), SkipParser()]
    document = sybil.Sybil(parsers=parsers, path=str(path.parent)).parse(path)
    document.namespace.update(names)
    skipped = []
    for example in document.examples():
        try:
            example.evaluate()
        except unittest.SkipTest as reason:
            skipped.append(f"line {example.line}: {reason}")
    return skipped


def test_a_block_that_fails_fails_the_test(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError):
        run_blocks(page)


def test_a_block_is_skipped_with_its_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- skip: next if(missing('no_such_package'), reason='needs it') -->\n\n"
        "```python\nimport no_such_package\n```\n\n```python\nx = 1\n```\n"
    )
    assert run_blocks(page, missing=missing) == ["line 3: needs it"]


def test_every_block_is_python_or_says_what_it_is() -> None:
    """A block without a language is not run, so it must not be taken for one that is."""
    unnamed = []
    for path in DOCUMENTS:
        inside = False
        for line in path.read_text().splitlines():
            if line.lstrip().startswith("```"):
                if not inside and line.strip() == "```":
                    unnamed.append(name_of(path))
                inside = not inside
    assert unnamed == []
