"""`fxtrt::dense_detections` gives what one-stage detectors of both libraries give."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from fuzzing import fuzz
from head_outputs import SPECIAL, DenseHead, assert_rows, dense_head, maps_of
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from fxtrt.detection.ops.dense_detections import dense_detections

WEIGHTS = (1.0, 1.0, 1.0, 1.0)
GRIDS = [(8, 10), (4, 5), (1, 1)]
PADDED = (64, 80)
STRIDES = [8, 8, 16, 16, 64, 80]
FAKE = ("test_schema", "test_faketensor")
CASES = (st.integers(0, 10_000), st.integers(2, 5), st.sampled_from(SPECIAL))


def detect(
    head: DenseHead, cells: Sequence[Tensor], strides: list[int], special: str, *names: str
) -> tuple[Tensor, ...]:
    return dense_detections(  # type: ignore[no-any-return]  # untyped torch API
        *arguments_of(head, cells, strides, special, *names)
    )


def arguments_of(
    head: DenseHead, cells: Sequence[Tensor], strides: list[int], special: str, *names: str
) -> tuple[Any, ...]:
    offset = 0.5 if names == ("detectron2", "fcos") else 0.0
    return (
        head.logits,
        head.deltas,
        head.centerness,
        list(cells),
        head.sizes,
        strides,
        offset,
        list(WEIGHTS),
        *limits_of(special).values(),
        2048,
        *names,
    )


def limits_of(special: str) -> dict[str, Any]:
    """The thresholds, the most candidates and the most detections."""
    return {"score": 0.9 if special == "nothing" else 0.3, "nms": 0.5, "topk": 30, "most": 25}


def torchvisions(kind: Any, head: DenseHead, anchors: Any, special: str) -> list[Any]:
    limits = limits_of(special)
    detector = SimpleNamespace(
        score_thresh=limits["score"],
        topk_candidates=limits["topk"],
        nms_thresh=limits["nms"],
        detections_per_img=limits["most"],
        box_coder=BoxLinearCoder() if kind is FCOS else BoxCoder(WEIGHTS),
    )
    classes = head.logits[0].shape[1] * 4 // head.deltas[0].shape[1]
    outputs: dict[str, Any] = {
        "cls_logits": maps_of(head.logits, classes),
        "bbox_regression": maps_of(head.deltas, 4),
        "bbox_ctrness": maps_of(head.centerness, 1),
    }
    if kind is SSD:
        outputs = {k: torch.cat(v, 1) for k, v in outputs.items() if v}
    found = kind.postprocess_detections(detector, outputs, anchors, head.shapes())
    return [(image["boxes"], image["scores"], image["labels"]) for image in found]


def check_torchvision(kind: Any, seed: int, classes: int, special: str) -> None:
    sizes = ((10, 14), (24,), (60,)) if kind is RetinaNet else ((8,), (16,), (64,))
    generator = AnchorGenerator(sizes, ((0.5, 1.0) if kind is RetinaNet else (1.0,),) * 3)
    per_cell = generator.num_anchors_per_location()
    head = dense_head(seed, GRIDS, per_cell, classes, special, centerness=kind is FCOS)
    images = ImageList(torch.zeros(2, 3, *PADDED), head.shapes())
    per_image = [
        list(x.split([h * w * a for (h, w), a in zip(GRIDS, per_cell, strict=True)]))
        for x in generator(images, head.logits)
    ]
    expected = torchvisions(kind, head, per_image, special)
    cells: Any = generator.cell_anchors
    name = kind.__name__.lower()
    *actual, number, overflow = detect(head, cells, STRIDES, special, "torchvision", name)
    assert_rows(actual, number, expected)
    assert not overflow.any()
    assert bool(number.sum() > 0) == (special != "nothing")


def check_ssd(seed: int, classes: int, special: str) -> None:
    generator = DefaultBoxGenerator([[2], [2, 3], [2]], steps=[8, 16, 64])
    per_cell = generator.num_anchors_per_location()
    head = dense_head(seed, GRIDS, per_cell, classes, special)
    images = ImageList(torch.zeros(2, 3, *PADDED), head.shapes())
    anchors = generator(images, head.logits)
    boxes = anchors[0].split([h * w * a for (h, w), a in zip(GRIDS, per_cell, strict=True)])
    *actual, number, _ = detect(head, boxes, [], special, "torchvision", "ssd")
    assert_rows(actual, number, torchvisions(SSD, head, anchors, special))


@pytest.mark.parametrize("kind", [RetinaNet, FCOS])
def test_it_gives_torchvisions_detections(kind: Any) -> None:
    fuzz(check_torchvision, st.just(kind), *CASES, examples=50)


def test_it_gives_ssds_detections() -> None:
    fuzz(check_ssd, *CASES, examples=40)


def detectron2s(head: DenseHead, detector: Any, predictions: Any) -> list[tuple[Tensor, ...]]:
    images = SimpleNamespace(image_sizes=head.shapes())
    if hasattr(detector, "forward_inference"):
        found = detector.forward_inference(images, head.logits, predictions)
    else:
        from detectron2.modeling.meta_arch.retinanet import permute_to_N_HWA_K

        logits, deltas = predictions
        found = detector.inference(
            detector.anchor_generator(logits),
            [permute_to_N_HWA_K(x, detector.num_classes) for x in logits],
            [permute_to_N_HWA_K(x, 4) for x in deltas],
            images.image_sizes,
        )
    return [(image.pred_boxes.tensor, image.scores, image.pred_classes) for image in found]


def detector_of(
    kind: Any, transform: Any, classes: int, special: str, sizes: Any, offset: float
) -> Any:
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

    detector = kind.__new__(kind)
    torch.nn.Module.__init__(detector)
    detector.anchor_generator = DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=[[1.0]], strides=STRIDES[::2], offset=offset
    )
    limits = limits_of(special)
    detector.box2box_transform = transform
    detector.num_classes = classes
    detector.test_score_thresh = detector.score_threshold = limits["score"]
    detector.test_topk_candidates = detector.topk_candidates = limits["topk"]
    detector.test_nms_thresh = detector.nms_threshold = limits["nms"]
    detector.max_detections_per_image = limits["most"]
    return detector


def clones(*parts: Sequence[Tensor]) -> list[list[Tensor]]:
    """Copy maps, since Detectron2 computes some of its scores in place."""
    return [[x.clone() for x in part] for part in parts]


def check_detectron2s_retinanet(seed: int, classes: int, special: str) -> None:
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.meta_arch.retinanet import RetinaNet as Detectron2RetinaNet

    sizes = [[10, 14], [24, 30], [60, 70]]
    transform = Box2BoxTransform(weights=WEIGHTS)
    detector = detector_of(Detectron2RetinaNet, transform, classes, special, sizes, 0.0)
    head = dense_head(seed, GRIDS, [2, 2, 2], classes, special)
    expected = detectron2s(head, detector, clones(head.logits, head.deltas))
    strides = [s for s in STRIDES[::2] for _ in range(2)]
    cells = list(detector.anchor_generator.cell_anchors)
    library = "detectron2" if hasattr(detector, "forward_inference") else "detectron2_0.4"
    *actual, number, overflow = detect(head, cells, strides, special, library, "retinanet")
    assert_rows(actual, number, expected)
    assert not overflow.any()


def check_detectron2s_fcos(seed: int, classes: int, special: str) -> None:
    from detectron2.modeling.box_regression import Box2BoxTransformLinear
    from detectron2.modeling.meta_arch.fcos import FCOS as Detectron2FCOS

    transform = Box2BoxTransformLinear(normalize_by_size=True)
    sizes = [[8], [16], [64]]
    detector = detector_of(Detectron2FCOS, transform, classes, special, sizes, 0.5)
    head = dense_head(seed, GRIDS, [1, 1, 1], classes, special, centerness=True)
    maps = clones(head.logits, head.deltas, head.centerness)
    expected = detectron2s(head, detector, maps)
    strides = [s for s in STRIDES[::2] for _ in range(2)]
    cells = list(detector.anchor_generator.cell_anchors)
    *actual, number, _ = detect(head, cells, strides, special, "detectron2", "fcos")
    assert_rows(actual, number, expected)


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn about themselves.
@pytest.mark.parametrize("check", [check_detectron2s_retinanet, check_detectron2s_fcos])
def test_it_gives_detectron2s_detections(check: Callable[..., None]) -> None:
    require_detectron2()
    fcos = importlib.util.find_spec("detectron2.modeling.meta_arch.fcos")
    if fcos is None and check is check_detectron2s_fcos:
        pytest.skip("this version of Detectron2 has no FCOS")
    fuzz(check, *CASES, examples=50)


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_its_fake_tells_the_shapes(kind: str) -> None:
    head = dense_head(0, GRIDS, [1, 1, 1], 3, centerness=kind == "fcos")
    cells = [torch.tensor([[-4.0, -4.0, 4.0, 4.0]])] * 3
    arguments = arguments_of(head, cells, STRIDES, "", "torchvision", kind)
    torch.library.opcheck(dense_detections, arguments, test_utils=FAKE)
