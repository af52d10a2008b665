"""The server's application: the protocols that existing clients know, around one service.

    Vosk, OpenAI, Deepgram, Wyoming, the demo ──► Service (slots, limits) ──► BatchRunner ──► model
    AccessMiddleware: token, origin, size of every request          Metrics: for Prometheus

Everything but the model runs on one event loop. The model and the second passes have threads of their own (`batching`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from asr import __version__
from asr.errors import RillError
from asr.inference.recognizer import Recognizer
from asr.server import deepgram, deepgram_recordings, openai, realtime, vosk
from asr.server.access import AccessMiddleware
from asr.server.background import BackgroundPart
from asr.server.capacity import CapacityMiddleware
from asr.server.origins import OriginMiddleware
from asr.server.recordings import UploadMiddleware
from asr.server.responses import ErrorAnswer, error_response
from asr.server.service import Busy, Service, SessionSlot

DEMO_PATH = "/demo"
TAGS = [
    {
        "name": "OpenAI's API",
        "description": "For programs that use OpenAI's transcription API: set their "
        "`base_url` to this server's address and `/v1`.",
    },
    {"name": "The server itself", "description": "For operators."},
]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "model": ErrorAnswer}
    for status, description in {
        400: "The request cannot be understood.",
        401: "The server wants a bearer token.",
        403: "The server does not know the host, or the page that asks.",
        404: "There is no such path.",
        405: "The path has no such method; the header `Allow` names those that it has.",
        408: "The request came too slowly.",
        503: "The server has no room now: try again later.",
    }.items()
}
EXPECTED = {"float_parsing": "a number", "bool_parsing": "true or false"}  # by Pydantic's name of the error
DESCRIPTION = """
Speech to text: recordings through OpenAI's API below, live speech through Vosk's WebSocket protocol.

**Live**, at `/ws` (or `/`): send `{"config": {"sample_rate": 16000}}`, then mono 16-bit PCM, little-endian, in binary
messages of any length. Each of them has one answer: `{"partial": "…"}`, or `{"text": "…", "result": [{"word": "…",
"start": 0.5, "end": 0.9, "conf": 0.97}]}` where an utterance ended. Send `{"eof": 1}` at the end of the stream: the
last final comes, and the connection closes. The config has two more keys: `words` (default true) says whether finals
have a `result`; the phrases of `phrase_list` become more likely, and all other words remain possible.

Where the server ends a session, its close frame says why. 1001: the server is shutting down; 1007: the server does not
understand a message; 1008: the client is idle for too long, or the session lasts too long; 1009: a message is too
large; 1013: the server has no room, try again later. Before 1001 and 1008 the server sends the last final.

Where the server wants a token, every request needs it: `Authorization: Bearer TOKEN`.
"""


class MountDemo(Protocol):
    """Adds the demo's page to an application, at a path."""

    def __call__(
        self,
        app: FastAPI,
        recognizer: Recognizer,
        path: str,
        *,
        open_slot: Callable[[], AbstractContextManager[SessionSlot]],
        open_upload: Callable[[], AbstractContextManager[None]],
        files: int,
        max_seconds: float,
        max_upload_bytes: int,
    ) -> None:
        """`open_slot` is for a live session, `open_upload` for a recording, `files` of which at the same time."""


def create_app(service: Service, tokens: Sequence[bytes] = (), mount_demo: MountDemo | None = None) -> FastAPI:
    """The application, with the demo's page where there is one. Browsers send no tokens with a page's requests: where
    there are tokens, the page cannot work."""

    options = service.options

    def load_demo() -> FastAPI:
        assert mount_demo
        part = FastAPI(openapi_url=None)
        mount_demo(
            part,
            service.recognizer,
            DEMO_PATH,
            open_slot=lambda: service.slot("demo"),
            open_upload=service.upload,
            files=options.uploads,
            max_seconds=options.session_s,
            max_upload_bytes=options.upload_bytes,
        )
        return part

    demo = BackgroundPart(load_demo, DEMO_PATH, "/favicon.ico")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.watch())]
        if mount_demo:
            tasks.append(asyncio.create_task(demo.run()))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.to_thread(service.batcher.close)

    app = FastAPIOffline(
        redoc_url=None,
        title="Rill",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        responses=ERRORS,
        exception_handlers={HTTPException: _on_error, RequestValidationError: _on_error, RillError: _on_error},
    )
    app.include_router(openai.router(service))
    for protocol in (vosk, realtime, deepgram, deepgram_recordings):
        app.router.routes.extend(protocol.routes(service))

    @app.get(
        "/health",
        tags=["The server itself"],
        summary="Whether the server accepts clients",
        responses={503: {"description": "It is shutting down."}},
    )
    async def health() -> Response:
        """Never wants a token. `sessions` are the live sessions open now, `places` the most that may be."""
        status = "closing" if service.closing else "ok"
        model = service.recognizer.engine.checkpoint.config.name
        return JSONResponse(
            {
                "status": status,
                "version": __version__,
                "model": model,
                "sessions": len(service.slots),
                "places": service.options.sessions,
            },
            503 if service.closing else 200,
        )

    @app.get(
        "/metrics",
        tags=["The server itself"],
        summary="Counts and measures, for Prometheus",
        response_class=Response,  # errors are JSON
        responses={200: {"description": "A line for each number.", "content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        """Sessions, refusals, seconds of audio, the model's work and delay, and the time from the end of speech to its
        final text."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    app.add_middleware(demo)
    app.add_middleware(UploadMiddleware, service=service, paths=(openai.PATH, deepgram.PATH))
    # A page cannot know the token, whatever name it uses.
    app.add_middleware(OriginMiddleware, hosts=("*",) if tokens else options.allow_host, origins=options.cors)
    app.add_middleware(AccessMiddleware, options=options, tokens=tokens, metrics=service.metrics)
    app.add_middleware(CapacityMiddleware, sessions=options.sessions)
    if options.cors:
        app.add_middleware(CORSMiddleware, allow_origins=options.cors, allow_methods=["*"], allow_headers=["*"])
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, without the status 422 that `_on_error` turns into 400."""
    page = type(app).openapi(app)
    for methods in page["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
    for unused in ("HTTPValidationError", "ValidationError"):
        page["components"]["schemas"].pop(unused, None)
    return page


async def _on_error(request: Request, error: Exception) -> Response:
    """Every error in one shape; see `error_response`."""
    if isinstance(error, HTTPException):
        message = str(error.detail)
        if message in ("Not Found", "Method Not Allowed"):  # Starlette's own
            message = f"This server has no {request.method} {request.url.path:.100}: /docs shows what it has."
        return error_response(error.status_code, message, getattr(error, "code", None), error.headers)
    if isinstance(error, RequestValidationError):
        return error_response(400, _sentence(error.errors()[0]))
    return error_response(503 if isinstance(error, Busy) else 400, str(error))


def _sentence(error: dict[str, Any]) -> str:
    """What Pydantic says of a parameter, as people would."""
    name, given = str(error["loc"][1]), error.get("input")
    if error["type"] == "missing":
        return f"The request has no '{name}': send it as a field of a form (multipart/form-data)."
    wanted = EXPECTED.get(error["type"]) or error.get("ctx", {}).get("expected") or "a file"
    return f"'{name}' must be {wanted}, not '{given!s:.60}'."
