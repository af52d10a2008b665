"""What all protocols of the server share: the recognizer, the limits, who is connected, and the shutdown.

A protocol (`vosk`, `openai`, the demo's page) opens a `SessionSlot` or an upload here for each client, and leaves it at
the client's end.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from starlette import status

from asr.decoding.hotwords import Hotword
from asr.errors import RillError
from asr.inference.async_session import AsyncSession
from asr.inference.batching import BatchRunner
from asr.inference.recognizer import Event, Recognizer
from asr.model.latency import LatencyLike
from asr.server.metrics import Metrics
from asr.server.options import ServiceOptions

WATCH_INTERVAL_S = 0.1  # from one check of all sessions, and of how late the event loop is, to the next
LAG_SMOOTHING = 0.1  # weight of the newest check in the event loop's mean lag
MAX_PHRASE_LISTS = 4  # different sets of hot words in use; each has a search tree of about 50 MB
MAX_MODEL_DELAY_S = 1.0  # from a request to the model until its result; beyond it no new client is accepted
RECEIVING_FACTOR = 4  # so many times as many recordings may be received as are transcribed at the same time
SHUTDOWN_GRACE_S = 20.0  # for open sessions and uploads when the server shuts down


class Busy(RillError):
    """The server has no room now; the client may try again."""


class SessionClosed(Exception):
    """The server ends a session: the WebSocket close code, and the reason in one sentence."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class IdleTimer:
    """A context entered while the server waits for the client, to send a message or to read one. `since` is when.

    (A generator of `contextlib`, twice a message, took a tenth of the time that the event loop has for one.)
    """

    since: float | None = None

    def __enter__(self) -> None:
        self.since = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.since = None


class SessionSlot:
    """One of the live sessions that the service has room for, while one client uses it.

    The service ends a session by cancelling the task that opened the slot; then `closed` says why.
    """

    def __init__(self, service: Service, protocol: str) -> None:
        self._service, self._protocol = service, protocol
        self._reservation = ExitStack()  # of a phrase list
        self.hotwords: tuple[Hotword, ...] = ()  # the client's own, beside the server's
        self.opened = time.monotonic()
        self.idle = IdleTimer()  # while the server waits for a message
        self.unread = IdleTimer()  # while it waits for the client to read one, beside the other
        self.closed: SessionClosed | None = None
        self._task = asyncio.current_task()

    def session(
        self,
        sample_rate: float,
        on_event: Callable[[Event], None],
        *,
        latency: LatencyLike | None = None,
        hotwords: tuple[Hotword, ...] | None = None,
        punctuate: bool | None = None,
        alternatives: int = 0,
    ) -> AsyncSession:
        """A session of the service's recognizer whose audio the metrics count. `prepare` its hot words first."""
        metrics = self._service.metrics
        return AsyncSession(
            self._service.recognizer,
            sample_rate,
            on_event,
            latency=latency,
            hotwords=hotwords,
            punctuate=punctuate,
            alternatives=alternatives,
            on_recognized=partial(metrics.recognized, self._protocol),
            on_dropped=metrics.dropped.inc,
        )

    async def prepare(self, hotwords: tuple[Hotword, ...], beside: tuple[Hotword, ...] = ()) -> tuple[Hotword, ...]:
        """Make the client's hot words, and those that stand beside them, usable; returns all of them.

        They replace the client's earlier ones. Raises Busy or HotwordError, and keeps the earlier ones.
        """
        before = self.hotwords
        self._reserve(hotwords)
        try:
            await self._service.build_search((*beside, *hotwords))
        except RillError:
            self._reserve(before)
            raise
        return (*beside, *hotwords)

    def _reserve(self, hotwords: tuple[Hotword, ...]) -> None:
        before = self.hotwords
        self.release()
        try:
            if hotwords:
                self._reservation.enter_context(self._service.phrase_list(hotwords))
        except Busy:
            self._reserve(before)
            raise
        self.hotwords = hotwords

    def release(self) -> None:
        """The client uses no hot words of its own any more."""
        self._reservation.close()
        self.hotwords = ()

    def close(self, reason: SessionClosed) -> None:
        """End the session that uses this slot."""
        if self._task and not self.closed:
            self.closed = reason
            self._task.cancel()


class Service:
    """One recognizer for many clients. `watch` must run as long as the service does.

    Args:
        threads: that compute; see `BatchRunner`.
        max_model_delay: seconds; see `MAX_MODEL_DELAY_S`.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        options: ServiceOptions,
        threads: int | None = None,
        max_model_delay: float = MAX_MODEL_DELAY_S,
    ) -> None:
        self.options, self.metrics = options, Metrics()
        self.max_model_delay = max_model_delay
        self.slots: set[SessionSlot] = set()
        self.receiving = self.uploads = 0  # recordings that arrive or are transcribed; that are transcribed
        self.closing = False
        self.deadline = math.inf  # of the shutdown, on the monotonic clock
        self._phrase_lists: Counter[tuple[Hotword, ...]] = Counter()  # sessions that use each
        self._building = asyncio.Lock()
        self.batcher = BatchRunner(recognizer.engine, threads)
        self.recognizer = recognizer.with_runner(self.batcher)
        self.metrics.watch(self.batcher)

    @contextmanager
    def slot(self, protocol: str) -> Iterator[SessionSlot]:
        """A slot for the task that calls. Raises Busy."""
        self._admit("sessions", len(self.slots), self.options.sessions)
        slot = SessionSlot(self, protocol)
        self.slots.add(slot)
        with self.metrics.sessions.labels(protocol).track_inprogress():
            try:
                yield slot
            finally:
                slot.release()
                self.slots.discard(slot)

    @contextmanager
    def receive_upload(self) -> Iterator[None]:
        """Room for a recording, from its first byte to its answer. Raises Busy."""
        self._admit("uploads", self.uploads, self.options.uploads)
        if self.receiving >= RECEIVING_FACTOR * self.options.uploads:
            self._refuse("uploads", "Too many recordings are being received: try again later.")
        self.receiving += 1
        try:
            yield
        finally:
            self.receiving -= 1

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Room for a recording, while it is transcribed. Raises Busy."""
        self._admit("uploads", self.uploads, self.options.uploads)
        self.uploads += 1
        with self.metrics.uploads.track_inprogress():
            try:
                yield
            finally:
                self.uploads -= 1

    def _admit(self, what: str, taken: int, limit: int) -> None:
        if self.closing:
            self._refuse("closing", "The server is shutting down: try again in a minute.")
        if taken >= limit:
            self._refuse(what, f"All {limit} places for {what} are taken: try again later.")
        if self.batcher.delay > self.max_model_delay:
            self._refuse("overload", "The server cannot keep up with the clients it has: try again later.")

    def _refuse(self, reason: str, message: str) -> None:
        self.metrics.refused.labels(reason).inc()
        raise Busy(message)

    @contextmanager
    def phrase_list(self, hotwords: tuple[Hotword, ...]) -> Iterator[None]:
        """While a session uses these hot words beside the server's own. Raises Busy where too many sets are in use."""
        if hotwords not in self._phrase_lists and len(self._phrase_lists) >= MAX_PHRASE_LISTS:
            self._refuse("phrase_lists", f"{MAX_PHRASE_LISTS} other phrase lists are in use: try again later.")
        self._phrase_lists[hotwords] += 1
        try:
            yield
        finally:
            self._phrase_lists -= Counter([hotwords])  # drops the lists that no session uses

    async def build_search(self, hotwords: tuple[Hotword, ...]) -> None:
        """Build the search for these hot words beside the event loop; it takes about a second. Raises HotwordError."""
        if hotwords:
            async with self._building:
                await asyncio.to_thread(self.recognizer.prepare_hotwords, hotwords)

    async def watch(self) -> None:
        """End sessions that are idle for too long or last too long; measure how late the event loop is."""
        options = self.options
        self.batcher.deliver_on(asyncio.get_running_loop())
        while True:
            due = time.monotonic() + WATCH_INTERVAL_S
            await asyncio.sleep(WATCH_INTERVAL_S)
            now = time.monotonic()
            self.batcher.lag += LAG_SMOOTHING * (now - due - self.batcher.lag)
            for slot in self.slots:
                if now - slot.opened > options.session_s:
                    reason = f"A session lasts {options.session_s:g} s at most: connect again."
                    slot.close(SessionClosed(status.WS_1008_POLICY_VIOLATION, reason))
                elif any(timer.since and now - timer.since > options.idle for timer in (slot.idle, slot.unread)):
                    reason = f"Nothing came, or was read, for {options.idle:g} s."
                    slot.close(SessionClosed(status.WS_1008_POLICY_VIOLATION, reason))

    async def close(self) -> None:
        """Accept no new client, finalize and deliver open utterances, and wait until all clients have left."""
        self.closing = True
        for slot in self.slots:
            slot.close(SessionClosed(status.WS_1001_GOING_AWAY, "The server is shutting down."))
        self.deadline = time.monotonic() + SHUTDOWN_GRACE_S
        while (self.slots or self.uploads) and time.monotonic() < self.deadline:
            await asyncio.sleep(WATCH_INTERVAL_S)
