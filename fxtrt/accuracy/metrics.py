"""Turn the predictions for some images into one number that says how good they are."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import AccuracyError
from ..numerics.matching import assign, overlaps
from .answers import Detections, annotated, detected, is_detection, same_length

__all__ = ["agreement", "box_ap"]

_LEAST_SCORE = 0.3
_LEAST_OVERLAP = 0.5
_SCORE_GAP = 0.1


def box_ap(predictions: Sequence[Any], annotations: Sequence[Mapping[str, Any]]) -> float:
    """Return COCO's box AP, in 0..1: the mean over IoU thresholds .50 to .95 and over classes.

    It is computed by pycocotools, with at most 100 detections of an image. A detection whose box or
    score is not a finite number counts as a false alarm of the highest score.

    Args:
        predictions: dicts with boxes, labels and scores, or Detectron2's `Instances`, or its dicts
            with the key "instances"; one for each image.
        annotations: mappings with `boxes`, (N, 4) of x1, y1, x2, y2 in pixels, and `labels`, (N,);
            one for each image. Labels mean the same as those of the predictions.

    Raises:
        AccuracyError: pycocotools is missing, or an argument is not as described; or there are no
            images, or no annotated box at all.
    """
    coco, evaluation = _pycocotools()
    same_length(predictions, annotations, "annotations")
    truth = [annotated(one, f"the annotation of image {i}") for i, one in enumerate(annotations)]
    found = [detected(one, f"the prediction for image {i}") for i, one in enumerate(predictions)]
    if not any(len(one.boxes) for one in truth):
        raise AccuracyError(
            f"none of the {len(truth)} images has an annotated box: AP is not defined without any"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does.
        judged = evaluation(_dataset(coco, truth), _dataset(coco, found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0])


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise AccuracyError(
            "box AP needs pycocotools: pip install 'fxtrt[accuracy]', or judge by agreement, which "
            "needs no annotations"
        ) from error
    return COCO, COCOeval


def _dataset(coco: Any, images: Sequence[Detections]) -> Any:
    """Return pycocotools' form of detections. Its ids of annotations begin at 1."""
    rows: list[dict[str, Any]] = []
    for image, one in enumerate(images):
        values = zip(one.boxes, one.labels, one.scores, one.numbers, strict=True)
        for box, label, score, is_number in values:
            x, y, right, bottom = box.tolist() if is_number else (0.0, 0.0, 0.0, 0.0)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [x, y, right - x, bottom - y],
                    "area": (right - x) * (bottom - y),
                    "iscrowd": 0,
                    "score": float(score) if is_number else float("inf"),
                }
            )
    dataset = coco()
    dataset.dataset = {
        "images": [{"id": image} for image in range(len(images))],
        "categories": [{"id": label} for label in sorted({row["category_id"] for row in rows})],
        "annotations": rows,
    }
    dataset.createIndex()
    return dataset


def agreement(predictions: Sequence[Any], expected: Sequence[Any]) -> float:
    """Return the share of answers, in 0..1, that are those of another model.

    A detection counts if its score exceeds 0.3. The other side has it too if one of its own, that
    no better one was matched with, has the same class, a box of IoU above 0.5, a score within 0.1
    and, where both have masks, a mask of IoU above 0.5. Both sides are looked for in the other, and
    the smaller share counts. Of a classifier it is the share of equal top classes.
    What is not a number in `predictions` agrees with nothing.

    Args:
        predictions, expected: one entry for each image: dicts with boxes, labels and scores;
            Detectron2's `Instances`, or its dicts with the key "instances"; or logits, (classes,)
            or (batch, classes).

    Raises:
        AccuracyError: an argument is not as described, there are no images, `expected` has NaN, or
            it has no detection to look for.
    """
    same_length(predictions, expected, "expected answers")
    if all(isinstance(one, Tensor) for one in expected):
        pairs = zip(predictions, expected, strict=True)
        rows = [_same_class(one, wanted, i) for i, (one, wanted) in enumerate(pairs)]
        return float(torch.cat(rows).double().mean())
    if not all(map(is_detection, expected)):
        kinds = sorted({type(one).__name__ for one in expected})
        raise AccuracyError(
            f"agreement does not know how to compare {', '.join(kinds)}: expected dicts with "
            f"boxes, labels and scores, Instances, or logits; a metric of your own may be any "
            f"callable"
        )
    return _of_detections(
        [detected(one, f"the prediction for image {i}") for i, one in enumerate(predictions)],
        [detected(one, f"the expected answer for image {i}") for i, one in enumerate(expected)],
    )


def _same_class(actual: Any, expected: Tensor, image: int) -> Tensor:
    """Tell of each row of logits whether its highest class is the expected one."""
    shape = tuple(actual.shape) if isinstance(actual, Tensor) else type(actual).__name__
    if shape != tuple(expected.shape) or expected.ndim not in (1, 2) or not expected.numel():
        raise AccuracyError(
            f"the prediction for image {image} is {shape} and the expected one "
            f"{tuple(expected.shape)}: logits need one shape, (classes,) or (batch, classes)"
        )
    if expected.isnan().any():
        raise AccuracyError(f"the expected answer for image {image} has NaN: the model is at fault")
    classes = expected.shape[-1]
    logits, wanted = (side.detach().cpu().reshape(-1, classes) for side in (actual, expected))
    return (logits.argmax(1) == wanted.argmax(1)) & ~logits.isnan().any(1)


def _of_detections(actual: Sequence[Detections], expected: Sequence[Detections]) -> float:
    for image, one in enumerate(expected):
        if not one.numbers.all():
            raise AccuracyError(
                f"the expected answer for image {image} has {int((~one.numbers).sum())} detections "
                f"with NaN or infinity: the model is at fault"
            )
    if not any((one.scores > _LEAST_SCORE).any() for one in expected):
        raise AccuracyError(
            f"no expected detection in {len(expected)} images scores above {_LEAST_SCORE}: there "
            f"is nothing to agree with; give images with objects, and a trained model"
        )
    shares = []
    for sides in ((expected, actual), (actual, expected)):
        kept = torch.cat([_matched(*pair) for pair in zip(*sides, strict=True)])
        shares.append(float(kept.double().mean()) if len(kept) else 0.0)
    return min(shares)


def _matched(side: Detections, other: Detections) -> Tensor:
    """Tell of each detection of `side` that counts, best first, whether `other` has it too."""
    wanted = ~(side.scores <= _LEAST_SCORE)  # NaN counts too, and finds no partner.
    rows = wanted.nonzero()[:, 0]
    rows = rows[side.scores[rows].argsort(descending=True, stable=True)]
    overlap = overlaps(side.boxes[rows], other.boxes)
    gap = (side.scores[rows][:, None] - other.scores).abs()
    fits = (overlap > _LEAST_OVERLAP) & (gap <= _SCORE_GAP)
    fits &= side.labels[rows][:, None] == other.labels
    if side.masks is not None and other.masks is not None:
        for i, j in fits.nonzero().tolist():
            fits[i, j] = _masks_overlap(side.masks[rows[i]], other.masks[j])
    # Equal boxes are told apart by their scores.
    return assign(overlap - gap / 100, fits) >= 0


def _masks_overlap(mask: Tensor, other: Tensor) -> bool:
    if mask.shape != other.shape:
        raise AccuracyError(
            f"masks of the two sides have {mask.numel()} and {other.numel()} pixels: both sides "
            f"must answer for images of one size"
        )
    union = int((mask | other).sum())
    return union == 0 or int((mask & other).sum()) / union > _LEAST_OVERLAP
