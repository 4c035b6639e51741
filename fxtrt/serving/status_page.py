"""Shows a server's state on a page: health, latency and, if wanted, the last detections."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from ..errors import ProtocolError, ServingError
from .recent_images import RecentImages
from .server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["StatusPage", "status_of"]

_SETTINGS = ("workers", "max_batch", "max_delay", "queue_size", "timeout")
_METRIC = "fxtrt_inference_"


class StatusPage:
    """The endpoints of the page, which loads nothing from elsewhere."""

    def __init__(self, server: Server, recent: RecentImages) -> None:
        self._server = server
        self._recent = recent

    def routes(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        """Return the endpoints by path."""
        return {"/": self.page, "/status": self.status, "/recent/{number:int}.jpg": self.image}

    async def page(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse

        text, policy = _page()
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(text, headers=headers)

    async def status(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        state = status_of(self._server) | {"images": self._recent.listed()}
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    async def image(self, request: Request) -> Response:
        from starlette.responses import Response

        data = self._recent.jpeg(request.path_params["number"])
        if data is None:
            raise ProtocolError("this image is not kept any more", 404)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


def status_of(server: Server) -> dict[str, Any]:
    """Return the state of a server as JSON values.

    `counts` and `latency`, the numbers of requests by upper bound in seconds, are None without
    prometheus-client.
    """
    settings = {name: getattr(server.settings, name) for name in _SETTINGS}
    state = {"name": server.settings.name, "health": asdict(server.health()), "settings": settings}
    try:
        text = server.metrics().decode()
    except ServingError:
        return state | {"counts": None, "latency": None}
    return state | _from_metrics(text)


def _from_metrics(text: str) -> dict[str, Any]:
    from prometheus_client.parser import text_string_to_metric_families

    counts = {"answered": 0.0, "images": 0.0, "runs": 0.0}
    names = {"request_success": "answered", "count": "images", "exec_count": "runs"}
    failures: dict[str, float] = {}
    buckets: list[tuple[str, float]] = []
    for family in text_string_to_metric_families(text):
        end = family.name.removeprefix(_METRIC)
        for sample in family.samples:
            if end in names and sample.name.endswith("_total"):
                counts[names[end]] = sample.value
            elif end == "request_failure" and sample.name.endswith("_total"):
                failures[sample.labels["reason"]] = sample.value
            elif end == "request_seconds" and sample.name.endswith("_bucket"):
                buckets.append((sample.labels["le"], sample.value))
    below = [0.0, *(value for _, value in buckets)]
    latency = [
        [bound, value - before] for (bound, value), before in zip(buckets, below, strict=False)
    ]
    return {"counts": counts | {"failures": failures}, "latency": latency}


@cache
def _page() -> tuple[str, str]:
    """Return the page, and the policy that lets nothing run on it but its own script."""
    here = files("fxtrt.serving")
    script = here.joinpath("page.js").read_text(encoding="utf-8")
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    page = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    allowed = f"script-src {_hash(script)}; style-src {_hash(style)}"
    policy = f"default-src 'none'; {allowed}; img-src 'self' data:; connect-src 'self'; "
    policy += "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return page.substitute(script=script, style=style), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
