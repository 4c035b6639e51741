"""A measured row is held to the bars of its example, its family and its GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from detector_cases import CASES
from documented_detectors import EXAMPLES
from gpu_bars import Bars, read_bars

BARS = Bars(
    {
        "all": {"least": {"flops_share": 0.9}, "most": {"fallbacks": 0, "host_waits": 1}},
        "examples": {"loose": {"least": {"flops_share": 0.5}}, "alone": {"only": True}},
        "families": {"panoptic": {"most": {"host_waits": 3}}},
        "ms_per_image": {"H200, fp16, level 3": {"mask": 3.0}},
    }
)

FP16 = {"precision": "fp16"}


def row(**values: Any) -> dict[str, Any]:
    kept = {"flops_share": 1.0, "fallbacks": 0, "host_waits": 1, "ms_per_image": 2.5}
    return {"family": "mask", "example": "readme", **kept, **values}


def test_a_row_that_keeps_all_bars() -> None:
    assert BARS.missed(row(), "H200", FP16) == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"flops_share": 0.068}, "flops_share is 0.068, at least 0.9 is wanted"),
        ({"fallbacks": 2}, "fallbacks is 2, at most 0 is wanted"),
        ({"host_waits": 13.0}, "host_waits is 13, at most 1 is wanted"),
        ({"ms_per_image": 26.3}, "ms_per_image is 26.3, at most 3 is wanted"),
        ({"flops_share": float("nan")}, "flops_share is nan, at least 0.9 is wanted"),
        ({"host_waits": None}, "host_waits is missing, at most 1 is wanted"),
        ({"problem": "CaptureError: no"}, "CaptureError: no"),
    ],
)
def test_a_row_that_misses_a_bar_says_which(values: dict[str, Any], line: str) -> None:
    assert BARS.missed(row(**values), "H200", FP16) == [line]


def test_a_bar_on_time_is_for_one_gpu_precision_and_level() -> None:
    slow = row(ms_per_image=100.0)
    assert BARS.missed(slow, "H100", FP16) == []
    assert BARS.missed(slow, "H200") == []
    assert BARS.missed(slow, "H200", {**FP16, "optimization_level": 0}) == []
    assert len(BARS.missed(slow, "H200", FP16)) == 1


def test_a_cpu_is_let_off_what_only_a_gpu_has() -> None:
    assert BARS.missed(row(host_waits=None)) == []
    assert BARS.missed(row(flops_share=None)) == ["flops_share is missing, at least 0.9 is wanted"]


def test_bars_of_examples_and_families_take_the_place_of_others() -> None:
    assert BARS.missed(row(example="loose", flops_share=0.6)) == []
    assert BARS.missed(row(example="alone", flops_share=0.0)) == []
    assert BARS.missed(row(family="panoptic", host_waits=3), "H200") == []


def test_the_file_names_only_what_there_is(tmp_path: Path) -> None:
    read_bars()
    path = Path(read_bars.__code__.co_filename).with_name("gpu_bars.json")
    record = json.loads(path.read_text())
    assert set(record["examples"]) <= {example.key for example in EXAMPLES}
    assert set(record["families"]) <= set(CASES)
    assert all(set(times) <= set(CASES) for times in record["ms_per_image"].values())
    wrong = tmp_path / "bars.json"
    wrong.write_text('{"family": {}}')
    with pytest.raises(ValueError, match=r"has \['family'\]"):
        read_bars(wrong)
