"""Offers a server over HTTP: the Open Inference Protocol v2, `POST /detect`, health and metrics."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CallError, FxtrtError, ProtocolError, ServingError
from .decode import Decoder, ImageLimits
from .detections import as_json, outputs_of
from .intake import Intake, IntakeLimits, unless_gone
from .protocol import DATATYPES, read_request, write_reply
from .recent_images import RecentImages
from .server import Server
from .status_page import StatusPage

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["HttpSettings", "create_app", "unit_range"]

log = logging.getLogger(__name__)

_HEADER_LENGTH = "Inference-Header-Content-Length"
_RETRY_SECONDS = 1.0
_FILES = ("image/jpeg", "image/png", "application/octet-stream", "")
_TENSORS = ("application/json", "application/octet-stream", "")

Endpoint = Callable[["Request"], Awaitable["Response"]]


def unit_range(image: Tensor) -> Tensor:
    """Return the pixels of a file as float32 from 0 to 1; other dtypes stay as they are."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Limits of an HTTP server, and the conversion of images.

    intake:         limits of requests and their bodies.
    image:          limits of images.
    prepare:        makes the model's input of a (3, H, W) tensor: uint8 from a file, or as a client
                    has sent it. By default uint8 becomes float32 from 0 to 1, for torchvision.
    decode_threads: the threads that decode and prepare images.
    recent_images:  how many of the last images the page shows, to everybody who can reach it.
    """

    intake: IntakeLimits = field(default_factory=IntakeLimits)
    image: ImageLimits = field(default_factory=ImageLimits)
    prepare: Callable[[Tensor], Any] = unit_range
    decode_threads: int = 4
    recent_images: int = 0


def create_app(server: Server, settings: HttpSettings | None = None) -> Starlette:
    """Return an ASGI application over `server`, which it does not close.

    Raises:
        ServingError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ImportError as error:
        raise ServingError('HTTP needs starlette: pip install "fxtrt[serve]"') from error
    settings = HttpSettings() if settings is None else settings
    recent = RecentImages(settings.recent_images)
    pages = _Pages(server, settings, recent)
    gets = {
        **StatusPage(server, recent).routes(),
        "/v2": pages.about,
        "/v2/health/live": pages.live,
        "/v2/health/ready": pages.ready,
        "/v2/models/{model}": pages.about_model,
        "/v2/models/{model}/config": pages.config,
        "/v2/models/{model}/ready": pages.model_ready,
        "/metrics": pages.metrics,
    }
    posts = {"/detect": pages.detect, "/v2/models/{model}/infer": pages.infer}
    posts["/v2/repository/index"] = pages.index
    routes = []
    for method, endpoints in (("GET", gets), ("POST", posts)):
        for path, endpoint in endpoints.items():
            safe = _answering_errors(endpoint)
            routes.append(Route(path, safe, methods=[method]))
            versioned = path.replace("{model}", "{model}/versions/{version}")
            if versioned != path:
                routes.append(Route(versioned, safe, methods=[method]))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(pages.close)

    return Starlette(
        routes=routes, exception_handlers={HTTPException: _http_error}, lifespan=lifespan
    )


class _Pages:
    """The endpoints. Images are read, decoded and prepared in the decoder's threads."""

    def __init__(self, server: Server, settings: HttpSettings, recent: RecentImages) -> None:
        self._server = server
        self._settings = settings
        self._recent = recent
        self._intake = Intake(settings.intake)
        self._decoder = Decoder(
            threads=settings.decode_threads,
            most_waiting=settings.intake.requests,
            limits=settings.image,
            device=server.settings.device,
        )
        self._outputs: list[dict[str, Any]] = []

    def close(self) -> None:
        """End the threads that decode."""
        self._decoder.close()

    async def about(self, request: Request) -> Response:
        version = importlib.metadata.version("fxtrt")
        return _json({"name": "fxtrt", "version": version, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        return _json({"live": self._server.live}, 200 if self._server.live else 503)

    async def ready(self, request: Request) -> Response:
        return _json({"ready": self._server.ready}, 200 if self._server.ready else 503)

    async def model_ready(self, request: Request) -> Response:
        self._require_model(request)
        return await self.ready(request)

    async def about_model(self, request: Request) -> Response:
        name = self._require_model(request)
        image = {"name": "image", "datatype": "UINT8", "shape": [3, -1, -1]}
        return _json(
            {
                "name": name,
                "versions": ["1"],
                "platform": "fxtrt",
                "inputs": [image],
                "outputs": self._outputs,
            }
        )

    async def config(self, request: Request) -> Response:
        name = self._require_model(request)
        image = {"name": "image", "data_type": "TYPE_UINT8", "dims": [3, -1, -1]}
        outputs = [
            {"name": one["name"], "data_type": f"TYPE_{one['datatype']}", "dims": one["shape"]}
            for one in self._outputs
        ]
        return _json({"name": name, "max_batch_size": 0, "input": [image], "output": outputs})

    async def index(self, request: Request) -> Response:
        state = "READY" if self._server.ready else "UNAVAILABLE"
        return _json([{"name": self._server.settings.name, "version": "1", "state": state}])

    async def metrics(self, request: Request) -> Response:
        from starlette.responses import Response

        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self._server.metrics(), media_type=kind)

    async def detect(self, request: Request) -> Response:
        """Answer an image file with JSON; `?min_score=0.5` leaves out what scores less."""
        _require_type(request, _FILES)
        least = _score(request.query_params.get("min_score", "0"))
        async with self._intake.body_of(request) as body:
            answer = await unless_gone(request, self._answer(body, None))
        return _json(await self._decoder.run(as_json, answer, least))

    async def infer(self, request: Request) -> Response:
        from starlette.responses import Response

        name = self._require_model(request)
        _require_type(request, _TENSORS)
        length = _header_length(request)
        async with self._intake.body_of(request) as body:
            most = self._settings.image.pixels
            asked = await self._decoder.run(read_request, body, length, most)
            answer = await unless_gone(request, self._answer(asked.image, asked.timeout))
        outputs = outputs_of(answer)
        self._note_outputs(outputs)
        body, length = await self._decoder.run(write_reply, asked, name, outputs)
        if length is None:
            return Response(body, media_type="application/json")
        headers = {_HEADER_LENGTH: str(length)}
        return Response(body, media_type="application/octet-stream", headers=headers)

    async def _answer(self, image: Tensor | bytes, timeout: float | None) -> Any:
        if isinstance(image, bytes):
            image = await self._decoder.decode(image)
        prepared = await self._decoder.run(self._prepare, image)
        own = self._server.settings.timeout
        answer = await self._server.infer(prepared, timeout=min(own, timeout or own))
        if image.dtype == torch.uint8 and self._recent.is_due():
            await self._keep(image, answer)
        return answer

    async def _keep(self, image: Tensor, answer: Any) -> None:
        """Keep an image for the page, which is not worth the loss of an answer."""
        try:
            await self._decoder.run(self._recent.keep, image, answer)
        except Exception as error:
            log.warning("an image is not shown on the page: %r", error)

    def _prepare(self, image: Tensor) -> Any:
        device = self._server.settings.device
        return self._settings.prepare(image if device is None else image.to(device))

    def _require_model(self, request: Request) -> str:
        name = self._server.settings.name
        asked, version = request.path_params["model"], request.path_params.get("version", "1")
        if (asked, version) != (name, "1"):
            raise ProtocolError(f"there is no model {asked!r} of version {version!r}", 404)
        return name

    def _note_outputs(self, outputs: dict[str, Any]) -> None:
        """Learn the model's outputs from an answer, for those who ask what it has."""
        if not self._outputs:
            self._outputs = [_described(name, value) for name, value in outputs.items()]


def _described(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Tensor):
        return {"name": name, "datatype": "BYTES", "shape": [1]}
    return {"name": name, "datatype": DATATYPES[value.dtype], "shape": [-1] * value.ndim}


def _answering_errors(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint answer errors with their status, whatever they are."""
    from starlette.requests import ClientDisconnect

    @wraps(endpoint)
    async def safe(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ServingError as error:
            return _error(str(error), error.status, getattr(error, "retry_after", _RETRY_SECONDS))
        except ClientDisconnect:
            return _error("the client is gone", 400)
        except CallError as error:  # as for an image that is larger than the model takes
            return _error(str(error), 400)
        except FxtrtError as error:
            return _error(f"{type(error).__name__}: {error}", 500)
        except Exception as error:
            log.exception("a request over HTTP failed")
            return _error(f"the model failed: {type(error).__name__}: {error}", 500)

    return safe


async def _http_error(request: Request, error: Any) -> Response:
    return _error(str(error.detail), error.status_code)


def _error(message: str, status: int, retry_after: float = _RETRY_SECONDS) -> Response:
    response = _json({"error": message}, status)
    if status == 503:
        response.headers["Retry-After"] = str(math.ceil(retry_after))
    return response


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(value, status)


def _require_type(request: Request, allowed: tuple[str, ...]) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in allowed:
        raise ProtocolError(f"the content type {kind!r} is none of {', '.join(allowed[:-1])}", 415)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProtocolError("compressed bodies are not supported", 415)


def _header_length(request: Request) -> int | None:
    text = request.headers.get(_HEADER_LENGTH)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 12:
        raise ProtocolError(f"{_HEADER_LENGTH} must be a number of bytes, not {text!r}")
    return int(text)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0.0 <= score <= 1.0:
        raise ProtocolError(f"min_score must be from 0 to 1, not {text!r}")
    return score
