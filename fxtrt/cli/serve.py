"""Declares the command `fxtrt serve`."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import ArtifactError, ServingError
from .options import INPUT, SECONDS
from .served_model import served_model

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
@click.option("--max-batch", type=click.IntRange(1), help="The most images in a call.")
@click.option(
    "--max-delay",
    type=SECONDS,
    help="How long a request may wait for others while a batch runs, as 5ms.",
)
@click.option("--queue-size", type=click.IntRange(1), help="The most requests that may wait.")
@click.option("--timeout", type=SECONDS, help="The time that a request has, as 2s.")
@served_model
@click.option(
    "--show-images",
    is_flag=True,
    help="Show the last six images that clients sent, with detections, on the page to everybody.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1),
    help="Serve with so many processes through Ray Serve, each with a GPU where there are any.",
)
@click.option(
    "--max-replicas",
    type=click.IntRange(1),
    help="With --replicas, start more, up to this number, where requests wait.",
)
@click.option(
    "--gpus-per-replica",
    type=click.FloatRange(0),
    help="With --replicas, the GPUs of each, as 0.5; by default 1 where there are any.",
)
@click.option(
    "--no-surge",
    "surge",
    is_flag=True,
    default=True,
    flag_value=False,
    help="With --replicas, let an update stop a replica before it starts another in its place, for "
    "which no GPU is free.",
)
def serve(path: Path, host: str, port: int, **given: Any) -> None:
    """Serve a file that was saved with weights, over HTTP.

    It answers the example in the file first, and refuses a file whose answer has changed. SIGTERM
    and Ctrl-C end it, after it has answered what it accepted: the exit status is then 0, 1 if it
    could not answer all or its device failed, and 2 if it could not start. With --replicas, SIGHUP
    replaces the replicas by others that load the file as it is then, without losing a request.
    """
    replicas = {name: given.pop(name) for name in ("max_replicas", "gpus_per_replica", "surge")}
    count = given.pop("replicas")
    if count is not None:
        _serve_replicas(path, host, port, {"replicas": count, **replicas}, given)
        return
    if replicas != {"max_replicas": None, "gpus_per_replica": None, "surge": True}:
        raise click.UsageError(
            "--max-replicas, --gpus-per-replica and --no-surge go with --replicas"
        )
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


def _serve_replicas(
    path: Path, host: str, port: int, replicas: dict[str, Any], given: dict[str, Any]
) -> None:
    from ..serving.ray_app import RayOptions
    from ..serving.ray_main import serve_with_ray
    from ..serving.serve_options import ServeOptions

    gpus = replicas.pop("gpus_per_replica")
    asked = ServeOptions(path=str(path), **given)
    _listening(host, port).close()  # Ray itself would only write to a log that it is taken.
    serve_with_ray(asked, RayOptions(gpus=gpus, **replicas), host, port, click.echo)


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
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ServingError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
