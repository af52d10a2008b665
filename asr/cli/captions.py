"""`asr listen --captions PORT`: a transparent page with the newest text, for OBS and other programs that show pages.

    GET /         the page
    GET /events   server-sent events, each a JSON object: {"finals": ["…"], "partial": "…", "stable": 2}

Each event is the whole state, so a page that is slow skips some, and one that comes late has missed nothing. Only this
computer can connect, and only by its own names: a page of elsewhere whose name points here is refused.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from asr.errors import RillError

if TYPE_CHECKING:
    from asr.inference.recognizer import Event

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("captions.html")
KEPT_FINALS = 4  # more than a page shows
FORGOTTEN_S = 6.0  # of silence, after which new text stands alone
MAX_PAGES = 16
HEARTBEAT_S = 10.0  # after which a page that has left is noticed
REQUEST_TIMEOUT_S = 10.0
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


class Captions:
    """The page, served from now on until `close`. Raises RillError where the port cannot be used."""

    def __init__(self, port: int) -> None:
        self._finals: deque[str] = deque(maxlen=KEPT_FINALS)
        self._partial, self._stable = "", 0  # and how many of its words stay
        self._end = 0.0  # seconds: of the last final
        self._number = 0  # of the state
        self._changed = threading.Condition()  # guards the state
        self.closed = False
        self.room = threading.BoundedSemaphore(MAX_PAGES)
        captions = self

        class Handler(CaptionHandler):
            owner = captions

        try:
            self._server = CaptionServer((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise RillError(
                f"Port {port} cannot be used for captions ({error.args[-1]}): choose another one."
            ) from error
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, name="captions", daemon=True).start()

    def event(self, event: Event) -> None:
        from asr.text.results import Final

        with self._changed:
            if event.start - self._end > FORGOTTEN_S:
                self._finals.clear()
            if isinstance(event, Final):
                self._finals.append(event.text)
                self._end = event.end
            self._partial, self._stable = ("", 0) if isinstance(event, Final) else (event.text, event.stable)
            self._number += 1
            self._changed.notify_all()

    def after(self, number: int) -> tuple[int, str | None]:
        """The newest state and its number as soon as that is another one; without a state after a while."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._number != number, HEARTBEAT_S)
            if self._number == number:
                return number, None
            state = {"finals": list(self._finals), "partial": self._partial, "stable": self._stable}
            return self._number, json.dumps(state, ensure_ascii=False)

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()


class CaptionServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A page that leaves is no news, and the terminal belongs to the captions."""


class CaptionHandler(BaseHTTPRequestHandler):
    """One request, on a thread of its own."""

    owner: Captions
    timeout = REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in (HOST, "localhost"):
            self.send_error(403, "Captions are for this computer: use its address")
        elif self.path.partition("?")[0] == "/":
            self._send_head("text/html; charset=utf-8")
            self.wfile.write(PAGE.read_bytes())
        elif self.path == "/events":
            self._send_events()
        else:
            self.send_error(404)

    def _send_events(self) -> None:
        if not self.owner.room.acquire(blocking=False):
            self.send_error(503, f"Captions are open in {MAX_PAGES} pages already")
            return
        try:
            self._send_head("text/event-stream")
            number = -1
            while not self.owner.closed:
                number, state = self.owner.after(number)
                self.wfile.write(f"data: {state}\n\n".encode() if state else b":\n\n")
        finally:
            self.owner.room.release()

    def _send_head(self, kind: str) -> None:
        self.send_response(200)
        for name, value in (
            ("Content-Type", kind),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", POLICY),
        ):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
