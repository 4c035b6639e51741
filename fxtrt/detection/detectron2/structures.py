"""Replace methods of Detectron2's structures by equivalents, and register these as pytrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from torch import Tensor
from torch.utils import _pytree as pytree

from ...graph.sizes import is_static
from ..ops.corner import corner
from ..ops.detectron2_paste_masks import paste_masks
from .input_dicts import padded_sides

__all__ = [
    "clip",
    "clipped",
    "conv2d",
    "from_tensors",
    "new_boxes",
    "pooler_format",
    "register_boxes",
    "rows_where",
    "select",
    "sem_seg_postprocess",
    "set_field",
    "to_bitmasks",
]


def rows_where(mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Return the rows of each tensor where `mask` is true."""
    index = mask.nonzero()[:, 0]
    return [tensor[index] for tensor in tensors]


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip (N, 4) boxes to an image of that height and width."""
    height, width = size
    limits = (width, height, width, height)
    return torch.stack([boxes[:, i].clamp(min=0, max=limits[i]) for i in range(4)], dim=-1)


def new_boxes(self: Any, tensor: Any) -> None:
    """Replace `Boxes.__init__`, whose `numel() == 0` test is a data-dependent branch.

    Only a statically empty tensor is reshaped to (0, 4).
    """
    tensor = torch.as_tensor(tensor, dtype=torch.float32)
    is_empty = is_static(tensor.numel()) and tensor.numel() == 0
    self.tensor = tensor.reshape(-1, 4) if is_empty else tensor


def clip(self: Any, box_size: tuple[int, int]) -> None:
    """Replace `Boxes.clip`, which asserts first that the coordinates are finite."""
    self.tensor = clipped(self.tensor, box_size)


def set_field(self: Any, name: str, value: Any) -> None:
    """Replace `Instances.set`, which asserts that all fields have one length."""
    self._fields[name] = value


def select(self: Any, item: Any) -> Any:
    """Replace `Instances.__getitem__`, which makes a new symbolic size for each field."""
    if isinstance(item, int):
        item = slice(item, item + 1 or None)
    if isinstance(item, Tensor) and item.dtype == torch.bool:
        item = item.nonzero()[:, 0]
    result = Instances(self.image_size)
    for name, value in self.get_fields().items():
        result.set(name, value[item])
    return result


def conv2d(self: Any, x: Tensor) -> Tensor:
    """Replace `Conv2d.forward` of Detectron2, which branches on whether the input is empty."""
    x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
    if self.norm is not None:
        x = self.norm(x)
    return x if self.activation is None else self.activation(x)


def pooler_format(box_lists: Sequence[Any]) -> Tensor:
    """Replace `convert_boxes_to_pooler_format`, which makes a tensor of the numbers of boxes.

    Args:
        box_lists: the `Boxes` of each image.

    Returns:
        (N, 5): the number of the image, then the box.
    """
    tensors = [boxes.tensor for boxes in box_lists]
    numbered = [
        torch.cat([torch.full_like(tensor[:, :1], image), tensor], 1)
        for image, tensor in enumerate(tensors)
    ]
    return torch.cat(numbered)


def to_bitmasks(self: Any, boxes: Any, height: int, width: int, threshold: float = 0.5) -> Any:
    """Replace `ROIMasks.to_bitmasks`, which pastes mask after mask into the image."""
    tensor = getattr(boxes, "tensor", boxes)
    return BitMasks(paste_masks(self.tensor, tensor, (height, width), threshold))


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Replace Detectron2's function of this name: cut off the padding, and scale to the picture.

    Args:
        result: (classes, H, W).
    """
    kept = corner(result, *img_size)[None]
    size = (output_height, output_width)
    return F.interpolate(kept, size=size, mode="bilinear", align_corners=False)[0]


def from_tensors(
    tensors: Sequence[Tensor],
    size_divisibility: int = 0,
    pad_value: float = 0.0,
    padding_constraints: Mapping[str, int] | None = None,
) -> Any:
    """Replace `ImageList.from_tensors`, which computes the padding with tensors.

    Args:
        tensors: images, each (C, H, W).
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
    height, width = padded_sides(sizes, size_divisibility, padding_constraints)
    padded = [
        F.pad(image, (0, width - w, 0, height - h), value=pad_value)
        for image, (h, w) in zip(tensors, sizes, strict=True)
    ]
    return ImageList(torch.stack(padded), sizes)


def _flatten_instances(instances: Any) -> tuple[list[Any], Any]:
    """Take an `Instances` apart; the image's size is a leaf too, as it may vary in a graph.

    The names of its fields are a list, since a saved graph has no tuples.
    """
    fields = instances.get_fields()
    return [*instances.image_size, *fields.values()], list(fields)


def _unflatten_instances(values: Any, names: Any) -> Any:
    height, width, *fields = values
    instances = Instances((height, width))
    instances._fields.update(zip(names, fields, strict=True))
    return instances


def register_boxes(cls: type[Any]) -> None:
    """Register `cls`, a class that holds one tensor, as a pytree."""

    def unflatten(values: Any, context: None) -> Any:
        boxes = object.__new__(cls)
        (boxes.tensor,) = values
        return boxes

    name = f"detectron2.structures.{cls.__name__}"
    pytree.register_pytree_node(
        cls, lambda boxes: ([boxes.tensor], None), unflatten, serialized_type_name=name
    )


pytree.register_pytree_node(
    Instances,
    _flatten_instances,
    _unflatten_instances,
    serialized_type_name="detectron2.structures.Instances",
)
register_boxes(Boxes)
