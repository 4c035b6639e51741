"""The documents' examples that compile a detector run with small ones, and are held to bars."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detector_cases import CASES, Case
from detector_timing import Plan
from documented_detectors import EXAMPLES, OTHERS, Example, blocks, find_block
from gpu_bars import Bars
from gpu_check import check, report
from markdown_files import DOCUMENTS, name_of
from torchvision.models.detection import FasterRCNN

SIZE = (128, 160)
COMPILES = ("fxtrt.compile(", "fxtrt.load(", 'backend="fxtrt"')
PLAN = Plan(seconds=0.0, threads=(), warm_up=0)
BY_KEY = {example.key: example for example in EXAMPLES}
BARS = Bars({"all": {"least": {"flops_share": 0.9, "agreement": 0.99}, "most": {"fallbacks": 0}}})


def torchvision_case() -> Case:
    from small_torchvision import small_rcnn

    return Case("small", "", "torchvision", lambda size: copy.deepcopy(small_rcnn(FasterRCNN)))


def detectron2_case() -> Case:
    from small_detectron2 import small_detector

    return Case("small", "", "detectron2", lambda size: copy.deepcopy(small_detector("RetinaNet")))


def run(key: str, case: Case, cache: Path) -> dict[str, Any]:
    options = {"engine": "reference", "cache_dir": cache}
    return check(case, BY_KEY[key], SIZE, options, PLAN, other_sizes=())


@pytest.mark.slow
@pytest.mark.parametrize("key", ["readme", "deploy"])
def test_an_example_keeps_its_bars(key: str, tmp_path: Path) -> None:
    row = run(key, torchvision_case(), tmp_path)
    assert row.get("problem") is None
    assert row["compared"] >= 10
    text, failed = report([row], BARS, None, "model")
    assert not failed, text
    assert text.splitlines()[-1].endswith("kept")


@pytest.mark.slow
@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")
def test_a_detector_of_detectron2_keeps_its_bars(tmp_path: Path) -> None:
    row = run("readme", detectron2_case(), tmp_path)
    text, failed = report([row], BARS, None, "model")
    assert not failed, text


def test_an_example_that_fails_is_a_row_that_misses_its_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Example("readme", "README.md", ("no such line",), ("small",), lambda *_: {})
    monkeypatch.setitem(BY_KEY, "readme", broken)
    row = run("readme", torchvision_case(), tmp_path)
    assert row["problem"] == "ValueError: README.md has 0 blocks with 'no such line', not one"
    text, failed = report([row], BARS, None, "model")
    assert failed
    assert "README.md has 0 blocks" in text


@pytest.mark.slow
def test_images_that_run_in_pytorch_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    code = "fast = fxtrt.compile(detector, (images,), dynamic_shapes={})"
    page.write_text(f"```python\n{code}\n```\n")
    fixed = replace(BY_KEY["readme"], document=str(page), lines=("dynamic_shapes",))
    options = {"engine": "reference", "cache_dir": tmp_path / "cache"}
    row = check(torchvision_case(), fixed, SIZE, options, PLAN, other_sizes=((100, 160),))
    assert row["fallbacks"] == 1
    text, failed = report([row], BARS, None, "model")
    assert failed
    assert "fallbacks is 1, at most 0 is wanted" in text


def test_one_row_below_its_bar_fails_the_whole() -> None:
    good = {"family": "mask", "example": "readme", "flops_share": 1.0, "agreement": 1.0}
    good["fallbacks"] = 0
    text, failed = report([good, {**good, "flops_share": 0.068}], BARS, None, "model")
    assert failed
    assert [line.endswith("kept") for line in text.splitlines()[-2:]] == [True, False]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.key)
def test_the_documents_have_the_blocks_of_each_example(example: Example) -> None:
    codes = [find_block(example.document, line) for line in example.lines]
    assert any(name in code for code in codes for name in COMPILES)
    assert set(example.families) <= set(CASES)


def test_every_block_that_compiles_is_an_example_or_no_detector() -> None:
    unknown = []
    for path in DOCUMENTS:
        document = name_of(path)
        lines = [line for e in EXAMPLES if e.document == document for line in e.lines]
        lines += OTHERS.get(document, ())
        unknown += [
            f"{document}: {code}"
            for code in blocks(document)
            if any(name in code for name in COMPILES) and not any(line in code for line in lines)
        ]
    assert unknown == []


def test_the_readme_runs_with_ten_families() -> None:
    assert len(set(BY_KEY["readme"].families)) == 10
