"""Writes a report as versioned JSON, and reads it back."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from ..builder.build import BuildInfo
from ..errors import ReportError
from ..runtime.engine_check import EngineCheck
from .picture import Picture, PictureNode
from .values import (
    ClusterRow,
    CoverageValues,
    DemotionRow,
    Fallback,
    GateRow,
    GraphBreak,
    GuardRow,
    RejectionRow,
    RuntimeRow,
)

__all__ = ["VERSION", "from_json", "to_json"]

VERSION = 1
"""Rises when a field changes its meaning or is removed, but not when one is added."""


def to_json(coverage: CoverageValues) -> str:
    """Return JSON that fits `coverage.schema.json`; its summary has the sums of the rows."""
    value: dict[str, Any] = {
        "version": VERSION,
        "summary": {
            "nodes": coverage.nodes,
            "converted": coverage.converted,
            "flops": coverage.flops,
            "flops_share": coverage.flops_share,
        },
        **asdict(coverage),
    }
    return json.dumps(value, ensure_ascii=False, indent=1)


def from_json(text: str) -> CoverageValues:
    """Read what `to_json` wrote.

    Raises:
        ReportError: `text` is something else, or of a version that this fxtrt does not read.
    """
    try:
        value = json.loads(text)
        version = value["version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ReportError(f"not a report that fxtrt wrote as JSON: {error!r}") from error
    if version != VERSION:
        raise ReportError(f"the report has version {version!r}, this fxtrt reads {VERSION}")
    try:
        coverage = _coverage(value)
        _require_types(coverage, "the report")
        _require_indices(coverage)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ReportError(f"the report does not fit its schema: {error}") from error
    return coverage


def _coverage(value: dict[str, Any]) -> CoverageValues:
    return CoverageValues(
        clusters=tuple(_cluster(row) for row in value["clusters"]),
        rejections=tuple(RejectionRow(**row) for row in value["rejections"]),
        graph_breaks=tuple(GraphBreak(**found) for found in value["graph_breaks"]),
        cuts=value["cuts"],
        cuts_before_repair=value["cuts_before_repair"],
        pictures=tuple(_picture(picture) for picture in value["pictures"]),
        runtime=tuple(_runtime(row) for row in value.get("runtime", ())),
        capture=tuple(value.get("capture", ())),
        guards=tuple(_guard(row) for row in value.get("guards", ())),
        int8=value.get("int8", 0),
        kept_fp16=tuple(value.get("kept_fp16", ())),
        gate=tuple(_gate(row) for row in value.get("gate", ())),
    )


def _runtime(row: dict[str, Any]) -> RuntimeRow:
    changed = {
        "unrecorded": tuple(row["unrecorded"]),
        "fallbacks": tuple(Fallback(**fallback) for fallback in row["fallbacks"]),
    }
    return RuntimeRow(**(row | changed))


def _guard(row: dict[str, Any]) -> GuardRow:
    reasons = tuple((reason, calls) for reason, calls in row["reasons"])
    return GuardRow(**(row | {"reasons": reasons}))


def _gate(row: dict[str, Any]) -> GateRow:
    demotions = tuple(DemotionRow(**one) for one in row["demotions"])
    return GateRow(**(row | {"demotions": demotions}))


def _cluster(row: dict[str, Any]) -> ClusterRow:
    build = row["build"]
    changed = {
        "module_paths": tuple(row["module_paths"]),
        "ops": tuple((target, count) for target, count in row["ops"]),
        "dtypes": tuple(row["dtypes"]),
        "inputs": tuple(row.get("inputs", ())),
        "outputs": tuple(row.get("outputs", ())),
        "build": None if build is None else _build(build),
        "check": None if row.get("check") is None else EngineCheck(**row["check"]),
    }
    return ClusterRow(**(row | changed))


def _build(value: dict[str, Any]) -> BuildInfo:
    return BuildInfo(**(value | {"kept_fp32": tuple(value.get("kept_fp32", ()))}))


def _picture(value: dict[str, Any]) -> Picture:
    nodes = tuple(PictureNode(**node) for node in value["nodes"])
    edges = tuple((source, user) for source, user in value["edges"])
    return Picture(nodes, edges, value["dropped"])


@cache
def _declared(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _require_types(value: Any, where: str) -> None:
    """Refuse a value with a field, at any depth, of another type than declared."""
    declared = _declared(value.__class__)
    for field in fields(value):
        found, name = getattr(value, field.name), f"{field.name} of {where}"
        if not _is_a(found, declared[field.name], name):
            raise TypeError(f"{name} is {found!r:.60}")


def _is_a(value: Any, declared: Any, name: str) -> bool:
    kinds = get_args(declared)
    if get_origin(declared) is tuple:
        if kinds[1:] == (...,):
            return isinstance(value, tuple) and all(_is_a(v, kinds[0], name) for v in value)
        pairs = zip(value, kinds, strict=True)
        return isinstance(value, tuple) and all(_is_a(v, kind, name) for v, kind in pairs)
    if kinds:
        return any(_is_a(value, kind, name) for kind in kinds)
    if is_dataclass(declared) and type(value) is declared:
        _require_types(value, name)
        return True
    return type(value) is declared or (declared is float and type(value) is int)


def _require_indices(coverage: CoverageValues) -> None:
    """Refuse a picture with the number of a node, cluster or rejection that does not exist."""
    clusters, rejections = len(coverage.clusters), len(coverage.rejections)
    for picture in coverage.pictures:
        count = len(picture.nodes)
        ends = [(end, count) for edge in picture.edges for end in edge]
        ends += [(n.cluster, clusters) for n in picture.nodes if n.cluster is not None]
        ends += [(n.rejection, rejections) for n in picture.nodes if n.rejection is not None]
        if outside := [index for index, most in ends if not 0 <= index < most]:
            raise ValueError(f"a picture shows number {outside[0]}, which is not there")
