"""Give Detectron2's proposal networks a core of fixed shapes, and the steps around it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from detectron2.modeling.meta_arch.rcnn import ProposalNetwork
from torch import Tensor

from ..core_batch import Core
from ..host_steps import keeps_methods
from ..ops.place_detections import place_detections
from .padded_proposals import padded_proposals, why_no_proposals
from .results import ResultRules
from .steps import Steps

__all__ = ["proposal_network_steps"]


class _Core(Core):
    """The networks of a `ProposalNetwork`, and the selection of its proposals."""

    backbone: Any

    def forward(
        self, images: Tensor, image_sizes: Tensor, scales: Tensor, limits: Tensor
    ) -> tuple[Tensor, ...]:
        """Return padded boxes in the pictures' own pixels, their logits and their summary."""
        regions, logits = padded_proposals(
            self.proposal_generator, self.backbone(images), image_sizes
        )
        overflow = torch.zeros_like(regions.counts, dtype=torch.bool)
        boxes, summary = place_detections(regions.boxes, regions.counts, overflow, scales, limits)
        return boxes, logits, summary


def proposal_network_steps(model: Any) -> Steps | str:
    """Return the core of a `ProposalNetwork` and its steps, or why it can have none."""
    if not keeps_methods(model, ProposalNetwork, "forward"):
        return f"{type(model).__name__} has a forward of its own"
    return why_no_proposals(model.proposal_generator) or Steps(
        model, _Core(model), partial(ResultRules, "proposals")
    )
