"""The command line: `fxtrt run`, `fxtrt report`, `fxtrt bisect` and `fxtrt cache`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .cli_cache import cache
from .errors import FxtrtError

__all__ = ["main"]

_OPTIONS = (
    click.option(
        "--model",
        default="fasterrcnn_resnet50_fpn",
        show_default=True,
        help="A torchvision classifier, segmentation model or detector, by name.",
    ),
    click.option(
        "--image",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A photograph; by default matplotlib's grace_hopper.jpg.",
    ),
    click.option("--engine", help="auto, tensorrt, tensorrt_rtx or reference."),
    click.option("--precision", help="model, float16 or bfloat16."),
)


def main() -> None:
    """Run the command line; an error that fxtrt raises on purpose becomes one line."""
    try:
        _cli()
    except FxtrtError as error:
        click.echo(f"fxtrt: {error}", err=True)
        sys.exit(2)


@click.group(name="fxtrt", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fxtrt")
def _cli() -> None:
    """Run the convertible parts of PyTorch models as TensorRT engines."""


_cli.add_command(cache)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@_cli.command()
@_with_options
def run(model: str, image: Path | None, engine: str | None, precision: str | None) -> None:
    """Compile a model with random weights, run it on a photograph, and compare it with eager.

    Ends with status 1 where an output differs by more than its tolerance.
    """
    if not _demo().run(model, image, _given(engine=engine, precision=precision)):
        sys.exit(1)


@_cli.command()
@_with_options
def report(model: str, image: Path | None, engine: str | None, precision: str | None) -> None:
    """Print what of a model would run in engines, and why the rest would not. Builds nothing."""
    click.echo(str(_demo().report(model, image, _given(engine=engine, precision=precision))))


@_cli.command()
@_with_options
def bisect(model: str, image: Path | None, engine: str | None, precision: str | None) -> None:
    """Name the first cluster, and the node in it, whose engine answers differently from PyTorch.

    Ends with status 1 where there is one.
    """
    culprit = _demo().find_difference(model, image, _given(engine=engine, precision=precision))
    click.echo(culprit or "Every cluster answers like PyTorch.")
    if culprit:
        sys.exit(1)


def _given(**options: str | None) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def _demo() -> Any:
    try:
        from . import demo
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"this command needs {error.name}: pip install 'fxtrt[vision]'"
        ) from error
    return demo
