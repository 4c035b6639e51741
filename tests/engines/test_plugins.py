"""What TensorRT's plugin API is called with; a stand-in, since no TensorRT here takes plugins."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from fxtrt.engines.features import Features
from fxtrt.engines.network import Network
from fxtrt.engines.plugins import (
    add_roi_align,
    load_plugins,
    without_plugin,
)

FIELDS = {
    "coordinate_transformation_mode": 1,
    "mode": 1,
    "output_height": 7,
    "output_width": 5,
    "sampling_ratio": 0,
    "spatial_scale": 0.25,
}


def stand_in(version: int, *, loads: bool = True, known: bool = True) -> Any:
    """A TensorRT whose networks take plugins of `version`."""
    trt = MagicMock()
    trt.INetworkDefinition = type("Net", (), {f"add_plugin_v{version}": None})
    trt.ILogger = type("ILogger", (), {"Severity": MagicMock(), "__init__": lambda self: None})
    trt.init_libnvinfer_plugins.return_value = loads
    registry = trt.get_plugin_registry.return_value
    if not known:
        registry.get_plugin_creator.return_value = registry.get_creator.return_value = None
    return trt


@pytest.mark.parametrize("version", [2, 3])
def test_the_plugin_is_made_of_its_fields(version: int) -> None:
    trt = stand_in(version)
    network = Network(Features(trt), None, MagicMock())
    assert without_plugin(network.features) is None
    add_roi_align(network, ["x", "rois", "images"], FIELDS)
    fields = {call.args[0]: call.args[1:] for call in trt.PluginField.call_args_list}
    assert {name: value.tolist() for name, (value, _) in fields.items()} == {
        name: [value] for name, value in FIELDS.items()
    }
    kinds = trt.PluginFieldType
    assert {name for name, (_, kind) in fields.items() if kind is kinds.FLOAT32} == {
        "spatial_scale"
    }
    # The layer points into them.
    assert all(any(kept is value for kept in network.kept) for value, _ in fields.values())
    registry, net = trt.get_plugin_registry.return_value, network.definition
    if version == 2:
        registry.get_plugin_creator.assert_called_with("ROIAlign_TRT", "1", "")
        plugin = registry.get_plugin_creator.return_value.create_plugin.return_value
        net.add_plugin_v2.assert_called_once_with(["x", "rois", "images"], plugin)
    else:
        registry.get_creator.assert_called_with("ROIAlign_TRT", "2", "")
        plugin = registry.get_creator.return_value.create_plugin.return_value
        net.add_plugin_v3.assert_called_once_with(["x", "rois", "images"], [], plugin)


def test_the_library_is_loaded_once() -> None:
    trt = stand_in(2)
    assert load_plugins(trt) is None
    assert load_plugins(trt) is None
    trt.init_libnvinfer_plugins.assert_called_once()


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"loads": False}, "did not load"), ({"known": False}, "has no plugin ROIAlign_TRT")],
)
def test_a_plugin_that_is_not_there_is_a_reason(options: dict[str, bool], reason: str) -> None:
    trt = stand_in(2, **options)
    trt.__name__, trt.__version__ = "tensorrt", "8.6.0"
    assert reason in str(without_plugin(Features(trt)))
