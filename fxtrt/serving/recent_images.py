"""Keeps small copies of the last images with what was found in them, for the status page."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .detections import outputs_of

__all__ = ["RecentImages"]

_LONGEST = 640
_SECONDS = 0.5
_MOST_BOXES = 50


@dataclass(frozen=True, slots=True)
class _Kept:
    """A small copy of an image, and its detections in shares of its width and height."""

    jpeg: bytes
    width: int
    height: int
    boxes: list[dict[str, Any]]


class RecentImages:
    """Holds the last few images, at most two in a second, and so no more than about a megabyte."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep `most` images; 0 keeps none."""
        self._kept: deque[tuple[int, _Kept]] = deque(maxlen=most)
        self._lock = threading.Lock()
        self._clock = clock
        self._count = 0
        self._due = -float("inf")

    @property
    def is_on(self) -> bool:
        return self._kept.maxlen != 0

    def is_due(self) -> bool:
        """Return whether the next image is to be kept; it then counts as kept."""
        now = self._clock()
        with self._lock:
            if not self.is_on or now < self._due:
                return False
            self._due = now + _SECONDS
            return True

    def keep(self, pixels: Tensor, answer: Any) -> None:
        """Keep an image.

        Args:
            pixels: (3, H, W), uint8.
            answer: the model's answer for it.
        """
        height, width = pixels.shape[1:]
        one = _Kept(_jpeg(pixels), width, height, _boxes(answer, height, width))
        with self._lock:
            self._count += 1
            self._kept.append((self._count, one))

    def listed(self) -> list[dict[str, Any]] | None:
        """Return the detections of all kept images, newest first; None if none are to be kept."""
        if not self.is_on:
            return None
        with self._lock:
            kept = list(self._kept)
        return [
            {"id": number, "width": one.width, "height": one.height, "boxes": one.boxes}
            for number, one in reversed(kept)
        ]

    def jpeg(self, number: int) -> bytes | None:
        """Return the file of an image, or None if it is not kept any more."""
        with self._lock:
            return next((one.jpeg for key, one in self._kept if key == number), None)


def _jpeg(pixels: Tensor) -> bytes:
    from PIL import Image

    height, width = pixels.shape[1:]
    scale = min(1.0, _LONGEST / max(height, width))
    if scale < 1.0:
        sides = max(1, round(height * scale)), max(1, round(width * scale))
        small = interpolate(pixels[None].float(), sides, mode="bilinear", antialias=True)[0]
        pixels = small.round().clamp(0, 255).to(torch.uint8)
    file = BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy()).save(file, "JPEG")
    return file.getvalue()


def _boxes(answer: Any, height: int, width: int) -> list[dict[str, Any]]:
    """Return the best detections; an answer that is none has none."""
    outputs = outputs_of(answer)
    boxes, scores = outputs.get("boxes"), outputs.get("scores")
    if not isinstance(boxes, Tensor) or not isinstance(scores, Tensor) or scores.ndim != 1:
        return []
    best = scores.argsort(descending=True)[:_MOST_BOXES]
    labels = outputs.get("labels", outputs.get("pred_classes"))
    names = labels[best].tolist() if isinstance(labels, Tensor) else [None] * len(best)
    shares = boxes[best].float().cpu() / torch.tensor([width, height, width, height])
    rows = zip(shares.clamp(0, 1).tolist(), scores[best].tolist(), names, strict=True)
    return [{"box": box, "score": score, "label": name} for box, score, name in rows]
