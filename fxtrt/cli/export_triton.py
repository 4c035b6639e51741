"""Declares the command `fxtrt export-triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import ArtifactError
from .options import INPUT, SECONDS
from .served_model import served_model

__all__ = ["export_triton"]


@click.command("export-triton")
@click.argument("path", type=INPUT)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", help="The model's name; by default the file's, without its suffix.")
@click.option("--max-batch", type=click.IntRange(1), help="The most images in a batch.")
@click.option("--max-delay", type=SECONDS, help="How long a request waits for others, as 5ms.")
@served_model
def export_triton(path: Path, folder: Path, **given: Any) -> None:
    """Write a model repository of Triton around a file that was saved with weights.

    The model runs in Triton's Python backend, whose Python needs fxtrt. It is called with one image
    [1, 3, height, width] in UINT8. FOLDER may be a repository with other models.
    """
    from ..serving.serve_options import ServeOptions
    from ..serving.triton_export import export_triton as export

    try:
        home = export(ServeOptions(path=str(path), **given), folder)
    except OSError as error:
        raise ArtifactError(f"cannot write {folder} from {path}: {error}") from error
    click.echo(f"{home} is a model of Triton: tritonserver --model-repository={folder}")
