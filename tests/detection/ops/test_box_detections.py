"""`fxtrt::box_detections` gives what the box heads of torchvision and Detectron2 give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from fuzzing import fuzz
from head_outputs import SPECIAL, BoxHead, assert_rows, box_head
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads

from fxtrt.detection.ops.box_detections import box_detections

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
FAKE = ("test_schema", "test_faketensor")
CASES = (
    st.integers(0, 10_000),
    st.lists(st.integers(0, 60), min_size=1, max_size=3),
    st.integers(2, 6),
    st.sampled_from(SPECIAL),
)


def detect(head: BoxHead, threshold: float, most: int, library: str) -> tuple[Tensor, ...]:
    return box_detections(  # type: ignore[no-any-return]  # untyped torch API
        head.logits,
        head.deltas,
        head.proposals,
        head.counts,
        head.sizes,
        list(WEIGHTS),
        threshold,
        0.5,
        most,
        2048,
        library,
    )


def torchvisions(head: BoxHead, threshold: float, most: int) -> list[tuple[Tensor, ...]]:
    heads: Any = SimpleNamespace(
        box_coder=BoxCoder(WEIGHTS),
        score_thresh=threshold,
        nms_thresh=0.5,
        detections_per_img=most,
    )
    (logits,) = head.logits
    found = RoIHeads.postprocess_detections(
        heads,
        torch.cat(head.live(logits)),
        torch.cat(head.live(head.deltas)),
        head.live(head.proposals.flatten(0, 1)),
        head.shapes(),
    )
    return list(zip(*found, strict=True))


def check_torchvision(seed: int, counts: list[int], classes: int, special: str) -> None:
    head = box_head(seed, counts, classes, classes, special)
    threshold, most = (0.9, 7) if special == "nothing" else (0.05, 40)
    boxes, scores, labels, rows, number, overflow = detect(head, threshold, most, "torchvision")
    assert_rows((boxes, scores, labels), number, torchvisions(head, threshold, most))
    assert not overflow.any()
    assert_rows_match_scores(head, scores, labels, rows, number)


def assert_rows_match_scores(
    head: BoxHead, scores: Tensor, labels: Tensor, rows: Tensor, number: Tensor
) -> None:
    """Assert that the proposal at each row has the score of the detection."""
    (logits,) = head.logits
    table = logits.softmax(-1).view(*head.proposals.shape[:2], -1)
    for image, count in enumerate(number.tolist()):
        picked = table[image][rows[image, :count], labels[image, :count]]
        torch.testing.assert_close(picked, scores[image, :count], atol=1e-6, rtol=0)
        assert (rows[image, count:] == -1).all()


def test_it_gives_torchvisions_detections() -> None:
    fuzz(check_torchvision, *CASES, examples=60)


def test_more_boxes_than_torchvision_suppresses_at_once() -> None:
    check_torchvision(0, [1200, 900], 5, "")


def detectron2s(head: BoxHead, threshold: float, most: int) -> list[tuple[Tensor, ...]]:
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

    transform = Box2BoxTransform(weights=WEIGHTS)
    boxes = transform.apply_deltas(
        torch.cat(head.live(head.deltas)), torch.cat(head.live(head.proposals.flatten(0, 1)))
    )
    stages = [[x.softmax(-1) for x in head.live(logits)] for logits in head.logits]
    scores = [sum(image) * (1.0 / len(stages)) for image in zip(*stages, strict=True)]
    found, rows = fast_rcnn_inference(
        boxes.split(head.counts.tolist()), scores, head.shapes(), threshold, 0.5, most
    )
    finite = [
        (x.isfinite().all(1) & y.isfinite().all(1)).nonzero()[:, 0]
        for x, y in zip(boxes.split(head.counts.tolist()), scores, strict=True)
    ]
    return [  # Detectron2 counts only the proposals that are finite; the operator counts all.
        (image.pred_boxes.tensor, image.scores, image.pred_classes, live[row])
        for image, row, live in zip(found, rows, finite, strict=True)
    ]


def check_detectron2(
    seed: int, counts: list[int], classes: int, special: str, agnostic: bool, stages: int
) -> None:
    head = box_head(seed, counts, classes, 1 if agnostic else classes - 1, special, stages)
    threshold, most = (0.9, 7) if special == "nothing" else (0.05, 40)
    *actual, number, overflow = detect(head, threshold, most, "detectron2")
    assert_rows(actual, number, detectron2s(head, threshold, most))
    assert not overflow.any()


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn about themselves.
def test_it_gives_detectron2s_detections() -> None:
    require_detectron2()
    fuzz(check_detectron2, *CASES, st.booleans(), st.integers(1, 3), examples=60)


@pytest.mark.parametrize("library", ["detectron2", "torchvision"])
def test_half_precision_is_widened_first(library: str) -> None:
    head = box_head(0, [30, 20], 4, 4 if library == "torchvision" else 3)
    half = BoxHead([head.logits[0].half()], head.deltas.half(), head.proposals, *sizes_of(head))
    wide = BoxHead([half.logits[0].float()], half.deltas.float(), head.proposals, *sizes_of(head))
    for actual, expected in zip(
        detect(half, 0.05, 40, library), detect(wide, 0.05, 40, library), strict=True
    ):
        assert torch.equal(actual, expected)


def sizes_of(head: BoxHead) -> tuple[Tensor, Tensor]:
    return head.counts, head.sizes


@pytest.mark.parametrize("library", ["detectron2", "torchvision"])
def test_its_fake_tells_the_shapes(library: str) -> None:
    head = box_head(0, [30, 20], 4, 4 if library == "torchvision" else 3, stages=2)
    arguments = (head.logits, head.deltas, head.proposals, *sizes_of(head), list(WEIGHTS))
    torch.library.opcheck(box_detections, (*arguments, 0.05, 0.5, 10, 64, library), test_utils=FAKE)


@pytest.mark.parametrize("images", [0, 2])
def test_without_images_or_proposals_there_is_no_detection(images: int) -> None:
    regions = 0 if images else 5
    tables = (torch.zeros(0, 3), torch.zeros(0, 8), torch.zeros(images, regions, 4))
    sizes = (torch.zeros(images, dtype=torch.int32), torch.zeros(images, 2))
    found = detect(BoxHead([tables[0]], *tables[1:], *sizes), 0.05, 7, "detectron2")
    table = (images, 7)
    assert [x.shape for x in found] == [(*table, 4), table, table, table, (images,), (images,)]
    assert found[4].tolist() == [0] * images
