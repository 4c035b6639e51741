"""Whatever is changed in a file of `fxtrt.save`, it loads, or is refused by an ArtifactError."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from artifact_edits import Edited, write
from artifact_models import CASES, case, detector
from fuzzing import fuzz
from hypothesis import strategies as st
from torch import nn

import fxtrt
from fxtrt.artifact.verify import verify
from fxtrt.errors import ArtifactError, CallError

NAMES = ("dynamic", "nested", "selecting")


class Saved:
    """A file of a model, and a copy to be damaged."""

    def __init__(self, name: str, folder: Path) -> None:
        _, sizes, (example, *_) = CASES[name]
        self.model: nn.Module | None = case(name)
        self.path = folder / f"{name}.fxtrt"
        options: dict[str, Any] = {"engine": "reference", "min_cluster_size": 1}
        fxtrt.save(fxtrt.compile(self.model, example, dynamic_shapes=sizes, **options), self.path)
        self.edited = Edited(self.path)
        self.damaged = Path(shutil.copy(self.path, folder / f"{name}.damaged"))

    def load(self) -> None:
        with contextlib.suppress(ArtifactError):
            fxtrt.load(self.damaged, self.model)


class SavedAlone(Saved):
    """A file of a detector with its weights."""

    def __init__(self, folder: Path) -> None:
        self.model = None
        self.path = folder / "alone.fxtrt"
        model, inputs = detector()
        fxtrt.save(fxtrt.compile(model, inputs, engine="reference"), self.path, weights=True)
        self.edited = Edited(self.path)
        self.damaged = Path(shutil.copy(self.path, folder / "alone.damaged"))

    def load(self) -> None:
        with contextlib.suppress(ArtifactError, CallError):
            verify(self.damaged)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    folder = tmp_path_factory.mktemp("saved")
    files = {name: Saved(name, folder) for name in NAMES}
    return {**files, "alone": SavedAlone(folder)}


PLACES = st.integers(0, 0xFFFF).map(lambda number: number * 40503 % 0x10000 / 0x10000)
"""Shares of a file. Made-up integers are small ones most often; these lie anywhere."""
CHANGES = ("set", "insert", "remove", "cut")


def test_changed_bytes_are_refused_or_harmless(saved: dict[str, Saved]) -> None:
    def check(name: str, change: str, share: float, data: bytes) -> None:
        one = saved[name]
        whole = one.path.read_bytes()
        place = int(share * len(whole))
        after = {"set": place + len(data), "insert": place, "remove": place + 1}
        rest = b"" if change == "cut" else whole[after[change] :]
        between = data if change in ("set", "insert") else b""
        one.damaged.write_bytes(whole[:place] + between + rest)
        one.load()

    names, changes = st.sampled_from(NAMES), st.sampled_from(CHANGES)
    fuzz(check, names, changes, PLACES, st.binary(min_size=1, max_size=64), examples=300)


ODD = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2, 5, 2**31, 2**63 - 1, -(2**63), 2**64, 10**30]),
    st.sampled_from(
        [0.5, float("inf"), float("nan"), "", "x", "relu", "first.weight", "\0", "\ud800"]
    ),
    st.sampled_from(
        [[], {}, [[]], {"node": "x"}, {"tuple": []}, {"dict": {}}, ["symbol", "s0", {}]]
    ),
    st.integers(),
    st.text(max_size=8),
)


def values_of(data: Any) -> Iterator[tuple[Any, Any]]:
    """Where each value of JSON is: what holds it, and its key."""
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from values_of(data[key])


def test_changed_values_are_refused_or_harmless(saved: dict[str, Saved]) -> None:
    """The digests are true, as of a file that somebody made: the readers are on their own."""

    def check(name: str, in_manifest: bool, edits: list[tuple[float, float, str, Any]]) -> None:
        one = saved[name]
        edited = copy.copy(one.edited)
        edited.manifest, edited.graphs = copy.deepcopy((edited.manifest, edited.graphs))
        data = edited.manifest if in_manifest else edited.graph
        for share, other, change, value in edits:
            places = list(values_of(data))
            if not places:
                return
            value = copy.deepcopy(value)
            holder, key = places[int(share * (len(places) - 1))]
            source, source_key = places[int(other * (len(places) - 1))]
            if change == "remove":
                del holder[key]
            elif change == "copy":
                holder[key] = copy.deepcopy(source[source_key])
            elif change == "odd" or isinstance(holder, dict):
                holder[key] = value
            else:
                holder.insert(key, value)
        if not isinstance(edited.manifest.get("parts"), list):
            return
        write(one.damaged, edited)
        one.load()

    change = st.sampled_from(["odd", "copy", "remove", "insert"])
    edit = st.tuples(PLACES, PLACES, change, ODD)
    edits = st.lists(edit, min_size=1, max_size=3)
    fuzz(check, st.sampled_from(NAMES), st.booleans(), edits, examples=150)


def test_changed_values_of_what_serves_alone(saved: dict[str, Saved]) -> None:
    """These are weights, host steps and golden inputs."""
    one = saved["alone"]

    def check(kind: str, edits: list[tuple[float, float, Any]], cut: float | None) -> None:
        edited = copy.copy(one.edited)
        edited.manifest = copy.deepcopy(edited.manifest)
        alone = edited.manifest["alone"]
        for share, other, value in edits:
            places = list(values_of(alone[kind]))
            holder, key = places[int(share * (len(places) - 1))]
            source, source_key = places[int(other * (len(places) - 1))]
            holder[key] = copy.deepcopy(source[source_key] if value == "copy" else value)
        if cut is not None:
            member = {"weights": "weights.safetensors"}.get(kind, "golden.constants")
            data = edited.members[member]
            edited.members = {**edited.members, member: data[: int(cut * len(data))]}
        write(one.damaged, edited)
        one.load()

    kinds = st.sampled_from(["weights", "steps", "golden"])
    value = st.one_of(st.just("copy"), ODD)
    edits = st.lists(st.tuples(PLACES, PLACES, value), min_size=1, max_size=3)
    fuzz(check, kinds, edits, st.one_of(st.none(), PLACES), examples=60)


def row() -> Any:
    """A row of a table of expressions, most often one that is well formed."""
    sums = ("add.Add", "mul.Mul", "power.Pow", "mod.Mod", "relational.Equality")
    kinds = [f"sympy.core.{name}" for name in (*sums, "relational.LessThan")]
    kinds += ["sympy.logic.boolalg.And", "sympy.functions.elementary.integers.floor"]
    names = ("FloorDiv", "PythonMod", "Min", "Max", "LShift", "PowByNatural", "CeilToInt")
    kinds += [f"torch.utils._sympy.functions.{name}" for name in (*names, "FloatPow")]
    numbers = st.one_of(st.integers(-10, 100), st.integers(-(2**63), 2**63))
    return st.one_of(
        st.tuples(st.just("integer"), numbers),
        st.tuples(st.just("rational"), numbers, numbers),
        st.tuples(st.just("float"), st.floats().map(float.hex)),
        st.tuples(st.just("constant"), st.sampled_from(["true", "false", "int_oo", "-oo"])),
        st.tuples(
            st.just("call"),
            st.sampled_from(kinds),
            st.lists(st.integers(0, 30), max_size=4),
        ),
    )


def test_made_up_sizes(saved: dict[str, Saved]) -> None:
    def check(rows: list[Any], uses: list[tuple[float, int]], guards: bool) -> None:
        one = saved["dynamic"]
        edited = copy.copy(one.edited)
        edited.graphs = copy.deepcopy(edited.graphs)
        table, environment = edited.graph["expressions"], edited.graph["environment"]
        table.extend(map(list, rows))
        sizes = [
            (holder, key)
            for holder, key in values_of(edited.graph["nodes"])
            if isinstance(holder, dict) and key == "symbolic"
        ]
        for share, number in uses:
            holder, key = sizes[int(share * (len(sizes) - 1))]
            holder[key] = ["int", len(table) - 1 - number % len(rows)]
        environment["guards"] += [len(table) - 1] * guards
        write(one.damaged, edited)
        one.load()

    rows = st.lists(row(), min_size=1, max_size=8)
    uses = st.lists(st.tuples(PLACES, st.integers(0, 30)), max_size=2)
    fuzz(check, rows, uses, st.booleans(), examples=100)
