"""Runs the commands that take a model: `fxtrt run`, `report`, `build` and `bisect`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

import fxtrt

from ..diagnostics.bisect import bisect
from ..diagnostics.example_models import (
    Example,
    load_example,
    photograph_for_classifier,
)
from ..diagnostics.weight_file import load_weights
from ..engines.select import select
from ..numerics.compare import compare, table
from ..reporting import Coverage
from .draw import draw, require_drawable
from .options import InputShape, writing
from .own_model import load_own_model, made_up

__all__ = ["Subject", "build", "find_difference", "report", "run"]

_console = Console(highlight=False, emoji=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model that the command line was asked to compile, and its inputs.

    model:      the name of a torchvision model, or "package.module:function" of the user's.
    detectron2: a config of Detectron2's model zoo, or a YAML file, instead of `model`.
    weights:    a file of weights; None makes calibrated random ones, or leaves a user's model as it
                is.
    image:      a photograph; None takes one of matplotlib's.
    size:       the height and width that it is resized to; None leaves that to the model.
    inputs:     the shapes of the inputs of a user's model, instead of a photograph.
    """

    model: str = "fasterrcnn_resnet50_fpn"
    detectron2: str | None = None
    weights: Path | None = None
    image: Path | None = None
    size: tuple[int, int] | None = None
    inputs: tuple[InputShape, ...] = ()

    @property
    def name(self) -> str:
        return self.detectron2 or self.model

    @property
    def is_own(self) -> bool:
        return self.detectron2 is None and ":" in self.model

    @property
    def has_random_weights(self) -> bool:
        return self.weights is None and not self.is_own

    @property
    def described(self) -> str:
        """The model and the source of its weights, in words."""
        if self.weights is not None:
            return f"{self.name} with {self.weights}"
        return f"{self.name} with random weights" if self.has_random_weights else self.name

    def load(self) -> Example:
        """Return the model and its inputs, on the GPU where there is one.

        Raises:
            SettingsError: there is no such model or config, Detectron2 is not installed, or a file
                is no image, or has no weights of this model.
        """
        if self.detectron2 is not None:
            from ..diagnostics.detectron2_models import load_config

            example = load_config(self.detectron2, self.image, self.size, self.weights)
        elif self.is_own:
            example = self._own()
        else:
            example = load_example(self.model, self.image, size=self.size, weights=self.weights)
        return example.to(_device())

    def _own(self) -> Example:
        model = load_own_model(self.model)
        if self.weights is not None:
            load_weights(model, self.weights)
        if self.inputs:
            return Example(model, made_up(self.inputs))
        photograph, inputs = photograph_for_classifier(self.image, self.size)
        return Example(model, inputs, photograph)


def run(subject: Subject, options: Mapping[str, Any], drawing: Path | None = None) -> bool:
    """Compile a model both ways, and print coverage, engines and differences.

    Args:
        options: fields of `fxtrt.Settings` by name.
        drawing: the file for the photograph with the boxes that the compiled model finds.

    Returns:
        Whether something ran in an engine and no output is wrong. Outputs must equal eager only on
        `reference` with the model's own precision. Other engines round differently, so their
        differences are only printed.
    """
    # Options are checked first, because torch.compile wraps their errors in errors of Dynamo.
    _require_engine(options)
    if drawing is not None:
        require_drawable(drawing)
    # torchvision calls functions of torch by their old names.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torchvision")
    with _step(subject.described):
        example = subject.load()
    model, inputs = example.model, example.inputs
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        with _step(f"eager, {_device()}"):
            expected = model(*inputs)
        with _step('torch.compile(model, backend="fxtrt"), first call'):
            jit: Any = torch.compile(model, backend="fxtrt", options=dict(options))
            actual = jit(*inputs)
        same = _judge(fxtrt.report(jit), actual, expected, options)
        with _step("fxtrt.compile(model, inputs)"):
            # The model runs on one picture, so engines for other sizes would only take time.
            compiled = fxtrt.compile(model, inputs, **options)
        with _step("its first call"):
            actual = compiled(*inputs)
        if drawing is not None:
            draw(example, actual, drawing)
            _print(f"The boxes are drawn in {drawing}.")
        return _judge(fxtrt.report(compiled), actual, expected, options) and same


def report(subject: Subject, options: Mapping[str, Any], *, measure: bool = False) -> Coverage:
    """Return the report of what fxtrt would do with a model, without building anything."""
    _require_engine(options)
    with _progress(subject.name):
        example = subject.load()
    with _progress(f"capturing {subject.name}"):
        return fxtrt.report(example.model, example.inputs, measure=measure, **options)


def build(
    subject: Subject,
    options: Mapping[str, Any],
    file: Path | None = None,
    *,
    weights: bool = False,
) -> Coverage:
    """Build a model's engines, and keep their plans in the cache for the next process.

    Args:
        file: the file for `fxtrt.save`, if any.
        weights: whether it serves without the model.
    """
    _require_engine(options)
    with _progress(subject.name):
        example = subject.load()
    with torch.no_grad(), _progress(f"compiling {subject.name}"):
        compiled = fxtrt.compile(example.model, example.inputs, **options)
    if file is not None:
        with writing(file):
            fxtrt.save(compiled, file, weights=weights)
    return fxtrt.report(compiled)


def find_difference(subject: Subject, options: Mapping[str, Any]) -> str:
    """Return where the engines of a model first differ from PyTorch, or "" if they do not."""
    _require_engine(options)
    with _progress(subject.name):
        example = subject.load()
    with _progress(f"comparing the clusters of {subject.name} with PyTorch"):
        culprit = bisect(example.model, example.inputs, fxtrt.Settings.of(None, options))
    return "" if culprit is None else f"{culprit}\n{table(culprit.differences)}"


def _require_engine(options: Mapping[str, Any]) -> None:
    """Ask for the engine before a model is loaded, which takes a while.

    Raises:
        EngineUnavailable: it is not here.
    """
    select(fxtrt.Settings.of(None, options).engine)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _judge(coverage: Coverage, actual: Any, expected: Any, options: Mapping[str, Any]) -> bool:
    differences = compare(actual, expected)
    agrees = all(difference.agrees for difference in differences)
    _print(f"\n{coverage}\n\nAgainst eager:\n{table(differences)}\n")
    engines = {row.engine for row in coverage.clusters}
    if not engines:
        _print("Nothing ran in an engine.")
        return False
    exact = engines == {"reference"} and options.get("precision", "model") == "model"
    return agrees or not exact


def _print(text: str) -> None:
    # soft_wrap keeps rich from folding wide tables.
    _console.print(text, markup=False, soft_wrap=True)


def _progress(what: str) -> AbstractContextManager[Any]:
    """Return a spinner on standard error, since the report goes to standard output."""
    return Console(stderr=True).status(Text(what))


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Print what the block does and how long it took, with a spinner on a terminal."""
    start = time.perf_counter()
    if not _console.is_terminal:
        _print(f"{what} ...")
    with _console.status(Text(what)):
        yield
    _print(f"{what}: {time.perf_counter() - start:.1f} s")
