"""Mistakes in converters are noticed by the rows of the operators that they make wrong."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch
from code_mutants import CODE_MUTANTS, CodeMutant
from layer_mutants import LAYER_MUTANTS, LayerMutant, layer_at
from oprow import OpRow, TracedRow, compare, layer_kinds, trace_row, traced_row
from torch._ops import OpOverload

from fxtrt.conversion.convert import convert
from fxtrt.diagnostics.operator_rows import ROWS_OF
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.network import Network, collect_errors
from fxtrt.errors import ConversionError, EngineError

aten = torch.ops.aten

Mistake = tuple[str, int]
"""A mutant, and in which of the layers of its kind."""

MUTANTS_OF: dict[str, list[LayerMutant]] = defaultdict(list)
for _mutant in LAYER_MUTANTS:
    MUTANTS_OF[_mutant.kind].append(_mutant)

HARMLESS: list[tuple[tuple[OpOverload, ...], Mistake, str]] = [
    (
        (aten.div.Tensor_mode, aten.floor_divide.default, aten.floor_divide.Scalar),
        ("ELEMENTWISE operation", 2),
        "a - a is zero or NaN, whether it is subtracted or added",
    ),
    (
        (aten.var.correction, aten.std.correction, aten.var_mean.correction),
        ("ELEMENTWISE inputs turned", 0),
        "the deviation from the mean is squared",
    ),
    (
        (aten._cdist_forward.default,),
        ("ELEMENTWISE inputs turned", 0),
        "the difference is squared, or its absolute value taken",
    ),
    *(
        (
            (aten.cummax.default, aten.cummin.default),
            ("SLICE border", number),
            "the first elements stand for all up to them already: whose place is read is their own",
        )
        for number in (2, 4, 6, 8)
    ),
    (
        (aten.lerp.Tensor,),
        ("ELEMENTWISE equal for less", 0),
        "from which end it starts is a matter of rounding",
    ),
    (
        (aten.log1p.default,),
        ("CONSTANT values", 2),
        "between 0.5 and 1.5 both formulas are good",
    ),
    (
        (aten.logsumexp.default,),
        ("REDUCE operation", 2),
        "the dimension that goes is of size 1",
    ),
]


RICH = (
    *("aten._native_batch_norm_legit_no_training.default", "aten._upsample_nearest_exact2d.vec"),
    *("aten.avg_pool1d.default", "aten.convolution.default", "aten.cummax.default"),
    *("aten.cumsum.default", "aten.diagonal.default", "aten.einsum.default", "aten.flip.default"),
    *("aten.group_norm.default", "aten.index.Tensor", "aten.prelu.default", "aten.scatter.src"),
    *("aten.scaled_dot_product_attention.default", "aten.selu.default"),
    *("aten.upsample_bicubic2d.vec", "torchvision.deform_conv2d.default"),
    "torchvision.roi_align.default",
)
"""Operators whose rows have a place for every mutant, so that the search for them is short."""


@pytest.mark.parametrize("target", ROWS_OF, ids=str)
def test_rows_notice_every_wrong_layer(target: OpOverload, reference: EngineBackend) -> None:
    noticed: dict[Mistake, bool] = {}
    for row in ROWS_OF[target]:
        for mistake, difference in mistakes(row, reference, noticed):
            noticed[mistake] = difference
    survivors = {mistake for mistake, difference in noticed.items() if not difference}
    assert survivors == {mistake for targets, mistake, _ in HARMLESS if target in targets}


def test_some_row_has_a_place_for_every_mutant(reference: EngineBackend) -> None:
    missing = {mutant.id for mutant in LAYER_MUTANTS}
    for row in sorted(
        itertools.chain(*ROWS_OF.values()), key=lambda row: str(row.target) not in RICH
    ):
        traced = traced_row(row)
        network = convert(traced.gm, reference.features)
        compare(row, traced, network, reference)
        missing -= {mutant.id for mutant, _ in places(network)}
        if not missing:
            return
    pytest.fail(f"no row has a place for {sorted(missing)}")


@pytest.mark.parametrize(
    ("mutant", "target"),
    [
        pytest.param(mutant, target, id=f"{mutant.id}-{target}")
        for mutant in CODE_MUTANTS
        for target in mutant.targets
    ],
)
def test_rows_notice_every_wrong_function(
    mutant: CodeMutant,
    target: OpOverload,
    reference: EngineBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for row, traced in traced_rows(target):
        compare(row, traced, convert(traced.gm, reference.features), reference)
        with monkeypatch.context() as patched:
            mutant.make(patched)
            if differs(row, traced, reference):
                return
    pytest.fail("no row notices")


def traced_rows(target: OpOverload) -> Iterator[tuple[OpRow, TracedRow]]:
    """Each row as it is, then those that can have dynamic sizes."""
    for row in ROWS_OF[target]:
        yield row, traced_row(row)
    for row in ROWS_OF[target]:
        if row.dynamic:
            yield row, trace_row(row, dynamic=True)


def differs(row: OpRow, traced: TracedRow, backend: EngineBackend) -> bool:
    """Whether the row's network is not converted, fails, or gives something else."""
    try:
        with collect_errors():
            compare(row, traced, convert(traced.gm, backend.features), backend)
    except ConversionError as error:
        if isinstance(error.__cause__, (AttributeError, NameError, TypeError)):
            raise  # a slip in the mutant itself
        return True
    except (AssertionError, EngineError):
        return True
    return False


def mistakes(
    row: OpRow, backend: EngineBackend, noticed: dict[Mistake, bool]
) -> Iterator[tuple[Mistake, bool]]:
    """Each mistake that can be made in the row's network and nobody noticed; whether it is now."""
    traced = traced_row(row)
    right = convert(traced.gm, backend.features)
    compare(row, traced, right, backend)
    kinds = layer_kinds(right)
    for mutant, place in places(right):
        mistake = (mutant.id, kinds[:place].count(mutant.kind))
        if not noticed.get(mistake):
            yield mistake, is_noticed(mutant, place, row, backend)


def places(network: Network) -> Iterator[tuple[LayerMutant, int]]:
    """Each mutant with the number of each layer that it can make wrong."""
    for place, kind in enumerate(layer_kinds(network)):
        for mutant in MUTANTS_OF[kind]:
            if mutant.wrong(layer_at(network, place)) is not None:
                yield mutant, place


def is_noticed(mutant: LayerMutant, place: int, row: OpRow, backend: EngineBackend) -> bool:
    """Whether the row's network with the mistake fails, or gives something else."""
    traced = traced_row(row)
    network = convert(traced.gm, backend.features)
    mutant.make(network, place)
    try:
        with collect_errors():
            compare(row, traced, network, backend)
    except (AssertionError, EngineError):
        return True
    return False
