"""A core gives way to PyTorch where weights, modes or hooks have changed, and can be saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_cores import (
    assert_agree,
    assert_fallback,
    compiled,
    core_of,
    detector,
    error_of,
    example,
    photo,
    why_no_core,
)
from detectron2_package import require_detectron2
from small_detectron2 import FAMILIES
from torch import Tensor

import fxtrt

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]


@pytest.mark.parametrize("family", ["Faster R-CNN", "RetinaNet"])
def test_changed_weights_run_in_pytorch(family: str) -> None:
    model = copy.deepcopy(detector(family))
    fast = compiled(model)
    call = [photo(160, 192)]
    before = fast(call)
    for weight in (fast.backbone.first.weight, fast.pixel_mean):
        weight.mul_(1.5)
        changed = copy.deepcopy(detector(family))
        changed.load_state_dict(fast.state_dict())
        changed.pixel_mean.copy_(fast.pixel_mean)  # Detectron2 0.4 does not save it.
        expected = changed(call)
        assert not torch.equal(before[0]["instances"].scores, expected[0]["instances"].scores)
        assert_fallback(fast, call, expected, "was changed after compiling")


def test_a_replaced_backbone_runs_in_pytorch() -> None:
    fast = compiled(copy.deepcopy(detector("Faster R-CNN")))
    fast.backbone = copy.deepcopy(fast.backbone)
    fast.backbone.first.weight.mul_(2)
    changed = copy.deepcopy(detector("Faster R-CNN"))
    changed.backbone = fast.backbone
    call = [photo(160, 192)]
    assert_fallback(fast, call, changed(call), "was replaced after compiling")


def test_training_mode_runs_in_pytorch_even_of_one_part() -> None:
    model, fast = core_of("Faster R-CNN")
    call = [photo(160, 192)]
    fast.forward.fallbacks.clear()
    fast.roi_heads.train()
    model.roi_heads.train()
    try:
        expected, actual = error_of(model, call), error_of(fast, call)
    finally:
        fast.roi_heads.eval()
        model.roi_heads.eval()
    assert (type(actual), str(actual)) == (type(expected), str(expected))
    assert fast.forward.fallbacks == {"the module is in training mode": 1}
    assert_agree(fast(call), model(call))


def test_hooks_of_the_model_run_around_the_core() -> None:
    model = copy.deepcopy(detector("Faster R-CNN"))
    seen: list[str] = []
    model.register_forward_pre_hook(lambda *_: seen.append("before"))
    model.register_forward_hook(lambda *_: seen.append("after"))
    fast = compiled(model)
    seen.clear()
    call = [photo(160, 192)]
    assert_agree(fast(call), detector("Faster R-CNN")(call))
    assert seen == ["before", "after"]
    assert fast.forward.fallbacks == {}


def half_of(module: Any, args: Any, output: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, lambda tensor: tensor * 0.5, output)


def test_a_hook_that_is_traced_stays_in_the_core() -> None:
    model = copy.deepcopy(detector("Faster R-CNN"))
    model.backbone.register_forward_hook(half_of)
    fast, call = compiled(copy.deepcopy(model)), [photo(160, 192)]
    expected = model(call)
    plain = detector("Faster R-CNN")(call)
    assert not torch.equal(expected[0]["instances"].scores, plain[0]["instances"].scores)
    assert_agree(fast(call), expected)
    assert fxtrt.report(fast).capture[0].startswith("captured as a core")
    assert fast.forward.fallbacks == {}


HOOKED = {
    "proposal_generator": ("Faster R-CNN", "RPN has a forward or hooks of its own"),
    "roi_heads": ("Faster R-CNN", "StandardROIHeads has a forward or hooks of its own"),
    "roi_heads.box_pooler": ("Faster R-CNN", "ROIPooler pools in a way of its own"),
    "roi_heads.mask_head": ("Mask R-CNN", "MaskRCNNConvUpsampleHead has a forward or hooks"),
    "roi_heads.keypoint_head": ("Keypoint R-CNN", "KRCNNConvDeconvUpsampleHead has a forward"),
    "anchor_generator": ("RetinaNet", "DefaultAnchorGenerator makes anchors in a way of its own"),
}


@pytest.mark.parametrize("path", HOOKED)
def test_a_hook_that_a_core_would_go_round_leaves_none(path: str) -> None:
    family, reason = HOOKED[path]
    model = copy.deepcopy(detector(family))
    model.get_submodule(path).register_forward_hook(lambda *_: None)
    assert why_no_core(model).startswith(reason)


def test_a_hook_on_a_head_is_not_lost() -> None:
    model = copy.deepcopy(detector("Faster R-CNN"))
    model.roi_heads.box_pooler.register_forward_hook(half_of)
    fast, call = compiled(copy.deepcopy(model), dynamic_shapes={}), example()
    expected = model(call)
    plain = detector("Faster R-CNN")(call)
    assert not torch.equal(expected[0]["instances"].scores, plain[0]["instances"].scores)
    assert_agree(fast(call), expected)


@pytest.mark.parametrize("family", ["Faster R-CNN", "RetinaNet"])
def test_too_many_candidates_run_in_pytorch(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_detectron2()
    from fxtrt.detection.detectron2 import one_stage, rcnn

    module: Any = one_stage if family == "RetinaNet" else rcnn
    original = module.place_detections

    def overflowing(boxes: Any, counts: Any, overflow: Any, *rest: Any) -> Any:
        # The second size of the table below overflows.
        return original(boxes, counts, overflow | (rest[1][:, 0] > 250), *rest)

    monkeypatch.setattr(module, "place_detections", overflowing)
    model = detector(family)
    fast = compiled(copy.deepcopy(model))
    call = [photo(160, 192), photo(160, 256)]
    assert_fallback(fast, call, model(call), "more candidates than the core looks at")
    assert_agree(fast(call[:1]), model(call[:1]))
    assert fast.forward.fallbacks.compiled == 1
    (row,) = fxtrt.report(fast).guards
    assert (row.calls, row.compiled) == (2, 1)
    assert row.reasons == (("more candidates than the core looks at", 1),)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_core_gives_the_same_without_a_capture(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fast = core_of(family)
    fxtrt.save(fast, tmp_path / "detector.fxtrt")

    def no_export(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("nothing is to be captured")

    monkeypatch.setattr(torch.export, "export", no_export)
    monkeypatch.setattr(torch.export, "draft_export", no_export)
    loaded: Any = fxtrt.load(tmp_path / "detector.fxtrt", copy.deepcopy(model), cache_dir=None)
    call = [photo(300, 200), photo(160, 192)]
    assert_agree(loaded(call), fast(call))
    assert loaded.forward.fallbacks == {}
    assert loaded.forward.fallbacks.compiled == 1
