"""torchvision's detectors run as a core between two host steps, for pictures of any size."""

from __future__ import annotations

import copy
import random
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from small_torchvision import images, large_rcnn, small_one_stage, small_rcnn
from torchvision.models import get_model
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

import fxtrt
from fxtrt.detection import recipe_of
from fxtrt.detection.small_tables import SmallTables
from fxtrt.detection.torchvision.image_batch import read_images
from fxtrt.detection.torchvision.steps import Steps
from fxtrt.diagnostics.example_models import calibrate, load_photograph

pytestmark = pytest.mark.usefixtures("no_grad")

FAMILIES: dict[str, Callable[[], Any]] = {
    "Faster R-CNN": lambda: small_rcnn(FasterRCNN),
    "Mask R-CNN": lambda: small_rcnn(MaskRCNN),
    "Keypoint R-CNN": lambda: small_rcnn(KeypointRCNN),
    "RetinaNet": lambda: small_one_stage("RetinaNet"),
    "FCOS": lambda: small_one_stage("FCOS"),
    "SSD": lambda: small_one_stage("SSD"),
}
USUAL = [
    *[(480, 640), (640, 480), (720, 1280), (1280, 720), (600, 800), (800, 600), (500, 375)],
    *[(375, 500), (427, 640), (640, 427), (224, 224), (512, 512), (640, 640), (1024, 1024)],
    *[(800, 1333), (1333, 800), (1080, 1344), (1344, 200), (200, 1344), (200, 200)],
]


def picture(height: int, width: int) -> Tensor:
    photograph = load_photograph()[None]
    return torch.nn.functional.interpolate(photograph, (height, width))[0]


def sixty_sizes() -> list[tuple[int, int]]:
    drawn = random.Random(0)
    return USUAL + [(drawn.randint(200, 1344), drawn.randint(200, 1344)) for _ in range(40)]


def steps_of(model: Any) -> Any:
    recipe = recipe_of(model)
    assert recipe is not None
    assert recipe.host_steps is not None
    return recipe.host_steps(model)


def assert_agree(actual: Any, expected: Any) -> None:
    for found, wanted in zip(actual, expected, strict=True):
        assert list(found) == list(wanted)
        assert torch.equal(found["labels"], wanted["labels"])
        for name, limit in (("boxes", 1e-2), ("scores", 1e-5), ("masks", 1e-4)):
            if name in wanted:
                torch.testing.assert_close(found[name], wanted[name], atol=limit, rtol=0)
        for name in ("keypoints", "keypoints_scores"):
            if name in wanted:
                torch.testing.assert_close(found[name], wanted[name], atol=1e-2, rtol=0)


def compiled_for_all_sizes(model: Any) -> Any:
    fast: Any = fxtrt.compile(
        model, ([picture(480, 640)],), engine="reference", most_images=4, cache_dir=None
    )
    (line,) = fxtrt.report(fast).capture
    assert line.startswith("captured as a core of fixed shapes")
    assert fxtrt.report(fast).flops_share == 1.0
    return fast


def assert_takes_sixty_of_sixty(model: Any) -> None:
    fast = compiled_for_all_sizes(model)
    found = 0
    for size in sixty_sizes():
        inputs = [picture(*size)]
        expected = model(inputs)
        assert_agree(fast(inputs), expected)
        found += len(expected[0]["boxes"])
    assert found >= 60
    assert fast.forward.fallbacks == {}


@pytest.mark.slow
def test_pictures_of_sixty_sizes_run_in_the_same_engines() -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))
    model.transform.min_size, model.transform.max_size = (160,), 256
    assert_takes_sixty_of_sixty(model)


@pytest.mark.nightly
def test_pictures_of_sixty_sizes_run_in_the_same_engines_of_a_real_model() -> None:
    torch.manual_seed(0)
    model: Any = get_model(
        "fasterrcnn_resnet50_fpn",
        weights=None,
        weights_backbone=None,
        min_size=256,
        max_size=448,
        box_detections_per_img=20,
    ).eval()
    calibrate(model, ([picture(480, 640)],))
    assert_takes_sixty_of_sixty(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_batches_of_different_sizes_equal_eager(family: str) -> None:
    model = FAMILIES[family]()
    fast = compiled_for_all_sizes(model)
    pictures = [picture(480, 640), picture(300, 200), picture(90, 91), picture(128, 400)]
    for count in (1, 3, 4):
        expected = model(pictures[:count])
        assert_agree(fast(pictures[:count]), expected)
        assert all(len(one["boxes"]) for one in expected)
    assert fast.forward.fallbacks == {}


def test_pictures_without_anything_between_others() -> None:
    model = small_one_stage("FCOS")
    fast = compiled_for_all_sizes(model)
    pictures = [picture(200, 300), picture(200, 300) * torch.nan, picture(300, 200)]
    expected = model(pictures)
    assert [len(one["boxes"]) > 0 for one in expected] == [True, False, True]
    assert_agree(fast(pictures), expected)


@pytest.mark.parametrize("family", ["Mask R-CNN", "SSD"])
def test_a_saved_core_takes_other_sizes(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    fast = compiled_for_all_sizes(model)
    fxtrt.save(fast, tmp_path / "detector.fxtrt")
    loaded: Any = fxtrt.load(tmp_path / "detector.fxtrt", copy.deepcopy(model), cache_dir=None)
    for pictures in ([picture(480, 640)], [picture(200, 300), picture(300, 150)]):
        for actual, expected in zip(loaded(pictures), fast(pictures), strict=True):
            assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert loaded.forward.fallbacks == {}


def doubled(self: Any, *args: Any) -> Any:
    """Postprocess as torchvision does, and double the boxes."""
    found = GeneralizedRCNNTransform.postprocess(self, *args)
    return [{**one, "boxes": one["boxes"] * 2} for one in found]


def brightened(self: Any, image: Tensor) -> Any:
    return GeneralizedRCNNTransform.normalize(self, image * 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "method"),
    [(KeypointRCNN, "postprocess", doubled), (FasterRCNN, "normalize", brightened)],
)
def test_a_transform_of_the_users_own_runs_around_the_core(
    kind: Any, name: str, method: Any
) -> None:
    model = copy.deepcopy(small_rcnn(kind))
    pictures = [picture(200, 300), picture(300, 150)]
    usual = model(pictures)
    setattr(model.transform, name, types.MethodType(method, model.transform))
    fast, expected = compiled_for_all_sizes(model), model(pictures)
    assert not torch.equal(expected[0]["boxes"], usual[0]["boxes"])
    assert_agree(fast(pictures), expected)
    assert fast.forward.fallbacks == {}


class OwnHeads(RoIHeads):  # type: ignore[misc]  # untyped
    def postprocess_detections(self, *args: Any) -> Any:
        boxes, scores, labels = super().postprocess_detections(*args)
        return boxes, [one * 0.5 for one in scores], labels


class OwnCoder(BoxCoder):  # type: ignore[misc]  # untyped
    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Any:
        return super().decode_single(rel_codes * 0.5, boxes)


class OwnAnchors(AnchorGenerator):  # type: ignore[misc]  # untyped
    def grid_anchors(self, grid_sizes: Any, strides: Any) -> Any:
        return [anchors + 1 for anchors in super().grid_anchors(grid_sizes, strides)]


class OwnPool(MultiScaleRoIAlign):  # type: ignore[misc]  # untyped
    def forward(self, *args: Any) -> Any:
        return super().forward(*args) * 0.5


class OwnBoxes(DefaultBoxGenerator):  # type: ignore[misc]  # untyped
    def forward(self, *args: Any) -> Any:
        return [boxes + 1 for boxes in super().forward(*args)]


def own(kind: type[Any], path: str) -> Callable[[Any], None]:
    """Make the piece of a model at `path` one of the class `kind`."""

    def change(model: Any) -> None:
        for name in path.split("."):
            model = getattr(model, name)
        model.__class__ = kind

    return change


def decode_more(model: Any) -> None:
    model.box_coder.bbox_xform_clip = 1.0


def stop_resizing(model: Any) -> None:
    model.transform.fixed_size = None


REASONS = [
    ("Faster R-CNN", own(OwnHeads, "roi_heads"), "OwnHeads has steps of its own"),
    ("Faster R-CNN", own(OwnCoder, "roi_heads.box_coder"), "OwnCoder decodes boxes"),
    ("Faster R-CNN", own(OwnCoder, "rpn.box_coder"), "OwnCoder decodes boxes"),
    ("Faster R-CNN", own(OwnAnchors, "rpn.anchor_generator"), "OwnAnchors makes anchors"),
    ("Faster R-CNN", own(OwnPool, "roi_heads.box_roi_pool"), "OwnPool pools"),
    ("Faster R-CNN", lambda model: model.double(), "its weights are torch.float64"),
    ("RetinaNet", own(OwnAnchors, "anchor_generator"), "OwnAnchors makes anchors"),
    ("RetinaNet", decode_more, "BoxCoder decodes boxes"),
    ("SSD", own(OwnBoxes, "anchor_generator"), "OwnBoxes makes default boxes"),
    ("SSD", stop_resizing, "its images have no fixed size"),
]


@pytest.mark.parametrize(("family", "change", "reason"), REASONS)
def test_a_model_with_a_piece_of_the_users_own_has_no_core(
    family: str, change: Callable[[Any], Any], reason: str
) -> None:
    model = copy.deepcopy(FAMILIES[family]())
    assert isinstance(steps_of(model), Steps)
    change(model)
    assert str(steps_of(model)).startswith(reason)


def test_a_model_with_a_piece_of_the_users_own_is_captured_whole() -> None:
    model, inputs = copy.deepcopy(small_rcnn(FasterRCNN)), images(1)
    own(OwnHeads, "roi_heads")(model)
    fast: Any = fxtrt.compile(model, (inputs,), engine="reference", cache_dir=None)
    assert_agree(fast(inputs), model(inputs))
    reasons = [row.detail for row in fxtrt.report(fast).rejections if row.code == "capture"]
    assert reasons == ["as a core of fixed shapes: OwnHeads has steps of its own"]
    assert fxtrt.report(fast).flops_share == 1.0


@pytest.mark.parametrize("make", [small_rcnn, large_rcnn])
def test_levels_have_the_scales_that_torchvision_infers(make: Any) -> None:
    called = make(MaskRCNN)
    called(images(1))
    fresh = copy.deepcopy(called)
    for pool in (fresh.roi_heads.box_roi_pool, fresh.roi_heads.mask_roi_pool):
        pool.scales = pool.map_levels = None
    poolers = steps_of(fresh).core.poolers
    assert poolers.keys() == {"box", "mask"}
    assert poolers["box"]._scales == called.roi_heads.box_roi_pool.scales
    called.roi_heads.box_roi_pool.scales = [0.5] * len(poolers["box"]._scales)
    called.roi_heads.box_roi_pool.map_levels.k_min = 1
    called.roi_heads.box_roi_pool.map_levels.k_max = 1
    assert steps_of(called).core.poolers["box"]._scales == called.roi_heads.box_roi_pool.scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fixed", [None, (96, 64)])
def test_a_batch_equals_that_of_the_transform(fixed: Any, dtype: torch.dtype) -> None:
    transform = GeneralizedRCNNTransform(
        64, 100, [0.4, 0.5, 0.6], [0.2, 0.3, 0.7], fixed_size=fixed
    ).eval()
    pictures = [picture(50, 70).to(dtype), picture(120, 31).to(dtype)]
    expected, _ = transform(list(pictures))
    actual = read_images(transform, pictures, SmallTables(), places_boxes=True)
    assert torch.equal(actual.inputs[0], expected.tensors)
    assert actual.resized == expected.image_sizes
    assert actual.inputs[1].tolist() == [list(size) for size in expected.image_sizes]
    assert actual.pictures == [(50, 70), (120, 31)]


def test_pictures_that_the_transform_refuses_are_refused_in_its_words() -> None:
    transform = small_rcnn(FasterRCNN).transform
    with pytest.raises(TypeError, match="Expected input images to be of floating type"):
        read_images(
            transform, [torch.zeros(3, 8, 8, dtype=torch.uint8)], SmallTables(), places_boxes=True
        )
    with pytest.raises(ValueError, match="3d tensors"):
        read_images(transform, [torch.zeros(8, 8)], SmallTables(), places_boxes=True)


@pytest.mark.parametrize("family", ["Mask R-CNN", "FCOS"])
def test_a_plan_of_a_core_builds(family: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if torch.cuda.is_available():
        pytest.skip("TensorRT-RTX would build for this GPU, which it may not support")
    compiled = fxtrt.compile(
        FAMILIES[family](),
        (images(1),),
        engine="tensorrt_rtx",
        precision="fp16",
        compute_capabilities=("sm80", "sm89", "sm120"),
        on_build_failure="raise",
        cache_dir=None,
    )
    coverage = fxtrt.report(compiled)
    assert coverage.flops_share == 1.0
    assert all(row.build is not None and row.build.plan_bytes for row in coverage.clusters)
