"""Turns examples of a model's inputs into the table of scales that int8 computes with."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..cache.engine_key import EngineKey
from ..capture.model_parts import Captured
from ..capture.untouched import untouched
from ..errors import SettingsError
from ..serialization.digests import sha256, weight_digest
from ..settings import Settings
from .examples import Examples, Fed
from .progress import shown
from .scale_table import ScaleTable
from .stored_tables import find_table, keep_table
from .value_keys import graph_digest, scale_keys

if TYPE_CHECKING:
    from .observer import MagnitudeObserver

__all__ = ["calibrate", "known_scales", "stored_table"]

log = logging.getLogger(__name__)

_HOW_TO = (
    "give some 100 examples of what the model will see, each written like inputs: "
    "calibration=[(images,), ...]"
)


def calibrate(captured: Captured, data: Iterable[Any], settings: Settings) -> ScaleTable:
    """Run a model's graphs on examples, and return the scale of each value that int8 may read.

    Data that can be read again, as from a list or a DataLoader, is read first for its digest: with
    the table of an earlier calibration of the same graphs with the same data, in any order, nothing
    is run. An iterator is read once, so it is always run.

    Args:
        captured: a model whose graphs were normalized.
        data: examples, each written like the `inputs` of `fxtrt.compile`.

    Raises:
        SettingsError: torchao is missing, there are no examples, or one does not fit the model.
    """
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise SettingsError(f"calibration must be an iterable of examples, not {data!r}: {_HOW_TO}")
    graphs = [part.graph for part in (*captured.parts, *captured.others)]
    keys = [scale_keys(graph) for graph in graphs]
    whole = graph_digest(key for one in keys for key in one.values())
    examples = Examples(captured)
    if iter(data) is not data:
        digest = _digest(_fed(examples, data, "reading the calibration data"))
        if (table := find_table(settings, _key(whole, digest))) is not None:
            _keep(table, keys, settings)
            return table
    observers = [_observers(graph, list(of)) for graph, of in zip(graphs, keys, strict=True)]
    digests: list[str] = []
    ran: set[int] = set()
    with torch.no_grad(), untouched(*graphs):
        for fed in _fed(examples, data, "calibrating"):
            for one in fed:
                digests.append(_digest_of(one))
                ran.add(one.graph)
                _Run(observers[one.graph][0]).run(*one.values, enable_io_processing=False)
    for i, of in enumerate(keys):
        if of and i not in ran:
            raise SettingsError(f"no example of calibration reaches graph {i} of the model")
    tables = [_table(of, seen[1]) for of, seen in zip(keys, observers, strict=True)]
    merged = ScaleTable.merged(tables)
    table = ScaleTable(merged.scales, merged.names, sha256(*sorted(digests)))
    keep_table(settings, _key(whole, table.data), table)
    _keep(table, keys, settings)
    return table


def _keep(table: ScaleTable, keys: Sequence[Mapping[Node, str]], settings: Settings) -> None:
    """Let torch.compile, which sees no data, find the latest table of each of its graphs."""
    if settings.calibration_table is not None:
        table.write(settings.calibration_table)
    for of in keys:
        keep_table(settings, _key(graph_digest(of.values())), table)


def known_scales(captured: Captured, settings: Settings) -> ScaleTable | None:
    """Return what earlier calibrations of a model's graphs found, or None if there were none.

    Args:
        captured: a model whose graphs were normalized.
    """
    graphs = [part.graph for part in (*captured.parts, *captured.others)]
    found = [stored_table(settings, scale_keys(graph)) for graph in graphs]
    tables = [table for table in found if table is not None]
    return ScaleTable.merged(tables) if tables else None


def stored_table(settings: Settings, keys: Mapping[Node, str]) -> ScaleTable | None:
    """Return the table that the settings name, or that of the graph's latest calibration.

    Args:
        keys: the `scale_keys` of the graph.

    Raises:
        SettingsError: the file of `calibration_table` cannot be read.
    """
    if settings.calibration_table is not None:
        return ScaleTable.read(settings.calibration_table)
    return find_table(settings, _key(graph_digest(keys.values())))


def _key(*digests: str) -> EngineKey:
    return EngineKey(sha256("scales", *digests))


def _fed(examples: Examples, data: Iterable[Any], doing: str) -> Iterator[list[Fed]]:
    number = -1
    for number, item in enumerate(shown(data, doing)):
        yield examples.feed(number, item)
    if number < 0:
        raise SettingsError(f"calibration has no examples: {_HOW_TO}")


def _digest(fed: Iterable[list[Fed]]) -> str:
    return sha256(*sorted(_digest_of(one) for each in fed for one in each))


def _digest_of(fed: Fed) -> str:
    parts = [
        weight_digest(value) if isinstance(value, torch.Tensor) else repr(value)
        for value in fed.values
    ]
    return sha256(str(fed.graph), *parts)


def _observers(
    gm: GraphModule, values: Sequence[Node]
) -> tuple[GraphModule, dict[str, MagnitudeObserver]]:
    """Return a copy of the graph that observes `values`, and their observers by name."""
    try:
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        from .observer import MagnitudeObserver
        from .quantizer import TensorRTQuantizer
    except ImportError as error:
        raise SettingsError(
            f"to calibrate needs torchao (pip install fxtrt[quantize]): {error}"
        ) from error
    copied = GraphModule(gm, copy.deepcopy(gm.graph), class_name=type(gm).__name__)
    quantizer = TensorRTQuantizer([node.name for node in values])
    prepared = prepare_pt2e(copied, quantizer)
    found: dict[str, MagnitudeObserver] = {}
    for node in prepared.graph.find_nodes(op="call_module"):
        observer = prepared.get_submodule(node.target)
        if isinstance(observer, MagnitudeObserver):
            found[node.args[0].name] = observer
    return prepared, found


class _Run(Interpreter):
    """Runs a prepared graph; what writes to buffers and inputs writes to copies."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, OpOverload) and target._schema.is_mutable:
            args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        return super().call_function(target, args, kwargs)


def _table(keys: dict[Node, str], observers: dict[str, MagnitudeObserver]) -> ScaleTable:
    scales: dict[str, float] = {}
    names: dict[str, str] = {}
    for node, key in keys.items():
        observer = observers[node.name]
        if not observer.finite:
            raise SettingsError(
                f"calibration: {node.name} has a NaN or an infinity, as the model computes it"
            )
        scales[key] = max(scales.get(key, 0.0), observer.scale())
        names[key] = node.name
    return ScaleTable(scales, names)
