"""A file with weights of Detectron2's models answers as the compiled model, without Detectron2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_cores import assert_agree_exactly, detector, example, photo
from small_detectron2 import FAMILIES
from test_alone import OPTIONS, answers_elsewhere, assert_equal

import fxtrt
from fxtrt.artifact.verify import verify
from fxtrt.detection.detectron2.panoptic_segments import Thresholds, combine
from fxtrt.detection.detectron2.results import plain
from fxtrt.errors import ArtifactError, CallError

pytestmark = [pytest.mark.detectron2, pytest.mark.slow, pytest.mark.usefixtures("no_grad")]

CALLS = [
    [photo(192, 224)],
    [photo(192, 224) | {"file_name": "a.jpg", "height": 100, "width": 90}, photo(160, 200)],
]


def plain_inputs(call: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in one.items() if k != "file_name"} for one in call]
