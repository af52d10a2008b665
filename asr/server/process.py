"""`asr serve`: one process that serves the application with Uvicorn, from its start to its orderly end."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from importlib.util import find_spec
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from asr.errors import RillError
from asr.inference.recognizer import Recognizer
from asr.model.hardware import set_threads
from asr.server.access import read_tokens
from asr.server.application import DEMO_PATH, MountDemo, create_app
from asr.server.listening import is_local, listen
from asr.server.options import ServeOptions
from asr.server.service import Service

SWITCH_INTERVAL_S = 0.0005  # after which Python lets another thread run, so that the model waits less for it
PING_INTERVAL_S = 20.0  # of WebSockets
PONG_TIMEOUT_S = 120.0  # a pong of a client that sends too fast waits behind all its audio
REQUEST_TIMEOUT_S = 10.0  # in which a connection must have sent a request
MAX_IDLE_CONNECTIONS = 50  # of one address, without a request; of more, the oldest are closed
SHUTDOWN_TIMEOUT_S = 5  # for connections that remain when all sessions have ended


def run_server(
    load: Callable[[], Recognizer],
    options: ServeOptions,
    listener: socket.socket,
    on_ready: Callable[[str], None],
    mount_demo: MountDemo | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        load: gives the recognizer, once the files of the options are known to be usable.
        listener: where to serve: see `listen`. Its owner closes it.
        on_ready: called with one line that names the addresses, once clients can connect.
        mount_demo: see `create_app`; not used where there are tokens.

    Raises RillError where address, certificate, tokens or model cannot be used.
    """
    set_threads(1)  # batches share the cores better than threads inside one batch
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tokens = read_tokens(options.token_file)
    _check_certificate(options)
    options = options.model_copy(update={"allow_host": (*options.allow_host, options.host)})
    with ExitStack() as sockets:
        if not (tokens or options.no_token or is_local(listener)):
            raise RillError(
                f"At --host {options.host} other computers reach the server: give --token-file FILE, or "
                f"--no-token to let all of them use it."
            )
        wyoming = sockets.enter_context(closing(_listen_for_wyoming(options))) if options.wyoming else None
        service = Service(load(), options)
        if tokens:
            mount_demo = None
        app = create_app(service, tokens, mount_demo)
        gc.collect()
        gc.freeze()  # what is loaded now stays: scanning it for garbage would stop all threads for a while
        addresses = _addresses(listener, wyoming, options, mount_demo is not None)
        Server(app, service, options, lambda: on_ready(addresses), wyoming).run(sockets=[listener])


def _listen_for_wyoming(options: ServeOptions) -> socket.socket:
    """Wyoming has no tokens, so `--no-token` must allow what the operator would otherwise forbid. Raises RillError."""
    if find_spec("wyoming") is None:
        raise RillError("--wyoming needs a package that is not there: pip install 'rill-asr[wyoming]'.")
    from asr.server.wyoming import parse_address

    assert options.wyoming
    listener = listen(*parse_address(options.wyoming))
    if not options.no_token and (options.token_file or not is_local(listener)):
        listener.close()
        raise RillError(
            f"Wyoming's clients send no tokens: give --no-token to let everybody use {options.wyoming}, or "
            f"leave out --wyoming."
        )
    return listener


def _addresses(listener: socket.socket, wyoming: socket.socket | None, options: ServeOptions, demo: bool) -> str:
    scheme, (host, port, *_) = "https" if options.ssl_certfile else "http", listener.getsockname()
    here = f"//{host}:{port}"
    page = f", demo {scheme}:{here}{DEMO_PATH}" if demo else ""
    home = "Wyoming tcp://{}:{}, ".format(*wyoming.getsockname()[:2]) if wyoming else ""
    return (
        f"Serving {options.sessions} speakers: Vosk's protocol ws{scheme[4:]}:{here}/ws, {home}OpenAI's and Deepgram's "
        f"APIs {scheme}:{here}/v1{page}. Ctrl-C ends."
    )


class Server(uvicorn.Server):
    """Uvicorn with an orderly end: on SIGTERM or Ctrl-C the server finalizes and delivers open utterances, then exits.
    A second signal does not wait for them. `on_ready` is called once clients can connect."""

    def __init__(
        self,
        app: FastAPI,
        service: Service,
        options: ServeOptions,
        on_ready: Callable[[], None],
        wyoming: socket.socket | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=TimeoutHTTP,
                ws="websockets-sansio",
                ws_max_size=options.message_bytes,
                ws_per_message_deflate=False,
                ws_ping_interval=PING_INTERVAL_S,
                ws_ping_timeout=PONG_TIMEOUT_S,
                timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
                log_level="warning",
                access_log=False,
                server_header=False,
                ssl_certfile=options.ssl_certfile,
                ssl_keyfile=options.ssl_keyfile,
            )
        )
        self.service, self.on_ready, self.wyoming = service, on_ready, wyoming
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.wyoming:
            from asr.server import wyoming

            self.wyoming_server = await wyoming.serve(self.service, self.wyoming)
        self.on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.loop is None or self.service.closing:
            super().handle_exit(sig, frame)
        else:
            self.loop.call_soon_threadsafe(self.shut_down)

    def shut_down(self) -> None:
        """On the event loop: what SIGTERM does."""
        self.closing = asyncio.ensure_future(self.service.close())
        self.closing.add_done_callback(self._exit)

    def _exit(self, closed: asyncio.Future[None]) -> None:
        self.should_exit = True


class TimeoutHTTP(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection that sends no request, or does not complete one, within `REQUEST_TIMEOUT_S`; and sooner where
    its address has too many of them."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.opened = self.loop.time()
        self._check_later()
        address = self.client and self.client[0]
        idle = [
            each
            for each in self.connections
            if isinstance(each, TimeoutHTTP)
            and each._idle
            and (each.client and each.client[0]) == address
            and not each.transport.is_closing()
        ]
        for each in sorted(idle, key=lambda each: each.opened)[:-MAX_IDLE_CONNECTIONS]:
            each.transport.close()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _check_later(self) -> None:
        self.loop.call_later(REQUEST_TIMEOUT_S, self._check, self.cycle, self._idle)

    def _check(self, request: object, idle: bool) -> None:
        """`request` was the newest one at the last check, and `idle` whether it had been answered."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # a WebSocket has taken over
            return
        if idle and self._idle and self.cycle is request:
            self.transport.close()
        else:
            self._check_later()


def _check_certificate(options: ServeOptions) -> None:
    if bool(options.ssl_certfile) != bool(options.ssl_keyfile):
        raise RillError("--ssl-certfile and --ssl-keyfile go together: give both, or neither.")
    if options.ssl_certfile:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
        except OSError as error:  # ssl.SSLError is one
            raise RillError(
                f"{options.ssl_certfile} and {options.ssl_keyfile} cannot be used ({error.strerror}): "
                f"give a certificate and its key as PEM files."
            ) from error
