"""Maps of an RPN head with all that is awkward in them, and what the libraries make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["KINDS", "Limits", "Maps", "detectron2_proposals", "maps_of", "torchvision_proposals"]

KINDS = ("plain", "ties", "equal", "not finite", "degenerate", "none")
ANCHORS = 3
_RATIOS = (0.5, 1.0, 2.0)
_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
Found = list[tuple[Tensor, Tensor]]
"""Boxes and scores of each image."""


@dataclass(frozen=True)
class Limits:
    """The numbers that `fxtrt::rpn_proposals` takes from `nms_thresh` on, but for the library."""

    nms_thresh: float = 0.7
    pre_nms_topk: int = 50
    post_nms_topk: int = 40
    min_size: float = 0.0
    score_thresh: float = 0.0

    def arguments(self) -> tuple[float, int, int, float, float]:
        most = (self.pre_nms_topk, self.post_nms_topk)
        return (self.nms_thresh, *most, self.min_size, self.score_thresh)


@dataclass(frozen=True)
class Maps:
    """The outputs of an RPN head for a batch, each level's stride and the images' sizes."""

    logits: list[Tensor]
    deltas: list[Tensor]
    strides: list[int]
    sizes: list[tuple[int, int]]

    def arguments(self, cells: Sequence[Tensor], offset: float) -> tuple[Any, ...]:
        """Return the arguments of `fxtrt::rpn_proposals` up to the weights."""
        sizes = torch.tensor(self.sizes, dtype=torch.float32).view(-1, 2)
        strides = [stride for stride in self.strides for _ in range(2)]
        return (self.logits, self.deltas, list(cells), sizes, strides, offset, list(_WEIGHTS))

    def channels_last(self) -> Maps:
        form = {"memory_format": torch.channels_last}
        return replace(
            self,
            logits=[m.contiguous(**form) for m in self.logits],
            deltas=[m.contiguous(**form) for m in self.deltas],
        )


def maps_of(
    seed: int,
    kind: str = "plain",
    images: int = 2,
    grids: Sequence[tuple[int, int]] = ((12, 16), (6, 8), (3, 4)),
    dtype: torch.dtype = torch.float32,
) -> Maps:
    """Make maps for images of up to the size of the first map.

    Strides are 8, 16 and so on, as Detectron2 takes them; torchvision finds the same ones if each
    grid is half as large as the one before.
    """
    generator = torch.Generator().manual_seed(seed)
    strides = [8 << level for level in range(len(grids))]
    logits = [torch.randn(images, ANCHORS, *grid, generator=generator) * 3 for grid in grids]
    deltas = [torch.randn(images, 4 * ANCHORS, *g, generator=generator) * 0.5 for g in grids]
    for one, others in zip(logits, deltas, strict=True):
        _spoil(kind, one, others, generator)
    largest = torch.tensor(grids[0]) * strides[0]
    shares = torch.rand(images, 2, generator=generator) * 0.6 + 0.4
    sizes = [tuple(size) for size in (shares * largest).long().clamp(min=1).tolist()]
    return Maps([m.to(dtype) for m in logits], [m.to(dtype) for m in deltas], strides, sizes)


def _spoil(kind: str, logits: Tensor, deltas: Tensor, generator: torch.Generator) -> None:
    """Change maps in place."""

    def some(of: Tensor, share: float) -> Tensor:
        return torch.rand(of.shape, generator=generator) < share

    if kind == "ties":
        logits.copy_(logits.round())
    elif kind == "equal":
        logits.zero_()
        logits[some(logits, 0.5)] = -0.0
    elif kind == "not finite":
        for value in (torch.nan, torch.inf, -torch.inf):
            logits[some(logits, 0.05)] = value
            deltas[some(deltas, 0.02)] = value
    elif kind == "degenerate":
        deltas[some(deltas, 0.2)] = -60000.0
        deltas[some(deltas, 0.1)] = 60000.0
        deltas[some(deltas, 0.3)] = 0.0
    elif kind == "none":
        logits.fill_(torch.nan)


def detectron2_proposals(maps: Maps, limits: Limits, offset: float) -> tuple[Found, list[Tensor]]:
    """Return what Detectron2 finds, and its cell anchors."""
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals

    sides = [[4.0 * stride] for stride in maps.strides]
    generator = DefaultAnchorGenerator(
        sizes=sides, aspect_ratios=[list(_RATIOS)], strides=maps.strides, offset=offset
    )
    # torchvision suppresses on the CPU in float32 only.
    logits = [m.float().permute(0, 2, 3, 1).flatten(1) for m in maps.logits]
    decoded = []
    for deltas, anchors in zip(maps.deltas, generator(maps.logits), strict=True):
        images, _, height, width = deltas.shape
        rows = deltas.reshape(images, -1, 4, height, width).permute(0, 3, 4, 1, 2).reshape(-1, 4)
        boxes = Box2BoxTransform(_WEIGHTS).apply_deltas(rows, anchors.tensor.repeat(images, 1))
        decoded.append(boxes.view(images, -1, 4))
    thresh, pre, post, smallest, _ = limits.arguments()
    found = find_top_rpn_proposals(
        decoded, logits, maps.sizes, thresh, pre, post, smallest, training=False
    )
    pairs = [(one.proposal_boxes.tensor, one.objectness_logits) for one in found]
    return pairs, list(generator.cell_anchors)


def torchvision_proposals(maps: Maps, limits: Limits) -> tuple[Found, list[Tensor]]:
    """Return what torchvision finds in float32, and its cell anchors."""
    from torchvision.models.detection import rpn
    from torchvision.models.detection.image_list import ImageList

    sides = tuple((4 * stride,) for stride in maps.strides)
    generator = rpn.AnchorGenerator(sides, (_RATIOS,) * len(sides))
    thresh, pre, post, smallest, score_thresh = limits.arguments()
    network = rpn.RegionProposalNetwork(
        generator, torch.nn.Identity(), 0.7, 0.3, 256, 0.5,
        {"testing": pre}, {"testing": post}, thresh, score_thresh,
    ).eval()  # fmt: skip
    network.min_size = smallest
    logits, deltas = [m.float() for m in maps.logits], [m.float() for m in maps.deltas]
    height, width = (n * maps.strides[0] for n in logits[0].shape[-2:])
    padded = ImageList(torch.zeros(len(maps.sizes), 3, height, width), maps.sizes)
    anchors = network.anchor_generator(padded, logits)
    counts = [m[0].numel() for m in logits]
    scores, rows = rpn.concat_box_prediction_layers(logits, deltas)
    boxes = network.box_coder.decode(rows, anchors).view(len(maps.sizes), -1, 4)
    found = network.filter_proposals(boxes, scores, maps.sizes, counts)
    return list(zip(*found, strict=True)), generator.cell_anchors
