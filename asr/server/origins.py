"""Which web pages may use the server: a browser tells where a request comes from, and by which name it goes.

A page of another site can send requests to this computer from its visitor's browser. `Origin` and `Sec-Fetch-Site` give
it away, unless its name has been made to point to this computer ("DNS rebinding"): then `Host` has that name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette import status
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from asr.server.responses import PUBLIC_PATHS, close_reason, error_response

LOG_INTERVAL_S = 10.0  # refused pages are logged this often at most
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # change nothing; `CORSMiddleware` says which pages may read their answers
log = logging.getLogger(__name__)


class OriginMiddleware:
    """Refuses requests by foreign names, and sockets and changes that foreign pages ask for.

    A socket is accepted and then closed, because a page can read a close frame, but no answer to a handshake.

    Args:
        hosts: names by which clients may reach the server, beside localhost and any IP address; "*" is any name.
        origins: of pages of other sites that may use it, such as "https://example.org"; "*" is any page.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        self.app, self.origins = app, origins
        self.hosts = {"localhost", *(host.lower() for host in hosts)}
        self.logged = -LOG_INTERVAL_S  # when a refusal was

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = None
        if scope["type"] in ("http", "websocket") and scope["path"] not in PUBLIC_PATHS:
            problem = self._problem(Headers(scope=scope), scope.get("method"))
        if problem is None:
            await self.app(scope, receive, send)
            return
        if time.monotonic() - self.logged >= LOG_INTERVAL_S:
            self.logged = time.monotonic()
            log.warning("%s", problem)
        if scope["type"] == "http":
            await error_response(403, problem)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.accept"})
            reason = close_reason(problem)
            await send({"type": "websocket.close", "code": status.WS_1008_POLICY_VIOLATION, "reason": reason})

    def _problem(self, headers: Headers, method: str | None) -> str | None:
        """Why a request is refused; a socket has no method."""
        host = headers.get("host", "")
        if not self._known(host):
            return f"This server is not known as '{host:.100}': start it with --allow-host, or use its address."
        origin = headers.get("origin")
        if method in SAFE_METHODS or "*" in self.origins or origin in self.origins:
            return None
        if origin is not None and (not host or urlsplit(origin).netloc != host):
            return f"Pages of {origin:.100} may not use this server: start it with --cors and that origin."
        if headers.get("sec-fetch-site") == "cross-site":
            return "Pages of other sites may not use this server: start it with --cors and their origin."
        return None

    def _known(self, host: str) -> bool:
        if "*" in self.hosts or not host:  # browsers always send it
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name.rstrip(".") in self.hosts or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
