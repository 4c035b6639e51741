"""Detectron2's detectors run as a core between two host steps, and give what eager gives."""

from __future__ import annotations

import copy
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from small_detectron2 import FAMILIES, picture, small_detector
from torch import Tensor

import fxtrt
from fxtrt.detection import recipe_of
from fxtrt.errors import ArtifactError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

LIMITS = {"pred_boxes": 1e-2, "proposal_boxes": 1e-2, "scores": 1e-5, "objectness_logits": 1e-4}
SIZES = ((160, 192), (300, 200), (224, 416), (160, 170))


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@cache
def detector(family: str) -> Any:
    require_detectron2()
    if family == "FCOS":
        pytest.importorskip("detectron2.modeling.meta_arch.fcos", reason="Detectron2 0.4")
    return small_detector(family)


def photo(height: int, width: int, /, **more: Any) -> dict[str, Any]:
    return {"image": picture(height, width), "height": height, "width": width} | more


def example() -> list[dict[str, Any]]:
    return [photo(192, 224)]


def compiled(model: Any, **options: Any) -> Any:
    return fxtrt.compile(model, (example(),), engine="reference", cache_dir=None, **options)


@cache
def core_of(family: str, most_images: int = 1) -> tuple[Any, Any]:
    """A family's model, and its compiled copy."""
    model = detector(family)
    return model, compiled(copy.deepcopy(model), most_images=most_images)


def why_no_core(model: Any) -> str:
    recipe = recipe_of(model)
    assert recipe is not None
    assert recipe.host_steps is not None
    return str(recipe.host_steps(model))


def assert_agree(actual: Any, expected: Any) -> None:
    """Also in the order of the detections, and in the types of all fields."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert list(one) == list(other)
        for key, value in other.items():
            if key == "sem_seg":
                torch.testing.assert_close(one[key], value, atol=1e-4, rtol=1e-4, equal_nan=True)
            elif key == "panoptic_seg":
                assert_same_segments(one[key], value)
            else:
                assert_same_instances(one[key], value)


def assert_same_instances(actual: Any, expected: Any) -> None:
    assert actual.image_size == expected.image_size
    assert list(actual.get_fields()) == list(expected.get_fields())
    for name, value in expected.get_fields().items():
        field = actual.get(name)
        assert type(field) is type(value)
        found, wanted = getattr(field, "tensor", field), getattr(value, "tensor", value)
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name
        if wanted.dtype in (torch.int64, torch.bool):
            assert (found != wanted).double().mean(dtype=torch.float64).nan_to_num() <= 1e-3, name
        elif name == "pred_keypoints":
            torch.testing.assert_close(found[..., :2], wanted[..., :2], atol=1e-2, rtol=0)
            torch.testing.assert_close(found[..., 2], wanted[..., 2], atol=1e-4, rtol=1e-4)
        else:
            limit = LIMITS.get(name, 1e-3)
            torch.testing.assert_close(found, wanted, atol=limit, rtol=0, msg=name)
    if expected.has("pred_classes"):
        assert torch.equal(actual.pred_classes, expected.pred_classes)


def assert_same_segments(actual: Any, expected: Any) -> None:
    (pixels, segments), (wanted, others) = actual, expected
    assert (pixels != wanted).double().mean() <= 1e-3
    assert [{**one, "area": 0, "score": 0} for one in segments] == [
        {**one, "area": 0, "score": 0} for one in others
    ]


def found_in(answer: Any) -> list[int]:
    keys = ("instances", "proposals")
    return [len(one[key]) for one in answer for key in keys if key in one]


@pytest.mark.parametrize("most_images", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_and_size_of_images_equals_eager(family: str, most_images: int) -> None:
    model, fast = core_of(family, most_images)
    fast.forward.fallbacks.clear()
    coverage = fxtrt.report(fast)
    assert coverage.capture[0].startswith("captured as a core of fixed shapes")
    assert coverage.flops_share == 1.0
    photos = [photo(*size) for size in SIZES]
    for call in (photos[:1], photos[1:2], photos[2:], photos, photos[::-1]):
        expected = model(call)
        assert min(found_in(expected), default=1) > 0
        assert_agree(fast(call), expected)
    assert fast.forward.fallbacks == {}
    assert fast.forward.fallbacks.compiled == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_unusual_images_equal_eager(family: str) -> None:
    model, fast = core_of(family)
    fast.forward.fallbacks.clear()
    nothing = photo(160, 192)
    nothing["image"] = nothing["image"] * torch.nan
    calls = [
        [nothing],
        [photo(160, 192), nothing, photo(192, 160)],
        [photo(160, 192, height=320, width=100), photo(192, 160, height=1, width=400)],
        [photo(160, 192, height=1, width=1)],
        [{**photo(160, 192), "image": picture(160, 192).byte()}],
        [{**photo(160, 192), "image": picture(160, 192).half()}],
        [{**photo(160, 192), "image": picture(160, 192).int()}],
        [{**photo(160, 192), "image": picture(192, 160).mT}],
        [photo(160, 192, file_name="a.jpg", image_id=7)],
    ]
    if family != "Semantic FPN":  # In Detectron2 0.4 it needs both.
        calls += [[{"image": picture(160, 192)}], [{"image": picture(160, 192), "height": 80}]]
    for call in calls:
        assert_agree(fast(call), model(call))
    assert not any(found_in(model(calls[0])))
    assert fast.forward.fallbacks == {}


def test_boxes_without_an_area_in_the_picture_are_dropped() -> None:
    model, fast = core_of("Faster R-CNN")
    counts = set()
    for width in (240, 3, 2, 1):
        call = [photo(160, 192, height=200, width=width)]
        expected = model(call)
        assert_agree(fast(call), expected)
        counts |= set(found_in(expected))
    model = copy.deepcopy(model)
    # Boxes of a height of almost 0 vanish where coordinates of the picture are large.
    model.roi_heads.box_predictor.bbox_pred.bias.data.view(-1, 4)[:, 3] = -100.0
    fast = compiled(copy.deepcopy(model))
    for call in ([photo(160, 192)], [photo(160, 192, height=1 << 15, width=1 << 15)]):
        expected = model(call)
        assert_agree(fast(call), expected)
        counts |= set(found_in(expected))
    assert len(counts) > 1
    assert fast.forward.fallbacks == {}


def test_images_without_detections() -> None:
    model = copy.deepcopy(detector("Mask R-CNN"))
    model.roi_heads.box_predictor.cls_score.bias.data[-1] = 100.0
    fast = compiled(copy.deepcopy(model))
    call = [photo(160, 192), photo(192, 160, height=50, width=60)]
    expected = model(call)
    assert found_in(expected) == [0, 0]
    assert_agree(fast(call), expected)
    assert fast.forward.fallbacks == {}


def error_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    try:
        function(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("family", ["Faster R-CNN", "Mask R-CNN", "RetinaNet", "RPN"])
@pytest.mark.parametrize(
    "call",
    [
        [],
        [{"image": torch.rand(160, 192, 3)}],
        [{"image": "a.jpg"}],
        [{"picture": torch.rand(3, 160, 192)}],
        [{"image": torch.rand(4, 160, 192)}],
        [torch.rand(3, 160, 192)],
        None,
    ],
    ids=["none", "HWC", "path", "key", "four channels", "tensor", "None"],
)
def test_wrong_inputs_raise_what_eager_raises(family: str, call: Any) -> None:
    model, fast = core_of(family)
    fast.forward.fallbacks.clear()
    expected, actual = error_of(model, call), error_of(fast, call)
    assert (type(actual), str(actual)) == (type(expected), str(expected))
    (reason,) = fast.forward.fallbacks
    assert reason.startswith("the arguments are of another form than the example's")


def test_a_mask_of_a_picture_with_half_pixels_is_refused_in_detectron2s_words() -> None:
    model, fast = core_of("Mask R-CNN")
    call = [photo(160, 192, height=99.5, width=100.0)]
    expected, actual = error_of(model, call), error_of(fast, call)
    assert (type(actual), str(actual)) == (type(expected), str(expected))


def test_a_size_that_is_a_tensor_runs_in_pytorch() -> None:
    model, fast = core_of("Faster R-CNN")
    call = [photo(160, 192, height=torch.tensor(320), width=torch.tensor(100))]
    assert_fallback(fast, call, model(call), "the arguments are of another form")


def assert_fallback(fast: Any, call: Any, expected: Any, reason: str) -> None:
    fast.forward.fallbacks.clear()
    assert_agree_exactly(fast(call), expected)
    ((actual, count),) = fast.forward.fallbacks.items()
    assert reason in actual
    assert count == 1
    assert fast.forward.fallbacks.compiled == 0


def assert_agree_exactly(actual: Any, expected: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        for key, value in other.items():
            for name, field in value.get_fields().items():
                found = one[key].get(name)
                assert torch.equal(getattr(found, "tensor", found), getattr(field, "tensor", field))


def test_an_image_without_channels_runs_in_pytorch() -> None:
    """Detectron2 makes three of one."""
    model, fast = core_of("Faster R-CNN")
    call = [{"image": picture(160, 192)[0]}]
    assert_fallback(fast, call, model(call), "the arguments are of another form")


def test_images_of_a_side_out_of_range_run_in_pytorch() -> None:
    model, fast = core_of("Faster R-CNN")
    for size in ((64, 192), (160, 1400)):
        call = [photo(*size)]
        assert_fallback(fast, call, model(call), " has shape (1, 3, ")


def test_given_proposals_run_in_pytorch() -> None:
    model, fast = core_of("Faster R-CNN")
    from detectron2.structures import Boxes, Instances

    given = Instances((160, 192))
    given.proposal_boxes = Boxes(torch.tensor([[10.0, 10.0, 90.0, 90.0]]))
    given.objectness_logits = torch.ones(1)
    call = [photo(160, 192, proposals=given)]
    assert_fallback(fast, call, model(call), "the arguments are of another form")


def test_a_model_that_needs_proposals_has_no_core() -> None:
    model = copy.deepcopy(detector("Faster R-CNN"))
    model.proposal_generator = None
    assert why_no_core(model) == "its proposals come with the images"


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


def test_two_models_of_one_class_keep_their_own_cores() -> None:
    models = [copy.deepcopy(detector("Faster R-CNN")) for _ in range(2)]
    models[1].backbone.first.weight.mul_(1.2)
    models[1].roi_heads.box_predictor.cls_score.weight.mul_(0.7)
    call = [photo(160, 192), photo(200, 160)]
    expected = [model(call) for model in models]
    first, second = (one[0]["instances"].scores for one in expected)
    assert not torch.equal(first, second)
    fast: list[Any] = [compiled(model) for model in models]
    for one, wanted in zip(fast, expected, strict=True):
        assert_agree(one(call), wanted)
        assert one.forward.fallbacks == {}


@pytest.mark.parametrize("family", ["Mask R-CNN", "RetinaNet"])
def test_threads_with_different_sizes_get_their_own_answers(family: str) -> None:
    model, fast = core_of(family)
    fast.forward.fallbacks.clear()
    calls = [[photo(*size)] for size in SIZES] + [[photo(*size) for size in SIZES[:2]]]
    expected = [model(call) for call in calls]

    def answer(number: int) -> Any:
        with torch.no_grad():
            return fast(calls[number % len(calls)])

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(answer, range(20)))
    for number, actual in enumerate(answers):
        assert_agree(actual, expected[number % len(calls)])
    assert fast.forward.fallbacks == {}


def test_calls_with_gradients_enabled_equal_those_without() -> None:
    model, fast = core_of("Keypoint R-CNN")
    call = [photo(160, 192)]
    expected = model(call)
    with torch.enable_grad():
        assert_agree(fast(call), expected)


def test_capturing_takes_seconds() -> None:
    model = copy.deepcopy(detector("Panoptic FPN"))
    start = time.perf_counter()
    compiled(model)
    assert time.perf_counter() - start < 20
