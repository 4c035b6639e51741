"""Each equivalent gives what Detectron2's function gives (`-m detectron2`)."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2_instances import assert_same
from detectron2_package import require_detectron2
from torch import Tensor

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

SIZES = [(40, 60), (64, 48)]
FAKES = ("test_schema", "test_faketensor")
SPECIAL = ["", "ties", "not finite", "nothing"]


@pytest.fixture
def models() -> Any:
    require_detectron2()
    names = (
        *("detectron2.dense", "detectron2.panoptic", "detectron2.proposals"),
        *("detectron2.structures", "ops.corner", "ops.detectron2_batched_nms"),
        *("ops.detectron2_heatmaps_to_keypoints", "ops.detectron2_panoptic"),
        "ops.detectron2_paste_masks",
    )
    modules = [import_module(f"fxtrt.detection.{name}") for name in names]
    return SimpleNamespace(**{name: vars(m)[name] for m in modules for name in m.__all__})


def boxes_of(*shape: int, special: str) -> Tensor:
    corners = torch.rand(*shape, 2) * 50 - 5
    boxes = torch.cat([corners, corners + torch.rand(*shape, 2) * 30], -1)
    if special == "not finite":
        boxes.view(-1, 4)[::7, 2] = torch.inf
        boxes.view(-1, 4)[::11, 0] = torch.nan
    return boxes


def scores_of(*shape: int, special: str) -> Tensor:
    scores = torch.rand(shape)
    if special == "not finite":
        scores.view(-1)[::13] = torch.nan
    return (scores * 4).round() / 4 if special == "ties" else scores


@pytest.mark.parametrize("special", SPECIAL)
def test_find_top_rpn_proposals(models: Any, special: str) -> None:
    from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals

    torch.manual_seed(0)
    counts = (200, 30)
    boxes = [boxes_of(2, count, special=special) for count in counts]
    scores = [scores_of(2, count, special=special) for count in counts]
    smallest = 1e6 if special == "nothing" else 2.0
    arguments = (SIZES, 0.6, 50, 25, smallest, False)
    expected = find_top_rpn_proposals([b.clone() for b in boxes], scores, *arguments)
    actual = models.find_top_rpn_proposals(boxes, scores, *arguments)
    assert all((len(one) > 0) == (special != "nothing") for one in expected)
    for a, e in zip(actual, expected, strict=True):
        assert_same(a, e)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("count", [0, 300])
def test_fast_rcnn_inference(models: Any, classes: int, count: int, special: str) -> None:
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image

    torch.manual_seed(0)
    boxes = boxes_of(count, classes, special=special).flatten(1)
    scores = scores_of(count, 5, special=special)
    for most in (20, -1):
        arguments = (SIZES[0], 2.0 if special == "nothing" else 0.3, 0.5, most)
        expected = fast_rcnn_inference_single_image(boxes.clone(), scores, *arguments)
        actual = models.fast_rcnn_inference_single_image(boxes, scores, *arguments)
        assert_same(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])


def test_boxes_equal_detectron2s(models: Any) -> None:
    from detectron2.structures import Boxes

    for value in (torch.rand(3, 4).double(), torch.zeros(0), torch.zeros(0, 4), [[1, 2, 3, 4]]):
        actual = Boxes.__new__(Boxes)
        models.new_boxes(actual, value)
        assert torch.equal(actual.tensor, Boxes(value).tensor)
    expected = Boxes(boxes_of(9, special=""))
    actual = expected.clone()
    models.clip(actual, SIZES[0])
    expected.clip(SIZES[0])
    assert torch.equal(actual.tensor, expected.tensor)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("divisibility", [0, 1, 32])
def test_from_tensors_equals_detectron2s(models: Any, count: int, divisibility: int) -> None:
    from detectron2.structures import ImageList

    images = [torch.rand(3, *size) for size in SIZES[:count]]
    expected = ImageList.from_tensors(images, divisibility, 0.5)
    actual = models.from_tensors(images, divisibility, 0.5)
    assert torch.equal(actual.tensor, expected.tensor)
    assert actual.image_sizes == [tuple(map(int, size)) for size in expected.image_sizes]


def test_batched_nms_equals_detectron2s(models: Any) -> None:
    from detectron2.layers import batched_nms

    torch.manual_seed(0)
    arguments = (boxes_of(90, special=""), torch.rand(90), torch.randint(3, (90,)), 0.5)
    assert torch.equal(models.batched_nms(*arguments), batched_nms(*arguments))
    torch.library.opcheck(models.batched_nms, arguments, test_utils=FAKES)


@pytest.mark.parametrize("item", [slice(1, 3), 2, -1, torch.tensor([2, 0]), "mask"])
def test_select_equals_detectron2s(models: Any, item: Any) -> None:
    from detectron2.structures import Boxes, Instances

    instances = Instances((4, 5), pred_boxes=Boxes(torch.rand(4, 4)), scores=torch.rand(4))
    if item == "mask":
        item = torch.tensor([True, False, True, True])
    assert_same(models.select(instances, item), instances[item])


@pytest.mark.parametrize("norm", ["", "FrozenBN"])
def test_conv2d_equals_detectron2s(models: Any, norm: str) -> None:
    from detectron2.layers import Conv2d, get_norm

    layer = Conv2d(3, 4, 3, padding=1, norm=get_norm(norm, 4), activation=torch.relu)
    for count in (0, 2):
        x = torch.rand(count, 3, 5, 5)
        assert torch.equal(models.conv2d(layer, x), layer(x))


@pytest.mark.parametrize("counts", [(3,), (2, 4), (0, 2)])
def test_pooler_format_equals_detectron2s(models: Any, counts: tuple[int, ...]) -> None:
    from detectron2.modeling.poolers import convert_boxes_to_pooler_format
    from detectron2.structures import Boxes

    boxes = [Boxes(torch.rand(count, 4)) for count in counts]
    assert torch.equal(models.pooler_format(boxes), convert_boxes_to_pooler_format(boxes))


@pytest.mark.parametrize("count", [0, 1, 6])
def test_bitmasks_equal_detectron2s(models: Any, count: int) -> None:
    from detectron2.structures import Boxes, ROIMasks

    torch.manual_seed(count)
    masks, boxes = ROIMasks(torch.rand(count, 7, 7)), Boxes(boxes_of(count, special=""))
    expected = masks.to_bitmasks(boxes, 50, 70, 0.5)
    assert torch.equal(models.to_bitmasks(masks, boxes, 50, 70, 0.5).tensor, expected.tensor)
    arguments = (masks.tensor, boxes.tensor, (50, 70), 0.5)
    torch.library.opcheck(models.paste_masks, arguments, test_utils=FAKES)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_heatmaps_to_keypoints(models: Any, count: int) -> None:
    from detectron2.structures import heatmaps_to_keypoints

    torch.manual_seed(count)
    arguments = (torch.rand(count, 3, 8, 8), boxes_of(count, special=""))
    expected = heatmaps_to_keypoints(*arguments)
    assert torch.equal(models.heatmaps_to_keypoints(*arguments), expected)
    torch.library.opcheck(models.heatmaps_to_keypoints, arguments, test_utils=FAKES)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_panoptic_segments_equal_detectron2s(models: Any, count: int) -> None:
    from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
    from detectron2.structures import Instances

    torch.manual_seed(count)
    instances = Instances(
        (20, 30),
        pred_masks=torch.rand(count, 20, 30) > 0.7,
        scores=torch.rand(count),
        pred_classes=torch.randint(9, (count,)),
    )
    arguments = (instances, torch.randint(5, (20, 30)), 0.5, 20.0, 0.3)
    expected = combine_semantic_and_instance_outputs(*arguments)
    assert len(expected[1]) > 1
    leaves, tree = torch.utils._pytree.tree_flatten(models.combine(*arguments))
    actual = torch.utils._pytree.tree_unflatten(leaves, tree)
    assert torch.equal(actual[0], expected[0])
    assert actual[1] == expected[1]
    kinds = [[type(value) for value in one.values()] for one in actual[1]]
    assert kinds == [[type(value) for value in one.values()] for one in expected[1]]


@pytest.mark.parametrize("special", SPECIAL)
def test_detections_of_a_dense_detector(models: Any, special: str) -> None:
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.meta_arch.retinanet import RetinaNet
    from detectron2.structures import Boxes

    torch.manual_seed(0)
    detector = RetinaNet.__new__(RetinaNet)
    torch.nn.Module.__init__(detector)
    detector.num_classes, detector.test_topk_candidates = 3, 20
    detector.test_score_thresh = 2.0 if special == "nothing" else 0.6
    detector.test_nms_thresh, detector.max_detections_per_image = 0.5, 15
    detector.box2box_transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    counts = (60, 8)
    anchors = [Boxes(boxes_of(count, special="")) for count in counts]
    scores = [scores_of(count, 3, special=special) for count in counts]
    deltas = [torch.randn(count, 4) * 0.1 for count in counts]
    expected = detector.inference_single_image(
        anchors, [one.clone() for one in scores], deltas, SIZES[0]
    )
    assert (len(expected) > 0) == (special != "nothing")
    if not hasattr(detector, "_decode_per_level_predictions"):
        actual = models.detections_of_logits(detector, anchors, scores, deltas, SIZES[0])
        assert_same(actual, expected)
        return
    for level in zip(anchors, scores, deltas, strict=True):
        arguments = (*level, detector.test_score_thresh, 20, SIZES[0])
        expected = detector._decode_per_level_predictions(*arguments)
        assert_same(models.decode_level(detector, *arguments), expected)


def test_pytrees_open_instances(models: Any) -> None:
    from detectron2.structures import Boxes, Instances

    instances = Instances((4, 5), pred_boxes=Boxes(torch.rand(2, 4)), scores=torch.rand(2))
    leaves, tree = torch.utils._pytree.tree_flatten([{"instances": instances}])
    assert leaves[:2] == [4, 5]
    assert [leaf.shape for leaf in leaves[2:]] == [(2, 4), (2,)]
    ((again,),) = (one.values() for one in torch.utils._pytree.tree_unflatten(leaves, tree))
    assert_same(again, instances)
