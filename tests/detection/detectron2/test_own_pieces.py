"""A detector with a piece of the user's own has no core that would go round the piece."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_cores import (
    assert_agree,
    compiled,
    core_of,
    detector,
    example,
    found_in,
    photo,
    why_no_core,
)
from torch import Tensor

import fxtrt
from fxtrt.errors import ArtifactError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]


def own_class(path: str, base: str, **members: Any) -> Callable[[Any], None]:
    """Make the piece of a model at `path` one of a user's own class, with other members."""

    def change(model: Any) -> None:
        piece = model
        for name in path.split(".") if path else ():
            piece = piece[int(name)] if name.isdigit() else getattr(piece, name)
        assert type(piece).__name__ == base
        piece.__class__ = type(f"Own{base}", (type(piece),), members)

    return change


def calling(name: str, change: Callable[[Any], Any]) -> Any:
    """A method that changes what the inherited method returns."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return change(getattr(super(type(self), self), name)(*args, **kwargs))

    return method


def halved_scores(found: Any) -> Any:
    for instances in found:
        instances.scores = instances.scores * 0.5
    return found


def halved_masks(instances: Any) -> Any:
    for one in instances:
        one.pred_masks = one.pred_masks * 0.0
    return instances


def half_first(pair: Any) -> Any:
    return halved_scores(pair[0]), *pair[1:]


def own_postprocess(results: Any, batched_inputs: Any, image_sizes: Any, *rest: Any) -> Any:
    return [{"instances": found} for found in halved_scores(results)]


def replaced_forward(model: Any) -> None:
    original = model.forward
    model.forward = lambda batched_inputs: [
        {"instances": halved_scores([one["instances"]])[0]} for one in original(batched_inputs)
    ]


def replaced_inference(model: Any) -> None:
    original = model.inference

    def inference(self: Any, *args: Any, **kwargs: Any) -> Any:
        return [
            {"instances": halved_scores([one["instances"]])[0]} for one in original(*args, **kwargs)
        ]

    model.inference = types.MethodType(inference, model)


def on_roi_heads(name: str, base: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    return own_class("roi_heads", base, **{name: calling(name, change)})


def half(value: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, lambda tensor: tensor * 0.5, value)


_HEADS, _OWN = "StandardROIHeads", "has a forward or hooks of its own"
OWN_PIECES: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "RoI heads": (
        "Faster R-CNN",
        on_roi_heads("_forward_box", _HEADS, halved_scores),
        f"OwnStandardROIHeads {_OWN}",
    ),
    "RoI heads of Cascade": (
        "Cascade R-CNN",
        on_roi_heads("_run_stage", "CascadeROIHeads", half),
        f"OwnCascadeROIHeads {_OWN}",
    ),
    "masks of Cascade": (
        "Cascade R-CNN",
        on_roi_heads("_forward_mask", "CascadeROIHeads", halved_masks),
        f"OwnCascadeROIHeads {_OWN}",
    ),
    "mask head": (
        "Mask R-CNN",
        own_class(
            "roi_heads.mask_head",
            "MaskRCNNConvUpsampleHead",
            forward=calling("forward", halved_masks),
        ),
        f"OwnMaskRCNNConvUpsampleHead {_OWN}",
    ),
    "box predictor": (
        "Faster R-CNN",
        own_class(
            "roi_heads.box_predictor",
            "FastRCNNOutputLayers",
            inference=calling("inference", half_first),
        ),
        "OwnFastRCNNOutputLayers predicts boxes in a way of its own",
    ),
    "postprocess": (
        "Faster R-CNN",
        own_class("", "GeneralizedRCNN", _postprocess=staticmethod(own_postprocess)),
        "OwnGeneralizedRCNN has an inference of its own",
    ),
    "forward of the instance": (
        "Faster R-CNN",
        replaced_forward,
        "GeneralizedRCNN has an inference of its own",
    ),
    "inference of the instance": (
        "Faster R-CNN",
        replaced_inference,
        "GeneralizedRCNN has an inference of its own",
    ),
    "one-stage inference": (
        "RetinaNet",
        own_class(
            "",
            "RetinaNet",
            inference_single_image=calling(
                "inference_single_image", lambda found: halved_scores([found])[0]
            ),
        ),
        "OwnRetinaNet has an inference of its own",
    ),
}


@pytest.mark.parametrize("piece", OWN_PIECES)
def test_a_piece_of_the_users_own_leaves_no_core(piece: str) -> None:
    family, change, reason = OWN_PIECES[piece]
    model = copy.deepcopy(detector(family))
    change(model)
    assert why_no_core(model) == reason


@pytest.mark.parametrize("piece", ["box predictor", "one-stage inference"])
def test_a_model_with_a_piece_of_the_users_own_runs_as_in_pytorch(piece: str) -> None:
    family, change, reason = OWN_PIECES[piece]
    model = copy.deepcopy(detector(family))
    change(model)
    expected = model(example())
    assert found_in(expected) == [10]
    fast = compiled(model, dynamic_shapes={})  # With dynamic sizes, capturing takes long.
    assert_agree(fast(example()), expected)
    details = [row.detail for row in fxtrt.report(fast).rejections if row.code == "capture"]
    assert any(reason in detail for detail in details), details


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_preprocessing_of_the_users_own_runs_before_the_core(kind: str) -> None:
    model = copy.deepcopy(detector("Faster R-CNN"))
    plain = type(model).preprocess_image

    def preprocess_image(self: Any, batched_inputs: Any) -> Any:
        darker = [{**one, "image": one["image"] * 0.5} for one in batched_inputs]
        return plain(self, darker)

    if kind == "class":
        own_class("", "GeneralizedRCNN", preprocess_image=preprocess_image)(model)
    else:
        model.preprocess_image = types.MethodType(preprocess_image, model)
    expected = model([photo(160, 192)])
    usual = detector("Faster R-CNN")([photo(160, 192)])
    assert not torch.equal(expected[0]["instances"].scores, usual[0]["instances"].scores)
    fast: Any = compiled(model)
    assert_agree(fast([photo(160, 192)]), expected)
    assert fast.forward.fallbacks == {}


def test_a_core_is_not_loaded_around_heads_of_the_users_own(tmp_path: Path) -> None:
    model, fast = core_of("Mask R-CNN")
    fxtrt.save(fast, tmp_path / "detector.fxtrt")
    of_classes = {"RoI heads": "module 'roi_heads' was .* is now .*OwnStandardROIHeads"}
    of_classes["mask head"] = "module 'roi_heads.mask_head' was .* is now .*OwnMask"
    for piece, reason in of_classes.items():
        own = copy.deepcopy(model)
        OWN_PIECES[piece][1](own)
        with pytest.raises(ArtifactError, match=reason):
            fxtrt.load(tmp_path / "detector.fxtrt", own, cache_dir=None)
    own = copy.deepcopy(model)
    own.roi_heads.register_forward_hook(lambda *_: None)
    with pytest.raises(
        ArtifactError, match=r"the attribute 'roi_heads\._forward_hooks' was not there"
    ):
        fxtrt.load(tmp_path / "detector.fxtrt", own, cache_dir=None)
