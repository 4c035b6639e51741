"""Load torchvision's compiled operators without torchvision's Python code, models among it."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys

import torch
from torch import Tensor

__all__ = ["load", "nms", "roi_align"]

_LIBRARIES = ("_C_stable", "_C")
"""The names of the library in newer and older versions."""


@functools.cache
def load() -> None:
    """Make `torch.ops.torchvision` whole; `import torchvision` would take a second for that.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    if "torchvision" in sys.modules:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("on the CPU, detectors need torchvision", name="torchvision")
    loaders = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    finder = importlib.machinery.FileFinder(spec.submodule_search_locations[0], loaders)
    for name in _LIBRARIES:
        found = finder.find_spec(name)
        if found is not None and found.origin is not None and sys.platform != "win32":
            torch.ops.load_library(found.origin)  # type: ignore[no-untyped-call]  # torch's
            return
    import torchvision  # noqa: F401  # It knows where its library is on other platforms.


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Call `torchvision::nms`, as `torchvision.ops.nms` does."""
    load()
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)  # type: ignore[no-any-return]  # untyped


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Do what `torchvision.ops.roi_align` does.

    Args:
        features: (B, C, H, W).
        rois: (K, 5), the number of the image and the box.

    Returns:
        (K, C, *output_size).
    """
    if torch.are_deterministic_algorithms_enabled() and not features.is_cpu:
        from torchvision.ops import roi_align as deterministic

        args = (features, rois, output_size, spatial_scale, sampling_ratio, aligned)
        return deterministic(*args)  # type: ignore[no-any-return]  # untyped
    load()
    return torch.ops.torchvision.roi_align(  # type: ignore[no-any-return]  # untyped
        features, rois, spatial_scale, *output_size, sampling_ratio, aligned
    )
