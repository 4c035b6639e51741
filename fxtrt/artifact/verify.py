"""Replays the golden inputs of a file, and compares the answers with those in it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree
from typing_extensions import Unpack

from ..errors import ArtifactError
from ..numerics.compare import Difference, compare
from ..serialization.typed_json import typed
from ..settings import Options
from .alone import golden_of
from .archive import ArtifactFile
from .manifest import Manifest
from .save_load import load

__all__ = ["Verified", "replay", "verify"]


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of replaying the golden inputs.

    differences: of each output.
    form:        why the answer cannot be compared, or "".
    fallbacks:   the reasons for which calls did not run as compiled, with their numbers.
    """

    differences: Sequence[Difference]
    form: str = ""
    fallbacks: tuple[tuple[str, int], ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.form and all(difference.agrees for difference in self.differences)


def verify(
    path: str | os.PathLike[str],
    *,
    operators: Collection[str] = (),
    rebuild: bool = False,
    **overrides: Unpack[Options],
) -> Verified:
    """Load a file without its model, and compare its answer to the golden inputs.

    Args:
        operators, rebuild, overrides: as in `fxtrt.load`.

    Raises:
        ArtifactError: the file is damaged, has no golden inputs, or its engines cannot run here.
        CallError: the file does not take its own golden inputs.
    """
    return replay(path, load(path, operators=operators, rebuild=rebuild, **overrides))


def replay(path: str | os.PathLike[str], loaded: Any) -> Verified:
    """Compare the answer of a model that was loaded from a file with the one in it.

    Raises:
        ArtifactError, CallError: as in `verify`.
    """
    with ArtifactFile(Path(path)) as file:
        manifest = typed(file.manifest, Manifest, f"the manifest of {path}")
        call, expected = golden_of(file, manifest)
    with torch.no_grad():
        answer = loaded(*call.args, **call.kwargs)
    reasons = tuple(loaded.forward.fallbacks.most_frequent())
    if form := _other_form(answer, expected):
        return Verified((), form, reasons)
    try:
        return Verified(compare(answer, expected), fallbacks=reasons)
    except Exception as error:  # What somebody made up may fail anywhere.
        raise ArtifactError(f"the golden outputs are no answer of a model: {error}") from error


def _other_form(answer: Any, expected: Any) -> str:
    """Return how the answer differs in more than numbers, or ""."""
    found, wanted = pytree.tree_structure(answer), pytree.tree_structure(expected)
    if found != wanted:
        return f"the answer has another structure: {found!s:.300}, expected {wanted!s:.300}"
    for one, other in zip(pytree.tree_leaves(answer), pytree.tree_leaves(expected), strict=True):
        if type(one) is not type(other):
            return f"the answer has a {type(one).__name__}, expected a {type(other).__name__}"
        if isinstance(one, torch.Tensor) and (one.dim(), one.shape[1:], one.dtype) != (
            other.dim(),
            other.shape[1:],
            other.dtype,
        ):
            return (
                f"the answer has a tensor {one.dtype} {list(one.shape)}, expected {other.dtype} "
                f"{list(other.shape)}"
            )
    return ""
