"""Declares the commands of `fxtrt`, and prints their errors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import FxtrtError, ReportError
from ..settings import Settings
from .cache import cache
from .export_triton import export_triton
from .options import (
    ARTIFACT,
    INPUT,
    OUTPUT,
    SHAPE,
    SHARE,
    SIZE,
    writing,
)
from .selftest import selftest
from .serve import serve
from .tune import tune
from .verify import verify

if TYPE_CHECKING:
    from ..reporting import Coverage

__all__ = ["main"]

_INTERRUPTED = 130
"""The exit status of a process that Ctrl-C ended: 128 plus the number of the signal."""

_OPTIONS = (
    click.option(
        "--model",
        default="fasterrcnn_resnet50_fpn",
        show_default=True,
        help="A torchvision classifier, segmentation model or detector, by name; or "
        "package.module:function, a function of yours that returns a model.",
    ),
    click.option(
        "--detectron2",
        metavar="CONFIG",
        help="A config of Detectron2's model zoo, or a YAML file, instead of --model.",
    ),
    click.option(
        "--weights",
        type=INPUT,
        help="A state_dict of torch.save, a .safetensors file, or a checkpoint of Detectron2; by "
        "default random weights, or those that your function gives.",
    ),
    click.option("--size", type=SIZE, help="Resize the photograph to this height and width."),
    click.option(
        "--input",
        "inputs",
        type=SHAPE,
        multiple=True,
        help="The shape of an input for a model of your own, instead of a photograph; repeat it "
        "for each input, in order.",
    ),
    click.option(
        "--image",
        type=INPUT,
        help="A photograph; by default matplotlib's grace_hopper.jpg.",
    ),
    click.option("--engine", help="auto, tensorrt, tensorrt_rtx or reference."),
    click.option("--precision", help="model, fp32, tf32, fp16 or bf16."),
)


def main() -> None:
    """Run the command line, and print an error that fxtrt raises on purpose as one line."""
    try:
        status = _cli(prog_name="fxtrt", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        click.echo("fxtrt: interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FxtrtError as error:
        click.echo(f"fxtrt: {error}", err=True)
        sys.exit(2)
    sys.exit(status)


@click.group(name="fxtrt", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fxtrt")
def _cli() -> None:
    """Run the convertible parts of PyTorch models as TensorRT engines."""


_cli.add_command(cache)
_cli.add_command(selftest)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the common options, as a `Subject` and a dict of fields of `Settings`."""

    @functools.wraps(command)
    def wrapped(engine: str | None, precision: str | None, **given: Any) -> None:
        names = ("model", "detectron2", "weights", "image", "size", "inputs")
        subject = _commands().Subject(**{name: given.pop(name) for name in names})
        if subject.inputs and not subject.is_own:
            raise click.UsageError("--input goes with --model package.module:function")
        if subject.inputs and (subject.image is not None or subject.size is not None):
            raise click.UsageError("--input stands in place of --image and --size")
        options = {"engine": engine, "precision": precision}
        options = {name: value for name, value in options.items() if value is not None}
        Settings.of(None, options)  # before a model is loaded, which takes a while
        command(subject, options, **given)

    result: Callable[..., None] = wrapped
    for option in reversed(_OPTIONS):
        result = option(result)
    return result


@_cli.command()
@_with_options
@click.option("--draw", type=OUTPUT, help="Save the photograph with the detected boxes.")
def run(subject: Any, options: dict[str, Any], draw: Path | None) -> None:
    """Compile a model, run it on a photograph, and compare it with eager.

    The exit status is 1 if an output differs by more than its tolerance.
    """
    if draw is not None and subject.inputs:
        raise click.UsageError("--draw needs a photograph, which --input stands in place of")
    if not _commands().run(subject, options, draw):
        sys.exit(1)


@_cli.command()
@_with_options
@click.option("--measure", is_flag=True, help="Also run the model to measure times.")
@click.option("--json", "json_file", type=OUTPUT, help="Write the report as JSON.")
@click.option("--html", "html_file", type=OUTPUT, help="Write it as a page with a picture.")
@click.option("--markdown", "markdown_file", type=OUTPUT, help="Write it as Markdown.")
@click.option(
    "--min-flops",
    type=SHARE,
    help="Exit with status 1 if engines do a smaller share of the FLOPs (0 to 1).",
)
@click.option(
    "--max-clusters",
    type=click.IntRange(0),
    help="Exit with status 1 if there are more clusters.",
)
@click.option(
    "--diff",
    "compared",
    type=(INPUT, INPUT),
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
    """Print which nodes of a model would run in engines, and why the others would not.

    Nothing is built.
    """
    if compared is not None:
        from ..reporting.diff import diff

        before, after = map(_read_report, compared)
        click.echo(diff(before, after))
        return
    coverage: Coverage = _commands().report(subject, options, measure=measure)
    click.echo(str(coverage))
    if json_file is not None:
        with writing(json_file):
            json_file.write_text(coverage.to_json(), encoding="utf-8")
    if markdown_file is not None:
        with writing(markdown_file):
            markdown_file.write_text(coverage.to_markdown(), encoding="utf-8")
    if html_file is not None:
        with writing(html_file):
            coverage.to_html(html_file)
    if failures := _below_the_bar(coverage, min_flops, max_clusters):
        click.echo("\n".join(failures), err=True)
        sys.exit(1)


def _read_report(path: Path) -> Coverage:
    from ..reporting import Coverage

    try:
        return Coverage.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ReportError) as error:
        raise ReportError(f"{path}: {error}") from error


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
@click.option("--save", "file", type=ARTIFACT, help="Also write a file for fxtrt.load.")
@click.option(
    "--with-weights",
    is_flag=True,
    help="The file of --save also has the weights, and serves without the model.",
)
def build(subject: Any, options: dict[str, Any], file: Path | None, with_weights: bool) -> None:
    """Build a model's engines ahead of time, and print the report.

    The plans are kept in the cache: the next process that compiles the model the same way starts
    without building.
    """
    if with_weights and file is None:
        raise click.UsageError("--with-weights goes with --save")
    if file is not None and subject.has_random_weights and not with_weights:
        raise click.UsageError(
            "--save needs --weights, or --model package.module:function: fxtrt.load takes the file "
            "for the weights that it was made with, and these would be random; or --with-weights"
        )
    click.echo(str(_commands().build(subject, options, file, weights=with_weights)))


@_cli.command()
@_with_options
def bisect(subject: Any, options: dict[str, Any]) -> None:
    """Name the first cluster, and the node in it, whose engine answers differently from PyTorch.

    The exit status is 1 if there is one.
    """
    culprit = _commands().find_difference(subject, options)
    click.echo(culprit or "Every cluster answers like PyTorch.")
    if culprit:
        sys.exit(1)


_cli.add_command(verify)
_cli.add_command(serve)
_cli.add_command(export_triton)
_cli.add_command(tune)


def _commands() -> Any:
    """Return the module that runs the commands, which imports what fxtrt itself does not need."""
    try:
        from . import run as commands
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"this command needs {error.name}: pip install 'fxtrt[vision]'"
        ) from error
    return commands
