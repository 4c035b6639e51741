"""The converters of the package's operators; fxtrt finds them through the entry point."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import fxtrt


def _floats(x: torch.Tensor) -> str | None:
    return None if x.dtype.is_floating_point else f"the tensor is of {x.dtype}"


@fxtrt.converts(torch.ops.bump.bump.default, check=_floats)
def bump(ctx: Any, x: Any, height: float) -> Any:
    """bump(Tensor x, float height=1.0) -> Tensor"""
    negated = ctx.unary("NEG", ctx.elementwise("PROD", x, x))
    height = ctx.scalar(height, ctx.output.dtype, ctx.output.dim())
    return ctx.elementwise("PROD", ctx.unary("EXP", negated), height)


def _plugins(features: Any) -> str | None:
    if features.has("add_plugin_v3"):
        return None
    return f"{features.version} takes no plugin of version 3"


@fxtrt.converts(torch.ops.bump.sharpen.default, check=(_floats, _plugins))
def sharpen(ctx: Any, x: Any, amount: float) -> Any:
    """sharpen(Tensor x, float amount) -> Tensor"""
    trt = ctx.trt
    creator = trt.get_plugin_registry().get_creator("Sharpen", "1", "bump")
    if creator is None:
        raise RuntimeError("the plugin Sharpen is not registered: load its library first")
    value = np.array([amount], dtype=np.float32)
    field = trt.PluginField("amount", value, trt.PluginFieldType.FLOAT32)
    fields = trt.PluginFieldCollection([field])
    plugin = creator.create_plugin(ctx.node.name, fields, trt.TensorRTPhase.BUILD)
    ctx.network.kept += [value, plugin]
    return ctx.net.add_plugin_v3([x], [], plugin).get_output(0)
