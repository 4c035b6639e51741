"""Runs a model through torch.compile and fxtrt.compile, and prints how both compare with eager."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import fxtrt

from .bisect import bisect
from .comparison import compare, table
from .engines.select import select
from .examples import load_example
from .report import Coverage

__all__ = ["find_difference", "report", "run"]

_console = Console(highlight=False)


def run(name: str, image: Path | None, options: Mapping[str, Any]) -> bool:
    """Compile a torchvision model both ways, and print coverage, engines and differences.

    Args:
        name, image: as `load_example` takes them.
        options: fields of `fxtrt.Settings` by name.

    Returns:
        Whether something ran in an engine and, on `reference` with the model's own precision,
        every output equals eager; other engines round differently, which is printed only.
    """
    # First, because through torch.compile a wrong option comes wrapped in Dynamo's own errors.
    select(fxtrt.Settings.of(None, options).engine)
    # torchvision calls functions of torch by names that torch has since changed.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torchvision")
    with _step(f"{name} with random weights"):
        model, inputs = load_example(name, image)
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
        model, inputs = model.cuda(), torch.utils._pytree.tree_map(torch.Tensor.cuda, inputs)
    with torch.no_grad():
        with _step(f"eager, {next(model.parameters()).device}"):
            expected = model(*inputs)
        with _step('torch.compile(model, backend="fxtrt"), first call'):
            jit: Any = torch.compile(model, backend="fxtrt", options=dict(options))
            actual = jit(*inputs)
        same = _judge(fxtrt.report(jit), actual, expected, options)
        with _step("fxtrt.compile(model, inputs)"):
            compiled = fxtrt.compile(model, inputs, **options)
        with _step("its first call"):
            actual = compiled(*inputs)
        return _judge(fxtrt.report(compiled), actual, expected, options) and same


def report(
    name: str, image: Path | None, options: Mapping[str, Any], *, measure: bool = False
) -> Coverage:
    """What fxtrt would do with a torchvision model; nothing is built."""
    model, inputs = load_example(name, image)
    return fxtrt.report(model, inputs, measure=measure, **options)


def find_difference(name: str, image: Path | None, options: Mapping[str, Any]) -> str:
    """Where the engines of a torchvision model first differ from PyTorch; "" if they do not."""
    model, inputs = load_example(name, image)
    culprit = bisect(model, inputs, fxtrt.Settings.of(None, options))
    return "" if culprit is None else f"{culprit}\n{table(culprit.differences)}"


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
    # Tables are as wide as they are: rich would fold them.
    _console.print(text, markup=False, soft_wrap=True)


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what is going on, with a spinner on a terminal, and how long it took."""
    start = time.perf_counter()
    if not _console.is_terminal:
        _print(f"{what} ...")
    with _console.status(what):
        yield
    _print(f"{what}: {time.perf_counter() - start:.1f} s")
