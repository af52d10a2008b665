"""`asr serve`: one process, one model, many speakers, through the doors that existing clients know.

    vosk_door, openai_door, the browser demo ──► service (places, limits) ──► batching ──► model
    gate: token, origin, size of all that comes in        metrics: what Prometheus asks for

Everything but the model runs on one event loop; the model and the second passes have threads of their own (`batching`).
"""
from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from asr import __version__
from asr.errors import RillError
from asr.inference.recognizer import Recognizer
from asr.model.hardware import cores
from asr.server import openai, vosk
from asr.server.access import Gate, read_tokens, refusal
from asr.server.service import Busy, Limits, Service

PORT = 2700  # Vosk server's
SWITCH_INTERVAL = 0.0005  # seconds after which Python lets another thread on, so that the model waits for it less
PING, PONG = 20.0, 120.0  # seconds between pings of a WebSocket, and in which an answer must come: that of a client who
# sends ahead waits behind all the sound that is not recognised yet
HANDSHAKE = 10.0  # seconds in which a connection must have asked for something
DEAD_AFTER = 30_000  # milliseconds after which a connection is closed whose other end takes nothing
CONNECTIONS = 100  # beside four for each place: pages of the demo load many files at once
TAGS = [{"name": "OpenAI's API", "description": "What programs for OpenAI's transcription API ask for: set their "
                                                "`base_url` to this server's address and `/v1`."},
        {"name": "The server itself", "description": "For those who run it."}]
DESCRIPTION = """
Speech to text: recordings through OpenAI's API below, live speech through Vosk's WebSocket protocol.

**Live**, at `/ws` (or `/`): send `{"config": {"sample_rate": 16000}}`, then mono 16-bit PCM, little-endian, in binary
messages of any length, and receive one answer to each: `{"partial": "…"}`, or `{"text": "…", "result": [{"word": "…",
"start": 0.5, "end": 0.9, "conf": 0.97}]}` where an utterance has ended. `{"eof": 1}` ends the recording: the last words
come, and the connection closes. Of the config's other keys `words` (default true) says whether finals have a `result`,
and the phrases of `phrase_list` are expected: they become more likely, and everything else remains possible.

A connection that ends otherwise is closed with a reason. 1001: the server is shutting down; 1007: the message is not
understood; 1008: the client is silent for too long, or the session lasts too long; 1009: the message is too large;
1013: all places are taken, try again later. At 1001 and 1008 the last words come before.

Where the server wants a token, every request bears it: `Authorization: Bearer TOKEN`.
"""


@dataclass(frozen=True)
class Settings:
    """How the server is reached, and by whom."""

    host: str = "127.0.0.1"
    port: int = PORT
    token_file: Path | None = None
    cors: tuple[str, ...] = ()  # origins of pages that may use it from elsewhere
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    demo: bool = True


def run(recognizer: Callable[[], Recognizer], limits: Limits, settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises RillError where address, certificate, tokens or model cannot be used."""
    torch.set_num_threads(max(1, cores() // 2))  # so many recordings' batches at once, beside live speech
    sys.setswitchinterval(SWITCH_INTERVAL)
    tokens = read_tokens(settings.token_file)
    _check_certificate(settings)
    with closing(listen(settings.host, settings.port)) as listener:
        service = Service(recognizer(), limits)
        torch.set_num_threads(1)  # batches share the cores better than threads inside one batch
        scheme, (host, port, *_) = "https" if settings.ssl_certfile else "http", listener.getsockname()
        here = f"//{host}:{port}"
        demo = f", demo {scheme}:{here}/demo" if settings.demo and not tokens else ""
        welcome = (f"Serving {limits.sessions} speakers: Vosk's protocol ws{scheme[4:]}:{here}/ws, OpenAI's API "
                   f"{scheme}:{here}/v1{demo}. Ctrl-C ends.")
        app = create_app(service, settings, tokens)
        gc.collect()
        gc.freeze()  # what is loaded now stays: looking through it for garbage would hold everybody up
        Server(app, service, settings, welcome).run(sockets=[listener])


def create_app(service: Service, settings: Settings, tokens: Sequence[bytes] = ()) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch())
        yield
        watching.cancel()
        await asyncio.to_thread(service.batcher.close)

    app = FastAPIOffline(redoc_url=None, title="Rill", version=__version__, description=DESCRIPTION, openapi_tags=TAGS,
                         lifespan=lifespan, exception_handlers={
                             HTTPException: _refuse, RequestValidationError: _refuse, RillError: _refuse})
    app.include_router(openai.router(service))
    app.router.routes.extend(vosk.routes(service))

    @app.get("/health", tags=["The server itself"], summary="Whether it serves",
             responses={503: {"description": "It is shutting down."}})
    async def health() -> Response:
        """Never wants a token. `sessions` are the speakers connected now, `places` those that there is room for."""
        status = "closing" if service.closing else "ok"
        model = service.recognizer.checkpoint.config.name
        return JSONResponse({"status": status, "version": __version__, "model": model,
                             "sessions": len(service.places), "places": service.limits.sessions},
                            503 if service.closing else 200)

    @app.get("/metrics", tags=["The server itself"], summary="Counts and measures, for Prometheus",
             response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Sessions, refusals, sound recognised, what the model does and how long it takes, and the time from the end
        of speech to its final text."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    if settings.demo and not tokens:  # a page in a browser cannot send a token
        from asr.demo import page

        page.mount(app, service.recognizer, "/demo", lambda: service.place("demo"), service.metrics.demo)
    app.add_middleware(openai.Room, service=service)
    app.add_middleware(Gate, limits=service.limits, tokens=tokens, origins=settings.cors)
    if settings.cors:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors, allow_methods=["*"], allow_headers=["*"])
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """Every error in one shape; see `gate.refusal`."""
    if isinstance(error, HTTPException):
        return refusal(error.status_code, str(error.detail), getattr(error, "code", None))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return refusal(400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}.")
    return refusal(503 if isinstance(error, Busy) else 400, str(error))


class Server(uvicorn.Server):
    """Uvicorn, which says `welcome` once it can be reached. At SIGTERM and Ctrl-C everybody's last words become final
    first; a second signal does not wait for them."""

    def __init__(self, app: FastAPI, service: Service, settings: Settings, welcome: str) -> None:
        limits = service.limits
        super().__init__(uvicorn.Config(
            app, http=PromptHTTP, ws="websockets-sansio", ws_max_size=limits.message, ws_per_message_deflate=False,
            ws_ping_interval=PING, ws_ping_timeout=PONG, limit_concurrency=4 * limits.sessions + CONNECTIONS,
            timeout_graceful_shutdown=5, log_level="warning", access_log=False, server_header=False,
            ssl_certfile=settings.ssl_certfile, ssl_keyfile=settings.ssl_keyfile))
        self.service, self.welcome = service, welcome
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        print(self.welcome, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.loop is None or self.service.closing:
            super().handle_exit(sig, frame)
        else:
            self.loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        """On the event loop: as SIGTERM."""
        self.leaving = asyncio.ensure_future(self.service.close())
        self.leaving.add_done_callback(lambda _: setattr(self, "should_exit", True))


class PromptHTTP(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection on which nothing is asked for, or a question is begun and not ended."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._look_later()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look_later(self) -> None:
        self.loop.call_later(HANDSHAKE, self._look, self.cycle, self._idle)

    def _look(self, request: object, idle: bool) -> None:
        """`request` is the newest one, or none, that there was the last time, and `idle` whether nothing was asked."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # it is a WebSocket's now
            return
        if idle and self._idle and self.cycle is request:
            self.transport.close()
        else:
            self._look_later()


def listen(host: str, port: int) -> socket.socket:
    """A socket that notices peers which have vanished, or read nothing. Raises RillError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit all three
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise RillError(f"Port {port} of '{host}' cannot be used ({error.args[-1]}): choose another with --port, "
                        f"or stop the program that holds it.") from error
    return listener


def _check_certificate(settings: Settings) -> None:
    if bool(settings.ssl_certfile) != bool(settings.ssl_keyfile):
        raise RillError("--ssl-certfile and --ssl-keyfile go together: give both, or neither.")
    if settings.ssl_certfile:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
        except OSError as error:  # ssl.SSLError is one
            raise RillError(f"{settings.ssl_certfile} and {settings.ssl_keyfile} cannot be used ({error.strerror}): "
                            f"give a certificate and its key as PEM files.") from error
