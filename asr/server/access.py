"""Who may use the server: bearer tokens, and the size and pace of requests. (Which web pages may: `origins`.)

An ASGI middleware: it checks the token before it receives any body, and covers every protocol.
"""
from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Sequence
from pathlib import Path

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.errors import RillError
from asr.server.options import ServiceOptions

PUBLIC_PATHS = ("/health",)  # without a token
MIN_BODY_BYTES_PER_S = 4000  # on average, after the time that a client may be idle
RETRY_AFTER_S = 5


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
    return tokens


def error_response(status: int, message: str, code: str | None = None) -> JSONResponse:
    """An error in the shape of OpenAI's API; its clients show the message."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER_S)}}.get(status)
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers)


class AccessMiddleware:
    """Refuses requests without a token, and bodies that are too large or too slow.

    Args:
        tokens: every request must bear one of them, where there are any.
    """

    def __init__(self, app: ASGIApp, options: ServiceOptions, tokens: Sequence[bytes]) -> None:
        self.app, self.options, self.tokens = app, options, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in PUBLIC_PATHS:
            await self.app(scope, receive, send)
        elif problem := self._problem(scope["type"], Headers(scope=scope)):
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
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1") if scheme.lower() == "bearer" else b""  # the bytes that came
        matches = [hmac.compare_digest(given, token) for token in self.tokens]  # all of them, in constant time
        return not self.tokens or any(matches)

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
                raise HTTPException(408, f"Nothing came for {idle:g} s, or under {MIN_BODY_BYTES_PER_S} bytes a second."
                                    ) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self.options.upload_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return bounded


def _content_length(headers: Headers) -> int:
    try:
        return int(headers.get("content-length", 0))
    except ValueError:
        return 0
