"""Declares the command `fxtrt serve`."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ArtifactError, ServingError
from ..settings import Options, Settings
from .options import INPUT, SECONDS, SIZE

__all__ = ["serve"]


@click.command()
@click.argument("path", type=INPUT)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port; 0 takes one that is free, and prints it.",
)
@click.option("--name", help="The model's name in URLs; by default the file's, without its suffix.")
@click.option("--slots", type=click.IntRange(1), help="The most calls in engines at once.")
@click.option("--max-batch", type=click.IntRange(1), help="The most images in a call.")
@click.option(
    "--max-delay",
    type=SECONDS,
    help="How long a request may wait for others while a batch runs, as 5ms.",
)
@click.option("--queue-size", type=click.IntRange(1), help="The most requests that may wait.")
@click.option("--timeout", type=SECONDS, help="The time that a request has, as 2s.")
@click.option("--engine", help="auto, tensorrt, tensorrt_rtx or reference; by default the file's.")
@click.option(
    "--rebuild",
    is_flag=True,
    help="Build the engines again where those in the file are for another GPU or version.",
)
@click.option(
    "--no-verify",
    "verify",
    is_flag=True,
    default=True,
    flag_value=False,
    help="Serve the file even if it answers its example otherwise than when it was saved.",
)
@click.option(
    "--channels",
    type=click.Choice(["rgb", "bgr"]),
    help="The order of colours that the model takes; by default bgr for Detectron2, else rgb.",
)
@click.option(
    "--resize",
    type=SIZE,
    help="For Detectron2, the shorter side of resized pictures and the limit of the longer one, by "
    "default 800x1333; for a classifier of any size, height and width.",
)
@click.option("--mean", type=(float, float, float), help="For a classifier, of values from 0 to 1.")
@click.option("--std", type=(float, float, float), help="For a classifier, of values from 0 to 1.")
@click.option(
    "--show-images",
    is_flag=True,
    help="Show the last six images that clients sent, with detections, on the page to everybody.",
)
def serve(path: Path, host: str, port: int, **given: Any) -> None:
    """Serve a file that was saved with weights, over HTTP.

    It answers the example in the file first, and refuses a file whose answer has changed. SIGTERM
    and Ctrl-C end it, after it has answered what it accepted: the exit status is then 0, 1 if it
    could not answer all or its device failed, and 2 if it could not start.
    """
    engine = given["engine"]
    options: Options = {} if engine is None else {"engine": engine}  # type: ignore[typeddict-item]  # checked next
    Settings.of(None, options)
    with _listening(host, port) as listener:
        _serve(path, listener, given)


def _serve(path: Path, listener: socket.socket, given: dict[str, Any]) -> None:
    try:
        from ..serving.http_server import serve as run
    except ModuleNotFoundError as error:
        raise ServingError(f'HTTP needs {error.name}: pip install "fxtrt[serve]"') from error
    from ..serving.serve_options import ServeOptions

    asked = ServeOptions(path=str(path), **given)
    try:
        served = asked.open()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error
    server = asked.server(served)
    settings = server.settings
    listener.listen(_BACKLOG)
    host, port = listener.getsockname()[:2]
    click.echo(
        f"{path} is served as {settings.name!r} at http://{_in_url(host)}:{port}/ with "
        f"{settings.workers} slots and up to {settings.max_batch} images in a batch"
    )
    if not run(server, settings=asked.http(served), sockets=[listener]):
        click.echo("fxtrt: not all requests could be answered", err=True)
        sys.exit(1)


_BACKLOG = 2048


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket with the address, taken before the file is loaded.

    It listens only after that, so that probes find nobody before.

    Raises:
        ServingError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ServingError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
