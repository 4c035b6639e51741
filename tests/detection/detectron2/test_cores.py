"""Detectron2's detectors run as a core between two host steps, and give what eager gives."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
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
    found_in,
    photo,
    why_no_core,
)
from small_detectron2 import FAMILIES, picture

import fxtrt

SIZES = ((160, 192), (300, 200), (224, 416), (160, 170))

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]


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
