"""A client's live conversation, whatever protocol it speaks: audio in, text out, and an end that says why it came.

    VoskConnection, RealtimeConnection, DeepgramConnection ──► SocketConversation ──┐
    WyomingConnection ──────────────────────────────────────────────────────────────┴► Conversation ──► SessionSlot

A protocol says what a client's messages mean (`talk`) and how events reach it (`on_event`). What is here holds for all
of them: a slot, hot words, audio that does not wait for ever, metrics, the shutdown that delivers the last final.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
from starlette import status
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.audio.reading import SAMPLE_RATE, Resampler
from asr.decoding.hotwords import parse_list
from asr.errors import AudioError, RillError
from asr.inference.async_session import AsyncSession
from asr.inference.live import move
from asr.inference.recognizer import Event
from asr.server.metrics import FinalLatency
from asr.server.responses import close_reason
from asr.server.service import Busy, Service, SessionClosed, SessionSlot
from asr.text.results import Final, Partial

MAX_WAITING_AUDIO_S = 2.0  # more than this, and the client is held up: it sends too fast
MAX_UNREAD_MESSAGES = 64  # that wait for a client to read them; then no more of its audio is taken
CLOSE_TIMEOUT_S = 2.0  # in which a client must take the last message and the close frame
GONE = (WebSocketDisconnect, ConnectionError, RuntimeError)  # what writing to a client raises that has gone
log = logging.getLogger(__name__)


def invalid(reason: str) -> SessionClosed:
    """The end of a session whose client sent something that the server does not understand."""
    return SessionClosed(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, reason)


class LiveAudio:
    """A client's audio on its way to text: recordings, one after another, on one slot.

    Times count from the beginning of the first recording. `on_event` is called on the event loop with each event.
    """

    def __init__(self, service: Service, slot: SessionSlot, on_event: Callable[[Event], None]) -> None:
        self.service, self.slot, self.on_event = service, slot, on_event
        self.sample_rate = float(SAMPLE_RATE)  # Hz, of the next recording
        self.punctuate: bool | None = None  # of the next recording; None: as the server does
        self.alternatives = 0  # of the next recording's finals
        self.hotwords = service.recognizer.hotwords
        self._session: AsyncSession | None = None  # of the recording
        self._offset = 0.0  # seconds of the recordings before
        self._latency = FinalLatency(service.metrics)  # of the recording

    @property
    def open(self) -> bool:
        """Whether a recording has begun and not ended."""
        return self._session is not None

    @property
    def seconds(self) -> float:
        """Of all audio so far."""
        return self._offset + (self._session.seconds if self._session else 0.0)

    def set_rate(self, rate: object) -> None:
        """In Hz, from the next recording on. Raises SessionClosed where it cannot be used, or would change now."""
        try:
            new = float(rate)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid("The sample_rate must be a number of Hz.") from error
        try:
            Resampler(new)
        except AudioError as error:
            raise invalid(f"The sample_rate cannot be used: {error}") from error
        if self.open and new != self.sample_rate:
            raise invalid("The sample_rate cannot change inside a recording: end the recording first.")
        self.sample_rate = new

    async def expect(self, phrases: object) -> None:
        """Make these phrases more likely from the next utterance on; all other words remain possible.

        Raises HotwordError and Busy.
        """
        hotwords = await asyncio.to_thread(parse_list, phrases)
        self.hotwords = await self.slot.prepare(hotwords, beside=self.service.recognizer.hotwords)
        if self._session:
            self._session.set_hotwords(self.hotwords)

    async def push(self, samples: np.ndarray) -> None:
        """Hand over samples (n,); the first ones begin a recording."""
        if self._session is None:
            await self.service.build_search(self.hotwords)
            self._latency = FinalLatency(self.service.metrics)
            self._session = self.slot.session(
                self.sample_rate,
                self._report,
                hotwords=self.hotwords,
                punctuate=self.punctuate,
                alternatives=self.alternatives,
            )
        self._session.push(samples)
        self._latency.arrived(self._session.seconds)

    async def caught_up(self, patience_s: float = 0.0) -> None:
        """Wait until recognition catches up; after `patience_s`, only while more than `MAX_WAITING_AUDIO_S` waits."""
        if self._session:
            await self._session.caught_up(MAX_WAITING_AUDIO_S, patience_s)

    async def finish(self) -> None:
        """The recording ends; returns when all of it is final."""
        if self._session:
            await self._session.finish()
            self._offset += self._session.seconds
            self._session = None

    def discard(self) -> None:
        """The recording ends, and what is not final yet is forgotten."""
        if self._session:
            self._session.cancel()
            self._offset += self._session.seconds
            self._session = None

    def _report(self, event: Event) -> None:
        if isinstance(event, Final):
            self._latency.observe(event)
        self.on_event(move(event, self._offset) if self._offset else event)


class Conversation(ABC):
    """One client, from its first message to its last final."""

    protocol: ClassVar[str]  # its label in the metrics

    def __init__(self, service: Service) -> None:
        self.service = service
        self.slot: SessionSlot
        self.audio: LiveAudio

    @abstractmethod
    async def talk(self) -> None:
        """Understand messages until the client ends the session."""

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """New text."""

    async def deliver_last_final(self) -> None:
        """Finalize and deliver what came so far, although the client has not ended the recording."""
        await self.audio.finish()

    async def serve(self) -> SessionClosed:
        """Talk until the end, and return why it was one."""
        try:
            with self.service.slot(self.protocol) as slot:
                self.slot, self.audio = slot, LiveAudio(self.service, slot, self.on_event)
                try:
                    await self.talk()
                    return SessionClosed(status.WS_1000_NORMAL_CLOSURE, "")
                except asyncio.CancelledError:
                    if slot.closed is None:
                        raise
                    with suppress(asyncio.TimeoutError, RillError, *GONE):
                        await self.deliver_last_final()
                    return slot.closed
                finally:
                    self.audio.discard()
        except WebSocketDisconnect as disconnect:
            return SessionClosed(disconnect.code, "")
        except SessionClosed as end:
            return end
        except Busy as error:
            return SessionClosed(status.WS_1013_TRY_AGAIN_LATER, str(error))
        except RillError as error:
            return invalid(str(error))
        except Exception:
            log.exception("A session failed.")
            return SessionClosed(status.WS_1011_INTERNAL_ERROR, "Recognition failed; the server's log says why.")


class SocketConversation(Conversation):
    """A conversation through a WebSocket, which ends with a close code and a reason."""

    subprotocols: ClassVar[Sequence[str]] = ()  # that it may agree to

    def __init__(self, socket: WebSocket, service: Service) -> None:
        super().__init__(service)
        self.socket = socket

    async def run(self) -> None:
        offered = self.socket.scope.get("subprotocols", ()) if self.subprotocols else ()
        await self.socket.accept(next((each for each in offered if each in self.subprotocols), None))
        end = await self.serve()
        self.service.metrics.session_ended(end.code)
        with suppress(asyncio.TimeoutError, *GONE):  # the client may have gone
            await asyncio.wait_for(self.say_goodbye(end), CLOSE_TIMEOUT_S)
            await asyncio.wait_for(self.socket.close(end.code, close_reason(str(end))), CLOSE_TIMEOUT_S)

    async def say_goodbye(self, end: SessionClosed) -> None:
        """What a client is told before the close frame."""

    async def receive(self) -> str | bytes:
        """The client's next message. Raises WebSocketDisconnect."""
        with self.slot.idle:
            message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", status.WS_1005_NO_STATUS_RCVD))
        data = message.get("bytes")
        return message["text"] if data is None else data

    async def send(self, text: str) -> None:
        with self.slot.unread:
            await self.socket.send_text(text)


class Outbox:
    """Messages that come when the text does: a task of its own writes them, so that the client's are read meanwhile.

    Args:
        write: sends one message.
    """

    def __init__(self, write: Callable[[Any], Awaitable[None]]) -> None:
        self.write = write
        self._messages: deque[Any] = deque()
        self._posted, self._written = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def post(self, message: Any) -> None:
        self._messages.append(message)
        self._posted.set()

    async def drained(self, most: int = MAX_UNREAD_MESSAGES) -> None:
        """Returns when at most so many messages wait; and when the client has gone, who is noticed by reading."""
        while len(self._messages) > most and not self._task.done():
            self._written.clear()
            await self._written.wait()

    async def close(self) -> None:
        """Returns when all is written. Raises TimeoutError where the client does not read."""
        try:
            await asyncio.wait_for(self.drained(0), CLOSE_TIMEOUT_S)
        finally:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                await self._posted.wait()
                self._posted.clear()
                while self._messages:
                    await self.write(self._messages[0])
                    self._messages.popleft()
                    self._written.set()
        except GONE:
            pass
        finally:
            self._messages.clear()
            self._written.set()


class AgreedWords:
    """Text that only grows, for protocols that cannot take words back: those on which successive partials agree.

    A final may correct them (Liu et al. 2020, arXiv 2005.11185: local agreement of two hypotheses).
    """

    def __init__(self) -> None:
        self._before: list[str] = []
        self._sent: list[str] = []

    def update(self, partial: Partial) -> str:
        """What to append, with the space before it; empty where nothing is sure."""
        words = [word.text for word in partial.words]
        agreed = 0
        while agreed < min(len(words), len(self._before)) and words[agreed] == self._before[agreed]:
            agreed += 1
        self._before = words
        if agreed <= len(self._sent) or words[: len(self._sent)] != self._sent:
            return ""
        new = words[len(self._sent) : agreed]
        text = (" " if self._sent else "") + " ".join(new)
        self._sent += new
        return text
