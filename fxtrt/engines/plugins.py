"""Add plugin layers of TensorRT's own plugin library to networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from .features import Features
from .network import Network, logger_for

__all__ = ["STAND_IN", "add_roi_align", "load_plugins", "without_plugin"]

ROI_ALIGN = "ROIAlign_TRT"
STAND_IN = f"plugin {ROI_ALIGN}"
"""The `metadata` of the layer that replaces the plugin on the `reference` engine."""
NUMBERS = ("coordinate_transformation_mode", "mode", "sampling_ratio", "spatial_scale")
"""The attributes in the last operand of that layer, [numbers, rows, columns]."""


@cache
def load_plugins(trt: ModuleType) -> str | None:
    """Register the creators of TensorRT's plugin library, once.

    A plan with plugins can be loaded only after this.

    Returns:
        Why it failed, or None.
    """
    networks = getattr(trt, "INetworkDefinition", None)
    if not any(hasattr(networks, f"add_plugin_v{version}") for version in (2, 3)):
        return f"{trt.__name__} takes no plugins"
    if not trt.init_libnvinfer_plugins(logger_for(trt), ""):
        return "TensorRT's plugin library (libnvinfer_plugin) did not load"
    return None


def without_plugin(features: Features) -> str | None:
    """Return why this TensorRT has no ROIAlign plugin, or None."""
    if features.stand_ins:
        return None
    if reason := load_plugins(features.trt):
        return reason
    if _creator(features) is None:
        return f"{features.version} has no plugin {ROI_ALIGN}: install libnvinfer_plugin"
    return None


def add_roi_align(network: Network, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """Add the ROIAlign plugin.

    Args:
        inputs: X [images, channels, height, width] and rois [regions, 4] of one floating dtype,
            batch_indices [regions] of int32.
        attributes: the plugin's fields by name: `spatial_scale` is a float, the others are ints.

    Returns:
        Its output [regions, channels, output_height, output_width].
    """
    if network.features.stand_ins:
        return _add_stand_in(network, inputs, attributes)
    found = _creator(network.features)
    assert found is not None
    creator, is_v3 = found
    trt, kind = network.trt, network.trt.PluginFieldType
    values = {
        name: np.array([value], np.float32 if isinstance(value, float) else np.int32)
        for name, value in attributes.items()
    }
    fields = trt.PluginFieldCollection(
        [
            trt.PluginField(name, value, kind.FLOAT32 if value.dtype == np.float32 else kind.INT32)
            for name, value in values.items()
        ]
    )
    if is_v3:
        plugin = creator.create_plugin(ROI_ALIGN, fields, trt.TensorRTPhase.BUILD)
    else:
        plugin = creator.create_plugin(ROI_ALIGN, fields)
    # The layer points into the plugin, and the plugin's fields into the arrays.
    network.kept += [*values.values(), plugin]
    net = network.definition
    if is_v3:
        added = net.add_plugin_v3(list(inputs), [], plugin)
    else:
        added = net.add_plugin_v2(list(inputs), plugin)
    return added.get_output(0)


def _creator(features: Features) -> tuple[Any, bool] | None:
    """Return the plugin's creator, and whether it makes plugins of version 3."""
    registry = features.trt.get_plugin_registry()
    if features.has("add_plugin_v2") and hasattr(registry, "get_plugin_creator"):
        creator = registry.get_plugin_creator(ROI_ALIGN, "1", "")
        if creator is not None:
            return creator, False
    if features.has("add_plugin_v3"):
        creator = registry.get_creator(ROI_ALIGN, "2", "")
        if creator is not None:
            return creator, True
    return None


def _add_stand_in(network: Network, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
    """Add an einsum with the plugin's operands and output shape, in place of the plugin.

    The attributes are its last operand, so that the interpreter reads them from the network as it
    reads those of other layers.
    """
    net, (x, rois, images) = network.definition, inputs
    numbers = np.array([attributes[name] for name in NUMBERS], np.float32)
    sizes = (len(NUMBERS), attributes["output_height"], attributes["output_width"])
    held = np.ascontiguousarray(np.broadcast_to(numbers[:, None, None], sizes))
    network.kept.append(held)
    constant = net.add_constant(sizes, held).get_output(0)
    images = net.add_cast(images, x.dtype).get_output(0)
    layer = net.add_einsum([x, rois, images, constant], "nchw,rk,r,apq->rcpq")
    layer.metadata = STAND_IN
    return layer.get_output(0)
