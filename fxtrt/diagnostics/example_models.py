"""Turns a model's name and a photograph into a model and its inputs, offline.

Plain random weights make a poor test: activations grow or vanish from layer to layer, rounding
errors grow, and class scores lie so close together that rounding decides which detections stay.
`calibrate` scales the weights during one forward pass, so that they behave like trained ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle
from torchvision import models
from torchvision.transforms.functional import normalize, pil_to_tensor, resize

from ..errors import SettingsError
from .weight_file import load_weights

__all__ = [
    "Example",
    "calibrate",
    "load_example",
    "load_photograph",
    "photograph_for_classifier",
]

_CROP = [224, 224]
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_RESIDUAL_SCALE = 0.15
_16_BIT_FORMATS = ("PNG", "PPM")
"""The formats whose 16-bit grey values some versions of Pillow read in the 32-bit mode "I"."""
_LAST_NORMS = {
    "torchvision.models.resnet.BasicBlock": "bn2",
    "torchvision.models.resnet.Bottleneck": "bn3",
    "detectron2.modeling.backbone.resnet.BasicBlock": "conv2.norm",
    "detectron2.modeling.backbone.resnet.BottleneckBlock": "conv3.norm",
    "detectron2.modeling.backbone.resnet.DeformBottleneckBlock": "conv3.norm",
    "detectron2.modeling.backbone.regnet.ResBasicBlock": "f.b_bn",
    "detectron2.modeling.backbone.regnet.ResBottleneckBlock": "f.c_bn",
}
"""The path of the last norm of a residual branch, by the class of the block."""
_SPREADS = {
    "rpn.head.bbox_pred": (0.05, 0.0),
    "box_predictor.bbox_pred": (0.25, 0.0),
    "box_predictor.cls_score": (1.5, 0.0),
    **{f"box_predictor.{stage}.cls_score": (2.5, 0.0) for stage in range(3)},
    "classification_head.cls_logits": (1.0, -4.5),
    "head.cls_score": (1.0, -4.5),
    "head.ctrness": (1.0, 0.0),
    "conv2_offset": (1.0, 0.0),
}
"""The standard deviation and mean of a detector's predictions, and of the offsets of its deformable
convolutions, by the end of the layer's path."""


@dataclass(frozen=True, slots=True)
class Example:
    """A model in eval mode with inputs to call it with.

    photograph: the picture that the inputs show, 3xHxW, float32 in 0..1; a detector's boxes are in
                its pixels. None if the inputs show no picture.
    categories: the names of a detector's labels, as far as they are known.
    """

    model: nn.Module
    inputs: tuple[Any, ...]
    photograph: Tensor | None = None
    categories: Sequence[str] = ()

    def to(self, device: str) -> Example:
        """Return the same example on another device."""
        inputs = tree_map_only(Tensor, lambda tensor: tensor.to(device), self.inputs)
        return replace(self, model=self.model.to(device), inputs=inputs)


def load_example(
    name: str,
    image: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    weights: Path | None = None,
    **options: Any,
) -> Example:
    """Return a torchvision model and its inputs.

    A detector gets the whole photograph, as a list of one 3xHxW tensor in 0..1. Any other model
    gets a normalised tensor, by default 1x3x224x224.

    Args:
        image: a file; None takes matplotlib's photograph of Grace Hopper.
        size: the height and width of the model's input.
        weights: a file of weights; None stands for calibrated random weights, always the same.
        options: arguments of torchvision's builder, e.g. min_size=256 for a small detector.

    Raises:
        SettingsError: torchvision has no such model, or a file is not a readable image or does not
            hold weights of the model.
    """
    detectors = models.list_models(module=models.detection)
    names = [*models.list_models(module=models), *detectors]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise SettingsError(f"torchvision has no model {name!r}: did you mean {close[0]!r}?")
    if name in detectors:
        photograph = load_photograph(image)
        if size is not None:
            photograph = resize(photograph, list(size))
        inputs: tuple[Any, ...] = ([photograph],)
        options["weights_backbone"] = None
    else:
        photograph, inputs = photograph_for_classifier(image, size)
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, **options).eval()
    if weights is None:
        calibrate(model, inputs)
    else:
        load_weights(model, weights)
    categories = models.get_model_weights(name).DEFAULT.meta.get("categories", ())
    return Example(model, inputs, photograph, categories)


def photograph_for_classifier(
    image: Path | None = None, size: tuple[int, int] | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return a photograph, 3xHxW in 0..1, and the inputs of a classifier, 1x3xHxW and normalised.

    Args:
        size: the height and width of both; None stands for 224x224.
    """
    photograph = resize(load_photograph(image), list(size or _CROP))
    return photograph, (normalize(photograph, _MEAN, _STD)[None],)


def load_photograph(image: Path | None = None) -> Tensor:
    """Return an image file as a 3xHxW float32 tensor in 0..1, turned as its EXIF data says.

    Args:
        image: a file; None takes matplotlib's photograph of Grace Hopper.

    Raises:
        SettingsError: the file is not an image, is damaged, is too large for Pillow, or holds
            32-bit numbers.
    """
    file = image or matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    try:
        with Image.open(file) as opened:
            return _pixels(ImageOps.exif_transpose(opened), opened.format)
    except SettingsError as error:
        raise SettingsError(f"{file} {error}") from error
    except Exception as error:  # A damaged file may raise any exception.
        raise SettingsError(f"{file} is not an image that Pillow can read: {error}") from error


def _pixels(image: Image.Image, kind: str | None) -> Tensor:
    # Pillow's conversion to RGB clips 16-bit values at 255, so a grey of 0.5 would turn white.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in _16_BIT_FORMATS):
        grey = torch.from_numpy(np.asarray(image).astype(np.float32)) / 65535
        return grey.expand(3, -1, -1).contiguous()
    if image.mode in ("I", "F"):
        raise SettingsError(
            "holds numbers of 32 bits, and does not say which of them is white: convert it to 8 "
            "or 16 bits"
        )
    pixels: Tensor = pil_to_tensor(image.convert("RGB"))
    return pixels.float() / 255


def calibrate(model: nn.Module, inputs: Sequence[Any]) -> None:
    """Scale the weights in place so that activations on `inputs` stay moderate.

    Each batch norm gets the statistics of its input, residual branches are scaled down, and a
    detector's predictions get the mean and spread of `_SPREADS`. The model then finds many objects,
    with scores far apart, and rounding in float32 moves boxes by less than 0.001 pixels.
    """
    handles: list[RemovableHandle] = []
    for path, module in model.named_modules():
        if isinstance(getattr(module, "running_mean", None), Tensor):
            handles.append(_at_first_call(module.register_forward_pre_hook, _set_statistics))
        for end, (std, mean) in _SPREADS.items():
            if path.endswith(end):
                if not module.weight.any():  # Zero offsets have no spread to scale.
                    nn.init.normal_(module.weight)
                hook = _spread_hook(std, mean)
                handles.append(_at_first_call(module.register_forward_hook, hook))
    with torch.no_grad():
        for module in model.modules():
            cls = type(module)
            if last := _LAST_NORMS.get(f"{cls.__module__}.{cls.__qualname__}"):
                norm: Any = module.get_submodule(last)
                norm.weight.fill_(_RESIDUAL_SCALE)
        model(*inputs)
    for handle in handles:
        handle.remove()


def _at_first_call(
    register: Callable[[Callable[..., Any]], RemovableHandle], hook: Callable[..., Any]
) -> RemovableHandle:
    def first(*args: Any) -> Any:
        handle.remove()
        return hook(*args)

    handle = register(first)
    return handle


def _set_statistics(module: Any, args: tuple[Tensor]) -> None:
    values = args[0].transpose(0, 1).flatten(1)
    if values.shape[1] > 1:
        module.running_mean.copy_(values.mean(1))
        # Without a floor, rounding errors of nearly constant channels would be amplified.
        module.running_var.copy_(values.var(1).clamp(min=1e-3))


def _spread_hook(std: float, mean: float) -> Callable[..., Tensor]:
    def hook(module: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
        scale = std / output.std()
        module.weight.mul_(scale)
        module.bias.mul_(scale).add_(mean - output.mean() * scale)
        return (output - output.mean()) * scale + mean

    return hook
