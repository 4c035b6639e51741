"""The documents' examples that compile a detector run with small ones, and are held to bars."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_check
import pytest
import torch
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
    text, failed = report([row], BARS, None)
    assert not failed, text
    assert text.splitlines()[-1].endswith("kept")


@pytest.mark.slow
@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")
def test_a_detector_of_detectron2_keeps_its_bars(tmp_path: Path) -> None:
    row = run("readme", detectron2_case(), tmp_path)
    text, failed = report([row], BARS, None)
    assert not failed, text


def test_an_example_that_fails_is_a_row_that_misses_its_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Example("readme", "README.md", ("no such line",), ("small",), lambda *_: {})
    monkeypatch.setitem(BY_KEY, "readme", broken)
    row = run("readme", torchvision_case(), tmp_path)
    assert row["problem"] == "ValueError: README.md has 0 blocks with 'no such line', not one"
    text, failed = report([row], BARS, None)
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
    row = check(torchvision_case(), fixed, SIZE, options, PLAN, other_sizes=((200, 100),))
    assert row["fallbacks"] == 1
    text, failed = report([row], BARS, None)
    assert failed
    assert "fallbacks is 1, at most 0 is wanted" in text


def test_one_row_below_its_bar_fails_the_whole() -> None:
    good = {"family": "mask", "example": "readme", "flops_share": 1.0, "agreement": 1.0}
    good["fallbacks"] = 0
    text, failed = report([good, {**good, "flops_share": 0.068}], BARS, None)
    assert failed
    assert [line.endswith("kept") for line in text.splitlines()[-2:]] == [True, False]


def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *given: str, **values: Any) -> int:
    """Run the command with rows of these values in place of measurements."""
    kept = {"flops_share": 1.0, "agreement": 1.0, "pixels": 1.0, "fallbacks": 0, "seconds": 9.0}

    def measured(case: Case, example: Example, *_: Any) -> dict[str, Any]:
        return {"family": case.key, "example": example.key, **kept, **values}

    monkeypatch.setattr(gpu_check, "check", measured)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = ["--out", str(tmp_path), "--engine", "reference"]
    return gpu_check.main([*out, *given])


def test_the_exit_status_tells_of_a_bar_that_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(tmp_path, monkeypatch, "--family", "mask") == 0
    assert run_main(tmp_path, monkeypatch, "--family", "c4", flops_share=0.068) == 1
    assert "flops_share is 0.068, at least 0.9 is wanted" in capsys.readouterr().out
    # What an earlier run missed is missed until it is measured again.
    assert run_main(tmp_path, monkeypatch, "--family", "mask") == 1
    path = tmp_path / "cpu" / "gpu_check.json"
    assert gpu_check.main(["--read", str(path)]) == 1
    assert run_main(tmp_path, monkeypatch, "--family", "c4", "--again") == 0
    assert gpu_check.main(["--read", str(path)]) == 0


def test_all_asks_for_every_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(tmp_path, monkeypatch, "--family", "mask", "--all") == 1
    assert run_main(tmp_path, monkeypatch, "--all") == 0
    record = json.loads((tmp_path / "cpu" / "gpu_check.json").read_text())
    assert len(record["rows"]) == sum(len(example.families) for example in EXAMPLES)


def test_files_of_other_machines_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_main(tmp_path / "a", monkeypatch, "--family", "mask")
    run_main(tmp_path / "b", monkeypatch, "--family", "c4", fallbacks=3)
    other = str(tmp_path / "b" / "cpu" / "gpu_check.json")
    assert run_main(tmp_path / "a", monkeypatch, "--family", "mask", "--merge", other) == 1


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
