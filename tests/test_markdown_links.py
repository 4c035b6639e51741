"""Every relative link of every Markdown file leads somewhere, and every page is in the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_files import DOCUMENTS, ROOT, anchors, links, name_of

_ELSEWHERE = re.compile(r"^[a-z]+:")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_relative_links_and_anchors_exist(path: Path) -> None:
    broken = []
    for link in links(path.read_text()):
        if _ELSEWHERE.match(link):
            continue
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
            broken.append(link)
    assert broken == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {
        (index.parent / link.partition("#")[0]).resolve() for link in links(index.read_text())
    }
    pages = {path for path in DOCUMENTS if index.parent in path.parents} - {index}
    assert {name_of(page) for page in pages - linked} == set()


def test_links_are_read_outside_of_code_only() -> None:
    text = "[a](b.md#c) `[d](e)`\n```\n[f](g)\n```\n<!-- [h](i) -->\n[j](<k> 'title')\n"
    assert list(links(text)) == ["b.md#c", "k"]


def test_anchors_are_made_as_github_makes_them() -> None:
    text = "# One, two\n\n## `fxtrt.save` & load\n\n## Same\n\n## Same\n\n```\n# no heading\n```\n"
    assert anchors(text) == {"one-two", "fxtrtsave--load", "same", "same-1"}
