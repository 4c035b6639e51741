"""The command line: `fxtrt run`, `report`, `build`, `bisect` and `cache`."""

from __future__ import annotations

import functools
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


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """Height and width, as "800x1333"."""

    name = "HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        height, _, width = str(value).partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value!r} is no height and width, as 800x1333", param, ctx)
        return int(height), int(width)


_OPTIONS = (
    click.option(
        "--model",
        default="fasterrcnn_resnet50_fpn",
        show_default=True,
        help="A torchvision classifier, segmentation model or detector, by name.",
    ),
    click.option(
        "--detectron2",
        metavar="CONFIG",
        help="Instead, a config of Detectron2's model zoo, or a YAML file.",
    ),
    click.option(
        "--weights", type=_INPUT, help="A checkpoint for Detectron2; by default random weights."
    ),
    click.option("--size", type=_Size(), help="Resize the photograph to this height and width."),
    click.option(
        "--image",
        type=_INPUT,
        help="A photograph; by default matplotlib's grace_hopper.jpg.",
    ),
    click.option("--engine", help="auto, tensorrt, tensorrt_rtx or reference."),
    click.option("--precision", help="model, fp32, tf32, fp16 or bf16."),
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
    """Give `command` the options that all have in common, as a Subject and options of Settings."""

    @functools.wraps(command)
    def wrapped(engine: str | None, precision: str | None, **given: Any) -> None:
        names = ("model", "detectron2", "weights", "image", "size")
        subject = _demo().Subject(**{name: given.pop(name) for name in names})
        if subject.weights is not None and subject.detectron2 is None:
            raise click.UsageError("--weights goes with --detectron2")
        options = {"engine": engine, "precision": precision}
        command(subject, {k: v for k, v in options.items() if v is not None}, **given)

    result: Callable[..., None] = wrapped
    for option in reversed(_OPTIONS):
        result = option(result)
    return result


@_cli.command()
@_with_options
@click.option("--draw", type=_OUTPUT, help="Save the photograph with the boxes that are found.")
def run(subject: Any, options: dict[str, Any], draw: Path | None) -> None:
    """Compile a model, run it on a photograph, and compare it with eager.

    Ends with status 1 where an output differs by more than its tolerance.
    """
    if not _demo().run(subject, options, draw):
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
    subject: Any,
    options: dict[str, Any],
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
    coverage: Coverage = _demo().report(subject, options, measure=measure)
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
@click.option("--save", "file", type=_OUTPUT, help="Also write a file for fxtrt.load.")
def build(subject: Any, options: dict[str, Any], file: Path | None) -> None:
    """Build a model's engines ahead of time, and print the report.

    The plans are kept in the cache: the next process that compiles the model the same way starts
    without building.
    """
    click.echo(str(_demo().build(subject, options, file)))


@_cli.command()
@_with_options
def bisect(subject: Any, options: dict[str, Any]) -> None:
    """Name the first cluster, and the node in it, whose engine answers differently from PyTorch.

    Ends with status 1 where there is one.
    """
    culprit = _demo().find_difference(subject, options)
    click.echo(culprit or "Every cluster answers like PyTorch.")
    if culprit:
        sys.exit(1)


def _demo() -> Any:
    try:
        from . import demo
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"this command needs {error.name}: pip install 'fxtrt[vision]'"
        ) from error
    return demo
