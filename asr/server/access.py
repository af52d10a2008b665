"""Who may use the server: bearer tokens, and the size and pace of requests. (Which web pages may: `origins`.)

An ASGI middleware: it checks the token before it receives any body, and covers every protocol.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.errors import RillError
from asr.server.metrics import Metrics
from asr.server.options import ServiceOptions
from asr.server.responses import PUBLIC_PATHS, error_response

MIN_BODY_BYTES_PER_S = 4000  # on average, after the time that a client may be idle
MIN_TOKEN_LENGTH = 16  # characters; shorter ones can be guessed
WRONG_TOKEN_DELAY_S = 1.0  # until a wrong token is refused
TOKEN_SCHEMES = ("bearer", "token")
OPENAI_KEY = "openai-insecure-api-key."  # the subprotocol in which a page has its token
LOG_INTERVAL_S = 10.0  # wrong tokens are logged this often at most
log = logging.getLogger(__name__)


def read_tokens(path: Path | None) -> list[bytes]:
    """The tokens of a file, one a line; none without a file. Raises RillError."""
    if path is None:
        return []
    try:
        tokens = [line.strip().encode() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RillError(f"The token file {path} cannot be read: give a text file with a token a line.") from error
    if not tokens:
        raise RillError(f"The token file {path} is empty: write a token a line, or leave out --token-file.")
    if any(len(token) < MIN_TOKEN_LENGTH for token in tokens):
        raise RillError(
            f"A token in {path} is shorter than {MIN_TOKEN_LENGTH} characters: make one with 'openssl rand -hex 16'."
        )
    return tokens


class AccessMiddleware:
    """Refuses requests without a token, and bodies that are too large or too slow.

    Args:
        tokens: every request must bear one of them, where there are any.
    """

    def __init__(self, app: ASGIApp, options: ServiceOptions, tokens: Sequence[bytes], metrics: Metrics) -> None:
        self.app, self.options, self.tokens, self.metrics = app, options, tokens, metrics
        self.wrong = 0  # tokens since the last line in the log
        self.logged = -LOG_INTERVAL_S  # when that was

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in PUBLIC_PATHS:
            await self.app(scope, receive, send)
        elif problem := self._problem(scope["type"], headers := Headers(scope=scope)):
            if problem.status_code == 401 and ("authorization" in headers or _given_token(headers)):
                await self._on_wrong_token(scope)
            await problem(scope, receive, send)
        else:
            await self.app(scope, self._bounded(receive) if scope["type"] == "http" else receive, send)

    def _problem(self, kind: str, headers: Headers) -> Response | None:
        """The answer to a request that is refused."""
        if not self._has_token(headers):
            return error_response(401, "This server wants a token: Authorization: Bearer TOKEN.", "invalid_api_key")
        if kind == "http" and _content_length(headers) > self.options.upload_bytes:
            return error_response(413, self._too_large())
        return None

    def _has_token(self, headers: Headers) -> bool:
        given = _given_token(headers)
        matches = [hmac.compare_digest(given, token) for token in self.tokens]  # all of them, in constant time
        return not self.tokens or any(matches)

    async def _on_wrong_token(self, scope: Scope) -> None:
        """Count, log and slow down whoever tries tokens."""
        self.metrics.refused.labels("token").inc()
        self.wrong += 1
        if time.monotonic() - self.logged >= LOG_INTERVAL_S:
            address = (scope.get("client") or ("an unknown address",))[0]
            log.warning("%d requests with a wrong token, the last one from %s.", self.wrong, address)
            self.wrong, self.logged = 0, time.monotonic()
        await asyncio.sleep(WRONG_TOKEN_DELAY_S)

    def _too_large(self) -> str:
        return f"A request may have {self.options.max_upload} MiB at most: send a shorter or compressed recording."

    def _bounded(self, receive: Receive) -> Receive:
        """Receives the same body, while it is neither too large nor too slow."""
        size, complete, began, idle = 0, False, time.monotonic(), self.options.idle

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:  # only the end of the connection may follow
                return await receive()
            left = began + idle + size / MIN_BODY_BYTES_PER_S - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), min(idle, left))
            except asyncio.TimeoutError:
                raise HTTPException(
                    408, f"Nothing came for {idle:g} s, or under {MIN_BODY_BYTES_PER_S} bytes a second."
                ) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self.options.upload_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return bounded


def _given_token(headers: Headers) -> bytes:
    """A request's token, as the bytes that came: `Authorization: Bearer TOKEN`, or `Token TOKEN` of Deepgram's clients.

    Pages cannot set headers of a WebSocket: theirs offer subprotocols, OpenAI's "openai-insecure-api-key.TOKEN" and
    Deepgram's "token, TOKEN".
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    offered = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]
    if scheme.lower() not in TOKEN_SCHEMES:
        token = next((each[len(OPENAI_KEY) :] for each in offered if each.startswith(OPENAI_KEY)), "")
        if not token and len(offered) == 2 and offered[0] == "token":
            token = offered[1]
    return token.strip().encode("latin-1")


def _content_length(headers: Headers) -> int:
    try:
        return int(headers.get("content-length", 0))
    except ValueError:
        return 0
