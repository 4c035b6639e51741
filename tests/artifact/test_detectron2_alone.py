"""A file with weights of Detectron2's models answers as the compiled model, without Detectron2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2_cores import assert_agree_exactly, core_of, detector, photo
from detectron2_package import require_detectron2
from elsewhere import answers_elsewhere, assert_equal
from small_detectron2 import FAMILIES

import fxtrt
from fxtrt.artifact.verify import verify
from fxtrt.detection.detectron2.panoptic_segments import Thresholds, combine
from fxtrt.detection.detectron2.results import plain
from fxtrt.errors import CallError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.usefixtures("no_grad"),
]

CALLS = [
    [photo(192, 224)],
    [{**photo(192, 224), "height": 100, "width": 90}, photo(160, 200)],
]
KEYS = {
    "Mask R-CNN": ["boxes", "scores", "labels", "masks"],
    "Keypoint R-CNN": ["boxes", "scores", "labels", "keypoints"],
    "RPN": ["boxes", "objectness_logits"],
    "Semantic FPN": ["sem_seg"],
    "Panoptic FPN": ["sem_seg", "boxes", "scores", "labels", "masks", "panoptic_seg"],
}


@pytest.mark.slow
def test_detectron2s_models_need_no_code_of_theirs(tmp_path: Path) -> None:
    require_detectron2()
    paths, expected = [], []
    for name in FAMILIES:
        if name == "FCOS":  # not in Detectron2 0.4
            continue
        _, fast = core_of(name)
        paths.append(tmp_path / f"{name}.fxtrt")
        fxtrt.save(fast, paths[-1], weights=True)
        expected.append([[plain(one) for one in fast(call)] for call in CALLS])
        answer = expected[-1][0][0]
        assert list(answer) == KEYS.get(name, list(answer))
        assert all(len(value) for value in answer.values())
    assert_equal(answers_elsewhere(paths, [CALLS] * len(paths), tmp_path), expected)


def test_tensors_and_detectron2s_own_classes(tmp_path: Path) -> None:
    _, fast = core_of("Faster R-CNN")
    path = tmp_path / "model.fxtrt"
    fxtrt.save(fast, path, weights=True)
    assert verify(path).agrees
    loaded: Any = fxtrt.load(path)
    image = photo(160, 200)["image"].byte()
    assert_equal(loaded([image]), [plain(fast([{"image": image}])[0])])
    own: Any = fxtrt.load(path, answers="detectron2")
    assert_agree_exactly(own(CALLS[1]), fast(CALLS[1]))
    assert [len(one["instances"]) for one in own(CALLS[1])] == [10, 10]
    for call, message in [
        ([{"image": image, "proposals": 3}], "proposals of their own"),
        ([{"image": image, "height": 1.5}], "no whole number"),
        ([{"height": 3}], "no dict with one"),
        ([image[0]], r"has the shape \(160, 200\)"),
        ([], "no images"),
    ]:
        with pytest.raises(CallError, match=message):
            loaded(call)
    with pytest.raises(CallError, match="has shape"):
        loaded([torch.zeros(3, 32, 4000)])


@pytest.mark.parametrize("count", [0, 1, 9])
def test_segments_are_merged_as_by_detectron2(count: int) -> None:
    require_detectron2()
    from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
    from detectron2.structures import Instances

    draw = torch.Generator().manual_seed(count)
    fields = {
        "pred_masks": torch.rand(count, 24, 30, generator=draw) > torch.rand(count, 1, 1),
        "scores": torch.rand(count, generator=draw),
        "pred_classes": torch.randint(5, (count,), generator=draw),
    }
    if count:
        fields["pred_masks"][0] = False
    semantic = torch.randint(4, (24, 30), generator=draw)
    semantic[:2, :3] = 7
    for limits in (Thresholds(0.5, 10, 0.3), Thresholds(0.9, 200, 0.0)):
        instances = Instances((24, 30), **fields)
        wanted = combine_semantic_and_instance_outputs(instances, semantic, *limits)
        assert_equal(combine(fields, semantic, limits), wanted)


def test_sizes_of_other_integers_are_kept_as_such(tmp_path: Path) -> None:
    call = [{**photo(192, 224), "height": np.int64(100), "file_name": "a.jpg"}]
    fast = fxtrt.compile(detector("RPN"), (call,), engine="reference", cache_dir=None)
    fxtrt.save(fast, tmp_path / "model.fxtrt", weights=True)
    assert verify(tmp_path / "model.fxtrt").agrees


def test_a_model_that_preprocesses_in_its_own_way_is_not_saved(tmp_path: Path) -> None:
    model = detector("Faster R-CNN")
    preprocess = model.preprocess_image
    model.preprocess_image = lambda inputs: preprocess(inputs)
    try:
        fast = fxtrt.compile(model, (CALLS[0],), engine="reference", cache_dir=None)
        with pytest.raises(fxtrt.errors.ArtifactError, match="preprocesses images in a way"):
            fxtrt.save(fast, tmp_path / "model.fxtrt", weights=True)
    finally:
        del model.preprocess_image
