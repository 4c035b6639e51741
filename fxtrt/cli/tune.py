"""Declares the command `fxtrt tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ArtifactError
from ..settings import Options, Settings
from .options import INPUT, SECONDS, writing

if TYPE_CHECKING:
    from ..serving.tuner import Ready, Trial

__all__ = ["tune"]


@click.command()
@click.argument("path", type=INPUT)
@click.option(
    "--p99",
    type=SECONDS,
    default="50ms",
    show_default=True,
    help="The time within which 99 % of the requests are to be answered.",
)
@click.option(
    "--seconds",
    type=SECONDS,
    default="2s",
    show_default=True,
    help="How long requests come at each rate, at least; a candidate takes about ten times that.",
)
@click.option(
    "--most-slots",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="The most slots that are tried.",
)
@click.option(
    "--most-batch",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="The most images in a batch that are tried, if the file takes so many.",
)
@click.option("--engine", help="auto, tensorrt, tensorrt_rtx or reference; by default the file's.")
@click.option(
    "--rebuild",
    is_flag=True,
    help="Build the engines again where those in the file are for another GPU or version.",
)
def tune(
    path: Path,
    p99: float,
    seconds: float,
    most_slots: int,
    most_batch: int,
    engine: str | None,
    rebuild: bool,
) -> None:
    """Find the slots, batches, delay and CUDA graphs with which a file serves most here.

    Requests with the example in the file come at random moments, at rising rates. What was chosen
    is written beside the file, as MODEL.tuned.json, for this GPU and these versions.
    """
    options: Options = {} if engine is None else {"engine": engine}  # type: ignore[typeddict-item]  # checked next
    Settings.of(None, options)
    from ..serving.served_file import open_file
    from ..serving.tuned_file import write_tuned
    from ..serving.tuner import Ready, Space, table
    from ..serving.tuner import tune as run

    def open_model(slots: int, graphs: bool) -> Ready:
        serving: Options = {**options, "slots": slots, "cuda_graphs": graphs}
        try:
            served = open_file(path, rebuild=rebuild, **serving)
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error}") from error
        return Ready(served.model, served.example, served.max_batch)

    slots = [1 << power for power in range(most_slots.bit_length())]
    space = Space(slots=slots, batch=most_batch)
    tuned = run(open_model, p99, space, seconds=seconds, tell=_tell)
    click.echo(table(tuned))
    with writing(path):
        written = write_tuned(path, tuned, options)
    chosen = tuned.chosen
    click.echo(
        f"{chosen.rate:.1f} images/s with p99 <= {1e3 * p99:g} ms: {chosen.candidate}, written to "
        f"{written}"
    )


def _tell(trial: Trial) -> None:
    """Say what was tried, while the rest takes its time."""
    of = trial.candidate
    text = f"{trial.rate:.1f} images/s" if trial.rate else trial.note
    graphs = ", CUDA graphs" if of.cuda_graphs else ""
    delay = f", {1e3 * of.max_delay:g} ms" if of.max_delay else ""
    click.echo(f"{of.slots} slots, batches of {of.max_batch}{delay}{graphs}: {text}", err=True)
