"""Quantizes a normalized graph as its settings say, with scales from a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch.fx import GraphModule, Node

from ..engines.target import Target
from ..errors import SettingsError
from ..graph.patterns import Patterns
from ..partition.components import Components
from ..partition.support import support
from ..settings import Settings
from .calibration import stored_table
from .insert import insert_quantizers
from .plan import QuantizationPlan, plan_of
from .scale_table import ScaleTable
from .value_keys import scale_keys

__all__ = ["Quantized", "quantize", "wants_int8"]

_HOW_TO = (
    "precision='int8' needs examples of what the model will see: "
    "fxtrt.compile(model, inputs, precision='int8', calibration=[...]), each example written like "
    "inputs. torch.compile takes the scales of such a call from cache_dir, if Dynamo's graph is "
    "the same, or from a file: options={'precision': 'int8', 'calibration_table': path}"
)


@dataclass(frozen=True, slots=True)
class Quantized:
    """The part of a graph that computes in int8.

    products: the calls.
    kept:     the names of the products that stay float16, and why.
    """

    products: tuple[Node, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)


def wants_int8(settings: Settings) -> bool:
    """Return whether the model or one of its components is to compute in int8."""
    return any(of.precision == "int8" for of in _all_settings(settings))


def quantize(gm: GraphModule, target: Target, table: ScaleTable | None) -> Quantized:
    """Insert quantizers where the settings ask for int8; return what they make of the graph.

    Args:
        gm: a graph that was normalized.
        table: the scales; None looks for those of an earlier calibration.

    Raises:
        SettingsError: there are no scales for the graph; says how to get them.
    """
    settings = target.settings
    if not wants_int8(settings):
        return Quantized()
    plan = _plan(gm, target)
    kept = {node.name: reason for node, reason in plan.kept.items()}
    if plan.products:
        keys = scale_keys(gm)
        table = table or stored_table(settings, keys)
        if table is None:
            raise SettingsError(_HOW_TO)
        if table.lacks(keys[value] for value in plan.groups):
            raise SettingsError(
                f"the table of scales is of another graph than this one, or of the model with "
                f"other weights. {_HOW_TO}"
            )
        scales = {value: table.scales[keys[value]] for value in plan.groups}
        insert_quantizers(gm, plan, scales, Components(settings).number)
    return Quantized(plan.products, kept)


def preview_quantized(gm: GraphModule, target: Target) -> Quantized:
    """Insert the quantizers that `quantize` would, with scales that stand for any."""
    if not wants_int8(target.settings):
        return Quantized()
    plan = _plan(gm, target)
    kept = {node.name: reason for node, reason in plan.kept.items()}
    scales = dict.fromkeys(plan.groups, 1.0)
    insert_quantizers(gm, plan, scales, Components(target.settings).number)
    return Quantized(plan.products, kept)


def _plan(gm: GraphModule, target: Target) -> QuantizationPlan:
    """Plan what the settings ask for, of what an engine can run."""
    settings, components = target.settings, Components(target.settings)
    keep_fp32, keep_fp16 = Patterns(settings.keep_fp32), Patterns(settings.keep_fp16)
    blacklist, whitelist = Patterns(settings.blacklist), Patterns(settings.whitelist)
    forced = Patterns(settings.quantize)

    def wanted(node: Node) -> bool | str:
        if components.settings(components.number(node)).precision != "int8":
            return False
        if blacklist.match(node):
            return False
        for name, patterns in (("keep_fp32", keep_fp32), ("keep_fp16", keep_fp16)):
            if entry := patterns.match(node):
                return f"{entry!r} is in {name}"
        whitelisted = whitelist.match(node) is not None
        return support(node, target.backend, whitelisted=whitelisted) is None

    return plan_of(gm, wanted, lambda node: forced.match(node) is not None)


def _all_settings(settings: Settings) -> list[Settings]:
    return [settings, *map(settings.of_component, settings.components)]
