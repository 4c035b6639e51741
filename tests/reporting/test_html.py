"""The page of a report in headless Chromium: it opens, folds, and shows reasons."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_rows import CLUSTER, REJECTED

import fxtrt
from fxtrt.reporting import Coverage
from fxtrt.reporting.folding import boxes
from fxtrt.reporting.picture import Picture, PictureNode

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def a_coverage(layers: int = 3, nodes: int = 4) -> Coverage:
    """Layers of a chain: all in an engine, but the first node of each, for a reason with markup."""
    drawn = tuple(
        PictureNode(f"n{i}_{j}", "aten.relu.default", f"body.layer{i}", *((0,) if j else (None, 0)))
        for i in range(layers)
        for j in range(nodes)
    )
    edges = tuple((i, i + 1) for i in range(len(drawn) - 1))
    rejected = replace(
        REJECTED, code="check", detail="a </script> & <b>reason</b>", source="model.py:7 in f"
    )
    return Coverage((CLUSTER,), (rejected,), pictures=(Picture(drawn, edges),))


def test_boxes_nest_modules_and_split_long_ones() -> None:
    (picture,) = a_coverage(layers=2, nodes=50).pictures
    found = boxes(picture)["boxes"]
    modules = [label for label, _, node in found if node < 0]
    assert modules == ["body", "layer0", "layer1", "1 to 40", "41 to 50", "1 to 40", "41 to 50"]
    assert all(parent < i for i, (_, parent, _) in enumerate(found))
    assert sorted(node for _, _, node in found if node >= 0) == list(range(100))


def test_the_page_is_one_file(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    a_coverage().to_html(page)
    text = page.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text)
    assert "a &lt;/script&gt; &amp;" in text


def drive(page: Path, script: str) -> tuple[Any, str]:
    """What `script` returns in the page, and what the page wrote to the console."""
    assert CHROMIUM is not None
    driven = page.with_name("driven.html")
    probe = f"<script>document.title = JSON.stringify((() => {{{script}}})());</script></body>"
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=10000"]
    command += [f"--user-data-dir={page.parent / 'profile'}", driven.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    title = re.search(r"<title>(.*?)</title>", result.stdout, re.DOTALL)
    assert title is not None
    unescaped = title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescaped), "\n".join(console)


FOLD = """
  const shown = () => document.querySelectorAll("#picture g").length;
  const click = (box) => box.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  const counts = [shown()];
  click(document.querySelector("#fold"));
  counts.push(shown());
  click(document.querySelector("#picture g.module"));
  counts.push(shown());
  click(document.querySelectorAll("#picture g.module")[1]);
  counts.push(shown());
  const node = document.querySelector("#picture g.node");
  node.dispatchEvent(new MouseEvent("mousemove", { bubbles: true }));
  return [counts, document.getElementById("tip").textContent];
"""


@needs_chromium
def test_it_opens_folds_and_shows_a_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    a_coverage().to_html(page)
    (counts, tip), console = drive(page, FOLD)
    assert console == ""
    assert counts == [1 + 3 + 12, 1, 1 + 3, 1 + 3 + 4]
    assert tip.startswith("n0_0: aten.relu.default\nbody.layer0\n")
    assert "check: a </script> & <b>reason</b>\nmodel.py:7 in f" in tip


@needs_chromium
def test_five_thousand_nodes_start_folded(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    a_coverage(layers=50, nodes=100).to_html(page)
    script = """
      const unfold = document.getElementById("unfold");
      const counts = [];
      for (let i = 0; i < 4; i++) {
        counts.push(document.querySelectorAll("#picture g").length);
        unfold.click();
      }
      return [counts, document.getElementById("status").textContent];
    """
    (counts, status), console = drive(page, script)
    assert console == ""
    assert counts == [1, 51, 201, 201]
    assert "nothing more to unfold within 600 boxes" in status


@needs_chromium
def test_a_report_without_graphs_opens(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    fxtrt.Coverage().to_html(page)
    text, console = drive(page, 'return document.getElementById("picture").textContent;')
    assert (text, console) == ("No graph was captured.", "")
