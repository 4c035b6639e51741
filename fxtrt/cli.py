"""The command line: `fxtrt run`, `fxtrt report`, `fxtrt bisect` and `fxtrt cache`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .cli_cache import cache
from .errors import FxtrtError
from .report import Coverage
from .report.diff import diff

__all__ = ["main"]

_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)
_OPTIONS = (
    click.option(
        "--model",
        default="fasterrcnn_resnet50_fpn",
        show_default=True,
        help="A torchvision classifier, segmentation model or detector, by name.",
    ),
    click.option(
        "--image",
        type=_INPUT,
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
@click.option("--measure", is_flag=True, help="Also run the model, for the times.")
@click.option("--json", "json_file", type=_OUTPUT, help="Write the report as JSON.")
@click.option("--html", "html_file", type=_OUTPUT, help="Write it as a page with a picture.")
@click.option("--markdown", "markdown_file", type=_OUTPUT, help="Write it as Markdown.")
@click.option(
    "--min-flops",
    type=click.FloatRange(0, 1),
    help="End with status 1 where engines do a smaller share of the FLOPs (0 to 1).",
)
@click.option(
    "--max-clusters",
    type=click.IntRange(0),
    help="End with status 1 where there are more clusters.",
)
@click.option(
    "--diff",
    "compared",
    type=(_INPUT, _INPUT),
    metavar="BEFORE AFTER",
    help="Only print what changed between two reports that --json wrote.",
)
def report(
    model: str,
    image: Path | None,
    engine: str | None,
    precision: str | None,
    measure: bool,
    json_file: Path | None,
    html_file: Path | None,
    markdown_file: Path | None,
    min_flops: float | None,
    max_clusters: int | None,
    compared: tuple[Path, Path] | None,
) -> None:
    """Print what of a model would run in engines, and why the rest would not. Builds nothing."""
    if compared is not None:
        before, after = (Coverage.from_json(path.read_text()) for path in compared)
        click.echo(diff(before, after))
        return
    given = _given(engine=engine, precision=precision)
    coverage: Coverage = _demo().report(model, image, given, measure=measure)
    click.echo(str(coverage))
    if json_file is not None:
        json_file.write_text(coverage.to_json(), encoding="utf-8")
    if markdown_file is not None:
        markdown_file.write_text(coverage.to_markdown(), encoding="utf-8")
    if html_file is not None:
        coverage.to_html(html_file)
    if failures := _below_the_bar(coverage, min_flops, max_clusters):
        click.echo("\n".join(failures), err=True)
        sys.exit(1)


def _below_the_bar(
    coverage: Coverage, min_flops: float | None, max_clusters: int | None
) -> list[str]:
    failures = []
    if min_flops is not None and coverage.flops_share < min_flops:
        share = f"{coverage.flops_share:.2%} of the FLOPs run in engines"
        failures.append(f"fxtrt: {share}, --min-flops asks for {min_flops:.2%}")
    if max_clusters is not None and len(coverage.clusters) > max_clusters:
        count = len(coverage.clusters)
        failures.append(f"fxtrt: {count} clusters, --max-clusters allows {max_clusters}")
    return failures


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
