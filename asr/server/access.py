"""Who comes in at all: the bearer token, the origin of browsers' sockets, the size and the pace of what is sent.

An ASGI middleware, so that nobody's upload is read before the token is known, and so that it holds for every door.
"""
from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.errors import RillError
from asr.server.service import Limits

OPEN = ("/health",)  # paths for everybody
SLOWEST = 4000  # bytes a second of a body in the mean, beside the time that a client may be idle


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


def refusal(status: int, sentence: str, code: str | None = None) -> JSONResponse:
    """An error in the shape of OpenAI's API, which its clients can show."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"error": {"message": sentence, "type": kind, "param": None, "code": code}}, status, headers)


class Gate:
    """
    Args:
        tokens: one of which every request must bear, where there are any.
        origins: of pages whose scripts may open sockets here, beside the server's own pages; "*" is all. (What they may
            read over HTTP is the browser's business: CORS.)
    """

    def __init__(self, app: ASGIApp, limits: Limits, tokens: Sequence[bytes], origins: Sequence[str]) -> None:
        self.app, self.limits, self.tokens, self.origins = app, limits, tokens, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem: Response | None = None
        if not self._known(headers):
            problem = refusal(401, "This server wants a token: Authorization: Bearer TOKEN.", "invalid_api_key")
        elif scope["type"] == "websocket":
            if not self._welcome(headers):
                problem = refusal(403, f"Pages of {headers['origin']} may not open sockets here.")
        elif self._length(headers) > self.limits.upload:
            problem = refusal(413, self._too_large())
        if problem:
            await problem(scope, receive, send)
        else:
            await self.app(scope, self._bounded(receive) if scope["type"] == "http" else receive, send)

    def _known(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1") if scheme.lower() == "bearer" else b""  # the bytes that came
        matches = [hmac.compare_digest(given, token) for token in self.tokens]  # all of them, in constant time
        return not self.tokens or any(matches)

    def _welcome(self, headers: Headers) -> bool:
        """Programs that are no browsers send no origin, or this server's."""
        origin = headers.get("origin")
        return (origin is None or origin in self.origins or "*" in self.origins
                or urlsplit(origin).netloc == headers.get("host"))

    def _length(self, headers: Headers) -> int:
        try:
            return int(headers.get("content-length", 0))
        except ValueError:
            return 0

    def _too_large(self) -> str:
        return f"A request may have {self.limits.upload / 2**20:g} MiB at most: send a shorter or compressed recording."

    def _bounded(self, receive: Receive) -> Receive:
        """The same body, as long as it is neither too large nor too slow."""
        size, complete, begun = 0, False, time.monotonic()

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:  # what may come now is the end of the connection
                return await receive()
            left = begun + self.limits.idle + size / SLOWEST - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), min(self.limits.idle, left))
            except asyncio.TimeoutError:
                raise HTTPException(408, f"Nothing came for {self.limits.idle:g} s, or under {SLOWEST} bytes a second."
                                    ) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self.limits.upload:
                raise HTTPException(413, self._too_large())
            return message

        return bounded
