"""Equivalents of methods of Detectron2's structures, which pytrees open from here on."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from torch import Tensor
from torch.utils import _pytree as pytree

from ...graph.sizes import is_static
from .operators import corner, paste_masks

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
    """The rows of each tensor where `mask` is true."""
    index = mask.nonzero()[:, 0]
    return [tensor[index] for tensor in tensors]


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 4) boxes, within an image of that height and width."""
    height, width = size
    limits = (width, height, width, height)
    return torch.stack([boxes[:, i].clamp(min=0, max=limits[i]) for i in range(4)], dim=-1)


def new_boxes(self: Any, tensor: Any) -> None:
    """`Boxes.__init__`, which asks whether there is any box, since none may have any shape."""
    tensor = torch.as_tensor(tensor, dtype=torch.float32)
    none = is_static(tensor.numel()) and tensor.numel() == 0
    self.tensor = tensor.reshape(-1, 4) if none else tensor


def clip(self: Any, box_size: tuple[int, int]) -> None:
    """`Boxes.clip`, which first insists on finite coordinates."""
    self.tensor = clipped(self.tensor, box_size)


def set_field(self: Any, name: str, value: Any) -> None:
    """`Instances.set`, which insists on fields of one length."""
    self._fields[name] = value


def select(self: Any, item: Any) -> Any:
    """`Instances.__getitem__`, which counts what a mask leaves anew for each field."""
    if isinstance(item, int):
        item = slice(item, item + 1 or None)
    if isinstance(item, Tensor) and item.dtype == torch.bool:
        item = item.nonzero()[:, 0]
    result = Instances(self.image_size)
    for name, value in self.get_fields().items():
        result.set(name, value[item])
    return result


def conv2d(self: Any, x: Tensor) -> Tensor:
    """`Conv2d.forward` of Detectron2, which asks whether there is any input."""
    x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
    if self.norm is not None:
        x = self.norm(x)
    return x if self.activation is None else self.activation(x)


def pooler_format(box_lists: Sequence[Any]) -> Tensor:
    """`convert_boxes_to_pooler_format`, which makes a tensor of the counts.

    Args:
        box_lists: `Boxes` of each image.

    Returns:
        (N, 5), the number of its image before each box.
    """
    tensors = [boxes.tensor for boxes in box_lists]
    numbered = [
        torch.cat([torch.full_like(tensor[:, :1], image), tensor], 1)
        for image, tensor in enumerate(tensors)
    ]
    return torch.cat(numbered)


def to_bitmasks(self: Any, boxes: Any, height: int, width: int, threshold: float = 0.5) -> Any:
    """`ROIMasks.to_bitmasks`, which pastes mask after mask into the image."""
    tensor = getattr(boxes, "tensor", boxes)
    return BitMasks(paste_masks(self.tensor, tensor, (height, width), threshold))


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Detectron2's function of this name: what an image's padding got is cut off, and the rest
    scaled to the picture.

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
    """`ImageList.from_tensors`, which computes the padding with tensors.

    Args:
        tensors: images, each (C, H, W).
    """
    constraints = padding_constraints or {}
    sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
    stride = max(constraints.get("size_divisibility", size_divisibility), 1)
    square = constraints.get("square_size", 0)
    columns = zip(*sizes, strict=True)
    most = (square or functools.reduce(torch.sym_max, column) for column in columns)
    height, width = ((size + stride - 1) // stride * stride for size in most)
    padded = [
        F.pad(image, (0, width - w, 0, height - h), value=pad_value)
        for image, (h, w) in zip(tensors, sizes, strict=True)
    ]
    return ImageList(torch.stack(padded), sizes)


def _flatten_instances(instances: Any) -> tuple[list[Any], Any]:
    """The image's size is among the leaves: in a graph it may vary."""
    fields = instances.get_fields()
    return [*instances.image_size, *fields.values()], tuple(fields)


def _unflatten_instances(values: Any, names: Any) -> Any:
    height, width, *fields = values
    instances = Instances((height, width))
    instances._fields.update(zip(names, fields, strict=True))
    return instances


def register_boxes(cls: type[Any]) -> None:
    """Let pytrees open `cls`, which holds one tensor."""

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
