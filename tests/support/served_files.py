"""Files that serve alone, of models that are quick and whose answers tell the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from artifact_edits import Edited, rewrite
from torch import nn
from torch.export import Dim

import fxtrt

__all__ = ["OPTIONS", "Means", "change_weights", "means_file"]

OPTIONS: dict[str, Any] = {"engine": "reference", "cache_dir": None}
SIDES = (6, 8)


class Means(nn.Module):
    """The mean of each image times a factor, and the same with the opposite sign."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.grey = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.grey.weight, factor / 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        mean = self.grey(x).mean((1, 2, 3))
        return {"mean": mean, "both": torch.stack([mean, -mean], 1)}


def means_file(path: Path, most: int = 4, factor: float = 1.0, **options: Any) -> Path:
    """A file of `Means` for up to `most` images of 6x8 pixels at once."""
    sizes = ({0: Dim("batch", min=1, max=most)},) if most > 1 else None
    example = torch.rand(2 if most > 1 else 1, 3, *SIDES)
    model, more = Means(factor).eval(), {"min_cluster_size": 1, **OPTIONS, **options}
    fast = fxtrt.compile(model, (example,), dynamic_shapes=sizes, **more)
    fxtrt.save(fast, path, weights=True)
    return path


def change_weights(path: Path, factor: float = 1.5) -> None:
    """Let a file have other weights than those that its example was answered with."""

    def change(edited: Edited) -> None:
        weights = safetensors.torch.load(edited.members["weights.safetensors"])
        scaled = {name: tensor * factor for name, tensor in weights.items()}
        edited.members["weights.safetensors"] = safetensors.torch.save(scaled)

    rewrite(path, change)
