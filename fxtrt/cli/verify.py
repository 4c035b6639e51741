"""Implements `fxtrt verify`, which replays the golden inputs of a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import ArtifactError
from ..settings import Options, Settings
from .options import INPUT

__all__ = ["verify"]


@click.command()
@click.argument("path", type=INPUT)
@click.option(
    "--rebuild",
    is_flag=True,
    help="Build the engines again where those in the file are for another GPU or version.",
)
@click.option("--engine", help="auto, tensorrt, tensorrt_rtx or reference; by default the file's.")
def verify(path: Path, rebuild: bool, engine: str | None) -> None:
    """Replay the example in a file that was saved with weights, and compare the answers.

    The exit status is 1 if one differs by more than its tolerance, and 2 if the file cannot be
    loaded here.
    """
    options: Options = {} if engine is None else {"engine": engine}  # type: ignore[typeddict-item]  # checked next
    Settings.of(None, options)
    from ..artifact.verify import verify as replay
    from ..numerics.compare import table

    try:
        found = replay(path, rebuild=rebuild, **options)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error
    if found.differences:
        click.echo(table(found.differences))
    for reason, calls in found.fallbacks:
        click.echo(f"{calls} calls did not run as compiled: {reason}")
    if found.form:
        click.echo(found.form)
    click.echo(f"{path} answers {'as when it was saved' if found.agrees else 'OTHERWISE'}.")
    if not found.agrees:
        sys.exit(1)
