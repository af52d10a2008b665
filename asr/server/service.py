"""What all doors of the server share: the recogniser, its limits, who is in, and the way out.

A door (`vosk_door`, `openai_door`, the demo) speaks a client's protocol; it asks for a place here and gives it back.
"""
from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from asr.decoding.hotwords import Hotword
from asr.errors import RillError
from asr.inference.batching import Batcher
from asr.inference.recognizer import Recognizer
from asr.server.metrics import Metrics

BEAT = 0.1  # seconds between looks at who must leave, and at how late the event loop is
SMOOTHING = 0.1  # weight of the newest look in the event loop's lag
MOST_PHRASE_LISTS = 4  # different sets of hot words at the same time; each has a search tree of about 50 MB
GRACE = 20.0  # seconds that are left to everybody when the server shuts down

# Close codes of WebSockets: RFC 6455, section 7.4, and IANA's registry.
DONE, GOING_AWAY, INVALID, POLICY, FAILED, TRY_LATER = 1000, 1001, 1007, 1008, 1011, 1013


@dataclass(frozen=True)
class Limits:
    """What the server bears. Whoever asks for more is told so."""

    sessions: int = 64  # speakers at the same time
    uploads: int = 4  # recordings at the same time
    message: int = 1 << 20  # bytes of one WebSocket message
    upload: int = 100 << 20  # bytes of one request
    seconds: float = 4 * 3600.0  # that a session lasts, and that a recording does
    idle: float = 60.0  # seconds without a move of the client
    delay: float = 1.0  # seconds that the model takes to answer; then nobody new is let in


class Busy(RillError):
    """There is no place now; the client may come again."""


class Leave(Exception):
    """A session must end: the close code, and why, in one sentence."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Waiting:
    """Since when it has been the client's move: to send something, or to read what was sent. (A generator of
    `contextlib`, twice a message, took a tenth of the time that the event loop has for one.)"""

    since: float | None = None

    def __enter__(self) -> None:
        self.since = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.since = None


class Place:
    """A speaker's place. The service takes it back by cancelling the task that holds it; then `leave` says why."""

    def __init__(self, phrases: Callable[[tuple[Hotword, ...]], AbstractContextManager[None]]) -> None:
        self._phrases, self._held = phrases, ExitStack()
        self.hotwords: tuple[Hotword, ...] = ()  # beside the server's own
        self.since = time.monotonic()
        self.waiting = Waiting()
        self.leave: Leave | None = None
        self.task = asyncio.current_task()

    def hold(self, hotwords: tuple[Hotword, ...]) -> None:
        """This speaker uses these hot words, and no others any more. Raises Busy, and leaves those of before."""
        self._held.close()
        try:
            self._enter(hotwords)
        except Busy:
            self._enter(self.hotwords)
            raise
        self.hotwords = hotwords

    def _enter(self, hotwords: tuple[Hotword, ...]) -> None:
        if hotwords:
            self._held.enter_context(self._phrases(hotwords))

    def take_back(self, leave: Leave) -> None:
        if self.task and not self.leave:
            self.leave = leave
            self.task.cancel()


class Service:
    """One recogniser for many speakers. `watch` must run as long as it serves.

    `threads` are those that compute; see `Batcher`.
    """

    def __init__(self, recognizer: Recognizer, limits: Limits, threads: int | None = None) -> None:
        self.recognizer, self.limits, self.metrics = recognizer, limits, Metrics()
        self.places: set[Place] = set()
        self.uploads = 0
        self.closing = False
        self.until = math.inf  # when everybody must have left
        self._phrase_lists: Counter[tuple[Hotword, ...]] = Counter()  # sessions that use each
        self._building = asyncio.Lock()
        self.batcher = recognizer.work = Batcher(recognizer, threads)
        self.metrics.watch(self.batcher)

    @contextmanager
    def place(self, door: str) -> Iterator[Place]:
        """A speaker's place. Raises Busy."""
        self._let_in("sessions", len(self.places), self.limits.sessions)
        place = Place(self._use)
        self.places.add(place)
        with self.metrics.sessions.labels(door).track_inprogress():
            try:
                yield place
            finally:
                place.hold(())
                self.places.discard(place)

    def expect_upload(self) -> None:
        """Raises Busy where a recording would have no place now."""
        self._let_in("uploads", self.uploads, self.limits.uploads)

    @contextmanager
    def upload(self) -> Iterator[None]:
        """A recording's place. Raises Busy."""
        self.expect_upload()
        self.uploads += 1
        with self.metrics.uploads.track_inprogress():
            try:
                yield
            finally:
                self.uploads -= 1

    def _let_in(self, what: str, taken: int, places: int) -> None:
        if self.closing:
            self._refuse("closing", "The server is shutting down: try again in a minute.")
        if taken >= places:
            self._refuse(what, f"All {places} places for {what} are taken: try again later.")
        if self.batcher.delay > self.limits.delay:
            self._refuse("overload", "The server cannot keep up with the speakers it has: try again later.")

    def _refuse(self, reason: str, sentence: str) -> None:
        self.metrics.refused.labels(reason).inc()
        raise Busy(sentence)

    @contextmanager
    def _use(self, hotwords: tuple[Hotword, ...]) -> Iterator[None]:
        """While a session uses these hot words beside the server's own. Raises Busy where there are too many sets."""
        if hotwords not in self._phrase_lists and len(self._phrase_lists) >= MOST_PHRASE_LISTS:
            self._refuse("phrase_lists", f"{MOST_PHRASE_LISTS} other phrase lists are in use: try again later.")
        self._phrase_lists[hotwords] += 1
        try:
            yield
        finally:
            self._phrase_lists -= Counter([hotwords])  # drops those that nobody uses

    async def prepare(self, hotwords: tuple[Hotword, ...]) -> None:
        """Builds their search tree, which takes a moment, beside the event loop. Raises HotwordError."""
        if hotwords:
            async with self._building:
                await asyncio.to_thread(self.recognizer.decoder, hotwords)

    async def watch(self) -> None:
        """Takes places back from those who are silent for too long or have been here for too long."""
        limits = self.limits
        self.batcher.serve(asyncio.get_running_loop())
        while True:
            due = time.monotonic() + BEAT
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            self.batcher.lag += SMOOTHING * (now - due - self.batcher.lag)
            for place in self.places:
                if now - place.since > limits.seconds:
                    place.take_back(Leave(POLICY, f"A session lasts {limits.seconds:g} s at most: connect again."))
                elif place.waiting.since and now - place.waiting.since > limits.idle:
                    place.take_back(Leave(POLICY, f"Nothing came, or was read, for {limits.idle:g} s."))

    async def close(self) -> None:
        """Lets nobody in any more, makes everybody's last words final, and waits until all have left."""
        self.closing = True
        for place in self.places:
            place.take_back(Leave(GOING_AWAY, "The server is shutting down."))
        self.until = time.monotonic() + GRACE
        while (self.places or self.uploads) and time.monotonic() < self.until:
            await asyncio.sleep(BEAT)
