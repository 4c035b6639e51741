"""Serves a file with several processes, on as many GPUs, through Ray Serve."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact.archive import ArtifactFile
from ..artifact.manifest import Manifest
from ..errors import ArtifactError, ServingError, SettingsError
from ..serialization.typed_json import typed
from .http import create_app
from .serve_options import ServeOptions
from .served_file import ServedFile
from .server import Server

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.applications import Starlette

__all__ = ["APP", "RayOptions", "Replica", "application", "deploy", "start", "stop"]

APP = "fxtrt"
"""The name of the application in Ray Serve."""
_QUEUE = 256
_TIMEOUT = 30.0
"""What `Server` takes for these if nothing else is said."""
_ROWS = 8
"""How many images a model that is no detector is expected to take at once."""
_LATER = 5.0
"""How much longer Ray waits for a request than the server in the replica does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """How many replicas there are, and of what size.

    replicas:     how many there are, or the fewest.
    max_replicas: the most, which are started where requests wait. None keeps their number.
    gpus:         of each; None takes 1 where Ray has GPUs, else 0.
    surge:        whether an update starts a new replica before it stops an old one. That takes the
                  GPU of one more replica for a while. Without it, an update stops first.
    """

    replicas: int = 1
    max_replicas: int | None = None
    gpus: float | None = None
    surge: bool = True

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise SettingsError(f"replicas must be 1 or more, not {self.replicas}")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise SettingsError(
                f"max_replicas must be replicas, {self.replicas}, or more, not {self.max_replicas}"
            )


class Replica:
    """A process with a `Server`, whose HTTP application Ray's proxy calls.

    A subclass may put code of its own around the model in `opened`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        """Open the file as `ServeOptions` says, answer its example, and warm up."""
        self._options = ServeOptions(**options)
        self._served = self.opened(self._options)
        self.server: Server = self._options.server(self._served)

    def opened(self, options: ServeOptions) -> ServedFile:
        """Return the model that the server calls."""
        return options.open()

    def __serve_build_asgi_app__(self) -> Starlette:
        return create_app(self.server, self._options.http(self._served))

    def check_health(self) -> None:
        """Let Ray replace the replica if its device or threads have failed.

        Raises:
            ServingError: they have.
        """
        if not self.server.live:
            raise ServingError("the server of this replica needs a new process")

    async def __del__(self) -> None:
        """Answer what was accepted, before Ray ends the process."""
        await asyncio.to_thread(self.server.close)


def application(
    options: ServeOptions, ray: RayOptions, replica: type[Replica] = Replica
) -> Application:
    """Return the application for `ray.serve.run`; `options.path` must be there on every node.

    Ray's proxy gives a replica up to two batches for each slot. Further requests wait in the proxy,
    as many as `queue_size` says, and the next ones get 503 with Retry-After.

    Raises:
        ServingError: Ray Serve is not installed.
        ArtifactError: the file is damaged, or does not serve alone.
    """
    serve = _ray_serve()
    at_once = _images_at_once(options)
    timeout = options.timeout or _TIMEOUT
    count: dict[str, Any] = {"num_replicas": ray.replicas}
    if ray.max_replicas is not None:
        count = {
            "autoscaling_config": {
                "min_replicas": ray.replicas,
                "max_replicas": ray.max_replicas,
                "target_ongoing_requests": at_once,
            }
        }
    deployment = serve.deployment(
        serve.ingress()(replica),
        name=options.model_name,
        ray_actor_options={"num_cpus": 0, "num_gpus": _gpus(ray)},
        max_ongoing_requests=2 * at_once,
        max_queued_requests=options.queue_size or _QUEUE,
        backpressure_config={"retry_after_s": 1.0},
        graceful_shutdown_timeout_s=timeout + _LATER,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5.0,
        max_constructor_retry_count=1,
        max_surge_percent=max(1, 100 // ray.replicas) if ray.surge else 0,
        **count,
    )
    bound: Application = deployment.bind(_there(options))
    return bound


def start(host: str, port: int, timeout: float | None = None, **options: Any) -> None:
    """Start Ray with its HTTP proxy in this process's machine, or join that of RAY_ADDRESS.

    Args:
        timeout: the seconds that a request has in a server.
        options: further arguments of `ray.init`.
    """
    serve = _ray_serve()
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_ADDRESS" not in os.environ:
        options = {"address": "local", "include_dashboard": False, **options}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(log_to_driver=False, logging_level="error", **options)
    seconds = (timeout or _TIMEOUT) + _LATER
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port, "request_timeout_s": seconds},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )


def deploy(options: ServeOptions, ray: RayOptions, replica: type[Replica] = Replica) -> None:
    """Start the replicas, or replace those that run, one after the other, by new ones.

    Requests go on being answered meanwhile. With `surge`, a process besides the replicas opens the
    file before any is replaced: Ray (2.60) takes a deployment out of service whose new replicas do
    not start.

    Raises:
        ServingError: the replicas did not start, and with `surge` those that ran still do.
    """
    serve = _ray_serve()
    app = application(options, ray, replica)
    if ray.surge and APP in serve.status().applications:
        _try_elsewhere(options, ray)
    try:
        serve.run(app, name=APP, route_prefix="/")
    except RuntimeError as error:
        # The replicas' own error has a trace of many lines, and the last of them says it.
        raise ServingError(f"the replicas did not start: {_why(serve) or error}") from error


def _try_elsewhere(options: ServeOptions, ray_options: RayOptions) -> None:
    import ray

    there = _there(options)
    task = ray.remote(num_cpus=0, num_gpus=_gpus(ray_options), max_retries=0)(_opened)
    try:
        ray.get(task.remote(there))
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ServingError(f"the replicas are not replaced: {lines[-1]}") from error


def _opened(options: dict[str, Any]) -> None:
    ServeOptions(**options).open()


def _there(options: ServeOptions) -> dict[str, Any]:
    """Return the options for other processes, whose folders are others."""
    path = str(Path(options.path).absolute())
    return asdict(options) | {"path": path, "name": options.model_name}


def _why(serve: Any) -> str:
    """Return what Ray says of the deployment, on one line."""
    deployments = serve.status().applications[APP].deployments.values()
    lines = [line for one in deployments for line in one.message.splitlines() if line.strip()]
    raised = [line.strip() for line in lines if "fxtrt.errors." in line]
    return raised[-1] if raised else " ".join(map(str.strip, lines))[:500]


def stop() -> None:
    """Answer what was accepted, and end Ray Serve; and Ray, if this process has started it."""
    serve = _ray_serve()
    import ray

    if not ray.is_initialized():
        return
    try:
        if APP in serve.status().applications:
            serve.delete(APP)
        if "RAY_ADDRESS" not in os.environ:
            serve.shutdown()
    finally:
        # A reference of Ray's that is collected after its end, in any thread, ends the process.
        gc.collect()
        ray.shutdown()


def _images_at_once(options: ServeOptions) -> int:
    """Return how many images a server of the file has in its model at once, as far as it says."""
    with ArtifactFile(Path(options.path)) as file:
        manifest = typed(file.manifest, Manifest, f"the manifest of {options.path}")
    if manifest["alone"] is None:
        raise ArtifactError(f"{options.path} has no weights: save it with weights=True")
    settings = manifest["settings"]
    is_core = any(part["core"] for part in manifest["parts"])
    known = {
        "slots": settings["slots"],
        "max_batch": settings["most_images"] if is_core else _ROWS,
        **options.chosen("slots", "max_batch"),
    }
    return int((options.slots or known["slots"]) * (options.max_batch or known["max_batch"]))


def _gpus(ray_options: RayOptions) -> float:
    if ray_options.gpus is not None:
        return ray_options.gpus
    import ray

    return 1.0 if ray.is_initialized() and ray.cluster_resources().get("GPU") else 0.0


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise ServingError('replicas need Ray Serve: pip install "fxtrt[ray]"') from error
    return serve
