"""A wrong layer of every type is found, and right engines of operators raise no alarm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layer_mutants import LAYER_MUTANTS
from lying_engine import LyingPlanner, rounded_once
from oprow import OpRow, layer_kinds, rejection_of, traced_row
from torch.fx import GraphModule

from fxtrt.conversion.convert import convert
from fxtrt.diagnostics.operator_rows import ROWS, ROWS_OF
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.interpreter.layers import HANDLERS
from fxtrt.engines.reference import ReferenceEngine
from fxtrt.engines.target import Target
from fxtrt.lowering.settle import settle
from fxtrt.runtime.engine_check import check_engine
from fxtrt.runtime.engine_module import EngineModule
from fxtrt.settings import Settings

aten = torch.ops.aten

NEVER_BUILT = {
    *("ASSERTION", "ATTENTION_INPUT", "ATTENTION_OUTPUT", "FILL", "LRN", "NON_ZERO", "ONE_HOT"),
    *("PADDING", "REVERSE_SEQUENCE", "SHAPE", "SQUEEZE", "UNSQUEEZE"),
}
"""Layers that the interpreter knows and no row of static sizes has."""
RICH = (
    *(
        "aten.scatter.src",
        "aten.cumsum.default",
        "aten.upsample_bilinear2d.vec",
        "aten.cat.default",
    ),
    *("aten.topk.default", "aten.convolution.default", "aten.index.Tensor", "aten.prelu.default"),
    *("aten._native_batch_norm_legit_no_training.default", "aten.group_norm.default"),
    *("aten.max_pool2d.default", "aten.mm.default", "aten.where.self", "aten.einsum.default"),
    *("aten.softmax.int", "torchvision.nms.default", "aten.grid_sampler_2d.default"),
    *("aten._to_copy.default", "aten.sum.dim_IntList", "aten.slice.Tensor", "aten.exp.default"),
)
"""Operators whose rows have all types of layers together, so that the search for one is short."""
KINDS = {mutant.kind for mutant in LAYER_MUTANTS} | {
    *("IDENTITY", "NMS", "QUANTIZE", "DEQUANTIZE"),
}

FEW = {
    *(
        aten.relu.default,
        aten.add.Tensor,
        aten.convolution.default,
        aten.cat.default,
        aten.sort.default,
    ),
    *(aten.softmax.int, aten.topk.default, aten.upsample_bilinear2d.vec, aten.group_norm.default),
    *(aten.grid_sampler_2d.default, aten.cumsum.default, aten.prod.default),
}
"""Operators whose rows stand for the others where all would take too long."""


def test_every_type_of_layer_is_among_them(reference: EngineBackend) -> None:
    problem_of(ROWS_OF[aten.relu.default][0], reference, exact=False)  # registers the handlers
    assert HANDLERS.keys() - NEVER_BUILT == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_wrong_layer_of_every_type_is_found(kind: str) -> None:
    """The call whose network has the layer is named, by the settlement of a row of the table."""
    backend = LyingPlanner(lambda layer, of: of == kind)
    for row in sorted(ROWS, key=lambda row: str(row.target) not in RICH):
        if row.rejected is None and has_layer(row, kind, backend):
            traced = traced_row(row)
            gm = GraphModule(traced.gm, traced.gm.graph.__deepcopy__({}))
            names = [str(row.target), str(row.target).rpartition(".")[0]]
            settings = Settings(cache_dir=None, min_cluster_size=1, whitelist=tuple(names))
            settled = settle(gm, Target(backend, settings), traced.inputs)
            rejections = settled.partition.rejections
            if wrong := {node for node, why in rejections.items() if why.code == "wrong"}:
                built = {n for one in settled.built for n in one.extracted.cluster.nodes}
                assert wrong.isdisjoint(built)
                return
    pytest.fail("no row shows it")


def has_layer(row: OpRow, kind: str, backend: EngineBackend) -> bool:
    traced = traced_row(row)
    if rejection_of(traced, backend):
        return False
    return kind in layer_kinds(convert(traced.gm, backend.features))


def problem_of(row: OpRow, reference: EngineBackend, *, exact: bool) -> str:
    """What the check says of the row's engine: the right one, or one that rounds less often."""
    traced = traced_row(row)
    if rejection_of(traced, reference):
        return ""
    network = convert(traced.gm, reference.features)
    engine = reference.load(network, network.inputs, network.outputs)
    if exact:
        assert isinstance(engine, ReferenceEngine)
        engine._program.steps = [rounded_once(step) for step in engine._program.steps]
    module = EngineModule("row", engine, traced.gm)
    return check_engine(module, traced.inputs, traced.gm, "model", "example")[1]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("target", FEW & ROWS_OF.keys(), ids=str)
def test_right_engines_raise_no_alarm(target: Any, exact: bool, reference: EngineBackend) -> None:
    rows = [row for row in ROWS_OF[target] if row.rejected is None]
    problems = {row.id: problem_of(row, reference, exact=exact) for row in rows}
    assert {name: why for name, why in problems.items() if why} == {}


@pytest.mark.nightly
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("target", ROWS_OF, ids=str)
def test_no_right_engine_raises_an_alarm(
    target: Any, exact: bool, reference: EngineBackend
) -> None:
    rows = [row for row in ROWS_OF[target] if row.rejected is None]
    problems = {row.id: problem_of(row, reference, exact=exact) for row in rows}
    assert {name: why for name, why in problems.items() if why} == {}
