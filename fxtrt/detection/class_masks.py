"""Pick of all classes' masks the one of each detection's class."""

from __future__ import annotations

from torch import Tensor

__all__ = ["class_masks"]


def class_masks(logits: Tensor, classes: Tensor) -> Tensor:
    """Return (B, D, 1, M, M), probabilities.

    Args:
        logits: (B * D, C, M, M); one mask serves all classes if C is 1.
        classes: (B, D), -1 for padding.
    """
    if logits.shape[1] > 1:
        index = classes.flatten().clamp(min=0)[:, None, None, None]
        logits = logits.gather(1, index.expand(-1, 1, *logits.shape[2:]))
    return logits.sigmoid().unflatten(0, classes.shape)  # type: ignore[no-any-return, no-untyped-call]  # torch's
