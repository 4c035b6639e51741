"""Declares the command `fxtrt selftest`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import OUTPUT, writing

__all__ = ["selftest"]


@click.command()
@click.option("--engine", help="auto, tensorrt, tensorrt_rtx or reference.")
@click.option(
    "--tactic-source",
    "tactic_sources",
    multiple=True,
    help="A name of trt.TacticSource, where not all of them work; repeat it for each.",
)
@click.option("--json", "json_file", type=OUTPUT, help="Write the record, for an issue.")
def selftest(engine: str | None, tactic_sources: tuple[str, ...], json_file: Path | None) -> None:
    """Try this machine's engine on all operators and a small detector, in about two minutes.

    The record has versions, the GPU and results in it, and nothing of your models. The exit status
    is 1 if something is wrong.
    """
    from ..diagnostics.selftest import selftest as run
    from ..settings import Settings

    options = {} if engine is None else {"engine": engine}
    settings = Settings.of(
        None,
        {
            **options,
            "optimization_level": 0,
            "cache_dir": None,
            "tactic_sources": tactic_sources or None,
        },
    )
    record = run(settings, progress=lambda name: click.echo(name, err=True))
    click.echo(str(record))
    if json_file is not None:
        with writing(json_file):
            json_file.write_text(record.to_json(), encoding="utf-8")
    if not record.passed:
        sys.exit(1)
