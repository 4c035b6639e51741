"""The prose of the project is plain, and conditions are written as what they mean."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fxtrt", "converters", "passes")
OTHERS = ("tests", "benchmarks", "docs", "examples")
EXEMPT = ("CHANGELOG.md", Path(__file__).name)
"""Files that quote old phrases."""

PHRASES = (
    r"the way of the data",
    r"of an example below",
    r"# what varies from call to call",
    r"tak(?:e|es|en|ing) for granted",
    r"another one may have got",
    r"asks whether there is any",
    r"since none may have any",
    r"slip of the pen",
)
"""Idioms that a reader must decode; plain words for some are pipeline, dynamic sizes and guard."""
FRAGMENT = ("Of", "What", "Whether", "Which", "Why", "How", "Where")
"""First words of module docstrings that do not say what the module does."""
VAGUE = {"border", "calls", "cuts", "halving", "lengths", "lists", "outside", "records"}
"""Names of modules that tell a stranger nothing."""


def files(suffix: str, folders: tuple[str, ...] = (*PACKAGES, *OTHERS)) -> dict[str, str]:
    """Return the texts of the project's files by their paths."""
    found = {path for folder in folders for path in (ROOT / folder).rglob(f"*{suffix}")}
    found.update(ROOT.glob(f"*{suffix}"))
    paths = sorted(path for path in found if path.name not in EXEMPT)
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def test_no_file_has_an_idiom_that_must_be_decoded() -> None:
    idiom = re.compile("|".join(PHRASES), re.IGNORECASE)
    texts = {**files(".py"), **files(".md")}
    assert len(texts) > 300
    assert {n: f for n, text in texts.items() if (f := idiom.findall(" ".join(text.split())))} == {}


def test_no_comment_puts_the_owned_before_its_owner() -> None:
    """No sentence begins like "Of a failed build, the reason"."""
    odd = {
        name: [one for one in prose(t) if one.startswith("Of ")] for name, t in files(".py").items()
    }
    assert {name: found for name, found in odd.items() if found} == {}


def test_a_module_says_what_it_does() -> None:
    first = {
        name: (ast.get_docstring(ast.parse(text)) or " ").split()[0]
        for name, text in files(".py", PACKAGES).items()
    }
    assert {name: word for name, word in first.items() if word in FRAGMENT} == {}
    assert [name for name in first if Path(name).stem in VAGUE] == []


def test_no_condition_is_a_riddle() -> None:
    found = {name: riddles(text) for name, text in files(".py").items()}
    assert {name: code for name, code in found.items() if code} == {}


@pytest.mark.parametrize(
    ("code", "is_riddle"),
    [
        ("sum(fold(n) for n in nodes) > 0", True),
        ("0 < sum(found)", True),
        ("sum(found) >= 1", True),
        ("(False, True)[: 1 + _GPU]", True),
        ("[True, False][kind]", True),
        ("list(_KINDS.values())[kind]", True),
        ("x.sum(-1) > 0", False),
        ("sum(sizes) > 5", False),
        ("(3, 4)[side]", False),
        ("list(stack.values())[-1]", False),
    ],
)
def test_a_riddle_is_told_from_similar_code(code: str, is_riddle: bool) -> None:
    assert bool(riddles(code)) == is_riddle


def prose(text: str) -> Iterator[str]:
    """Yield the docstrings, also those of attributes, and the first line of each comment."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                yield token.string.lstrip("# ")
            last = token.start[0]


def riddles(text: str) -> list[str]:
    """Return the expressions that count or index to express a condition or a name."""
    riddle = re.compile(
        r"sum\((?:.*)\) (?:> 0|>= 1)|0 < sum\(.*\)"
        r"|[([](?:True|False)(?:, (?:True|False))+[)\]]\[.*\]"
        r"|(?:list|tuple)\([\w.]+\.values\(\)\)\[[A-Za-z_]\w*\]"
    )
    kinds = (ast.Compare, ast.Subscript)
    codes = [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return [code for code in codes if riddle.fullmatch(code)]
