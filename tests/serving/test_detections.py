"""Answers of all libraries become outputs with names, and JSON."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import torch

from fxtrt.serving.detections import as_json, outputs_of


class Instances:
    """As Detectron2's: fields, of which boxes are a class of their own."""

    def get_fields(self) -> dict[str, Any]:
        return {
            "pred_boxes": SimpleNamespace(tensor=torch.tensor([[1.0, 2.0, 3.0, 4.0]])),
            "scores": torch.tensor([0.5]),
            "pred_classes": torch.tensor([7]),
        }


def test_detectron2s_own_answers() -> None:
    segments = [{"id": 1, "isthing": True, "category_id": 3}]
    answer = {
        "instances": Instances(),
        "sem_seg": torch.zeros(2, 2),
        "panoptic_seg": (torch.ones(2, 2, dtype=torch.int32), segments),
    }
    assert list(outputs_of(answer)) == [
        *("boxes", "scores", "labels", "sem_seg", "panoptic_seg", "segments_info")
    ]
    written = json.loads(json.dumps(as_json(answer)))
    assert written["boxes"] == [[1.0, 2.0, 3.0, 4.0]]
    assert written["labels"] == [7]
    assert written["panoptic_seg"] == [[1, 1], [1, 1]]
    assert written["segments_info"] == segments


def test_answers_without_names() -> None:
    assert list(outputs_of((torch.zeros(1), torch.ones(1)))) == ["output_0", "output_1"]
    assert as_json(torch.tensor([0.25, 0.5])) == {"output": [0.25, 0.5]}


def test_masks_are_too_much_for_json() -> None:
    answer = {"scores": torch.tensor([0.9]), "masks": torch.zeros(1, 1, 400, 400)}
    found = as_json(answer, 0.5)
    assert (list(found), found["omitted"]) == (["scores", "omitted"], ["masks"])
