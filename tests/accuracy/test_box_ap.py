"""Box AP has the values that a person computes, and those of pycocotools on a JSON of COCO's."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import annotation, detections

from fxtrt.accuracy import box_ap
from fxtrt.errors import AccuracyError

SQUARE = [0.0, 0.0, 100.0, 100.0]


def test_a_perfect_answer() -> None:
    truth = annotation([SQUARE, [200.0, 10.0, 260.0, 90.0]], [1, 2])
    assert box_ap([{**truth, "scores": torch.tensor([0.9, 0.2])}], [truth]) == pytest.approx(1.0)


def test_a_box_that_overlaps_by_072_passes_five_of_ten_thresholds() -> None:
    found = detections([[0.0, 0.0, 72.0, 100.0]], [1], [0.9])
    assert box_ap([found], [annotation([SQUARE], [1])]) == pytest.approx(0.5)


def test_a_false_alarm_of_a_higher_score_halves_the_precision() -> None:
    found = detections([SQUARE, [300.0, 0.0, 400.0, 100.0]], [1, 1], [0.5, 0.9])
    assert box_ap([found], [annotation([SQUARE], [1])]) == pytest.approx(0.5)


def test_classes_count_alike_however_many_boxes_they_have() -> None:
    boxes = [[x, 0.0, x + 50.0, 50.0] for x in (0.0, 100.0, 200.0, 300.0)]
    truth = annotation(boxes, [1, 1, 1, 2])
    assert box_ap([detections(boxes[:3], [1] * 3, [0.9] * 3)], [truth]) == pytest.approx(0.5)


def test_images_without_boxes_and_without_detections() -> None:
    nothing = detections([], [], [])
    truth = annotation([SQUARE], [0])
    empty: dict[str, Any] = {"boxes": [], "labels": []}
    assert box_ap([nothing, nothing], [truth, empty]) == 0.0
    alarm = detections([SQUARE], [0], [0.8])
    found = detections([SQUARE], [0], [0.9])
    assert box_ap([found, nothing], [truth, empty]) == pytest.approx(1.0)
    assert box_ap([{**found, "scores": torch.tensor([0.7])}, alarm], [truth, empty]) == (
        pytest.approx(0.5)
    )


def test_what_is_not_a_number_is_a_false_alarm_of_the_highest_score() -> None:
    truth = annotation([SQUARE], [1])
    for boxes, scores in (
        ([SQUARE, [float("nan")] * 4], [0.9, 0.1]),
        ([SQUARE, SQUARE], [0.9, float("nan")]),
    ):
        assert box_ap([detections(boxes, [1, 1], scores)], [truth]) == pytest.approx(0.5)


def random_answers(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions that are near the annotations, with false alarms and misses."""
    generator = torch.Generator().manual_seed(seed)
    found, truth = [], []
    for count in (7, 0, 12):
        corners = torch.rand(count, 2, generator=generator) * 300
        boxes = torch.cat(
            [corners, corners + 10 + torch.rand(count, 2, generator=generator) * 90], 1
        )
        labels = torch.randint(1, 4, (count,), generator=generator)
        truth.append({"boxes": boxes, "labels": labels})
        near = boxes + torch.randn(count, 4, generator=generator) * 4
        kept = torch.rand(count, generator=generator) < 0.8
        alarms = torch.rand(5, 4, generator=generator) * 100
        alarms[:, 2:] += alarms[:, :2]
        found.append(
            {
                "boxes": torch.cat([near[kept], alarms]),
                "labels": torch.cat([labels[kept], torch.randint(1, 4, (5,), generator=generator)]),
                "scores": torch.rand(int(kept.sum()) + 5, generator=generator),
            }
        )
    return found, truth


def ap_of_files(found: list[dict[str, Any]], truth: list[dict[str, Any]], folder: Path) -> float:
    """AP as a person computes it with pycocotools: from two files of COCO's."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "image_id": i + 1,
                "category_id": int(label),
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": (box[2] - box[0]) * (box[3] - box[1]),
                "iscrowd": 0,
                "score": score,
            }
            for i, one in enumerate(images)
            for box, label, score in zip(
                one["boxes"].double().tolist(),
                one["labels"].tolist(),
                one.get("scores", one["labels"]).tolist(),
                strict=True,
            )
        ]

    data = {
        "images": [{"id": i + 1} for i in range(len(truth))],
        "categories": [{"id": i} for i in (1, 2, 3)],
        "annotations": [{**row, "id": i + 1} for i, row in enumerate(rows(truth))],
    }
    (folder / "truth.json").write_text(json.dumps(data))
    (folder / "found.json").write_text(json.dumps(rows(found)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(folder / "truth.json")
        judged = COCOeval(coco, coco.loadRes(str(folder / "found.json")), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0])


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_pycocotools_computes_from_files(seed: int, tmp_path: Path) -> None:
    found, truth = random_answers(seed)
    wanted = ap_of_files(found, truth, tmp_path)
    assert 0.1 < wanted < 0.9
    assert box_ap(found, truth) == pytest.approx(wanted, abs=1e-12)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    box_ap([detections([SQUARE], [1], [0.9])], [annotation([SQUARE], [1])])
    assert capsys.readouterr().out == ""


FOUND, TRUTH = detections([SQUARE], [1], [0.9]), annotation([SQUARE], [1])


@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        ([FOUND], [TRUTH] * 2, "predictions for 1 images, but annotations for 2"),
        ([], [], "there are no images to judge by"),
        ([FOUND], [annotation([], [])], "none of the 1 images has an annotated box"),
        ([FOUND], [{"boxes": []}], r"annotation of image 0 has \['boxes'\], expected .* labels"),
        ([FOUND], [SQUARE], "annotation of image 0 has list, expected a mapping"),
        (
            [FOUND],
            [annotation([[10.0, 10.0, 5.0, 5.0]], [1])],
            r"image 0: box 0 is \[10.0, 10.0, 5.0, 5.0\], expected corners x1 < x2",
        ),
        ([FOUND], [annotation([[float("nan")] * 4], [1])], r"box 0 is \[nan, nan, nan, nan\]"),
        (
            [FOUND],
            [{"boxes": torch.zeros(2, 5), "labels": [1, 1]}],
            r"boxes have the shape \(2, 5\), expected \(N, 4\)",
        ),
        (
            [FOUND],
            [annotation([SQUARE], [1, 2])],
            r"labels have the shape \(2,\), expected \(1,\): one for each box",
        ),
        (
            [FOUND],
            [{"boxes": [SQUARE], "labels": [1.5]}],
            "labels have the dtype torch.float32, expected integers",
        ),
        (
            [{**FOUND, "scores": torch.ones(1, 1)}],
            [TRUTH],
            r"prediction for image 0: scores have the shape \(1, 1\)",
        ),
        ([torch.ones(3)], [TRUTH], "prediction for image 0 has Tensor, expected a mapping"),
    ],
)
def test_bad_input_is_named(found: list[Any], truth: list[Any], message: str) -> None:
    with pytest.raises(AccuracyError, match=message):
        box_ap(found, truth)


def test_a_missing_pycocotools_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(AccuracyError, match=r"pip install 'fxtrt\[accuracy\]'"):
        box_ap([FOUND], [TRUTH])
