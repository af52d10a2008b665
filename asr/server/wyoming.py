"""Wyoming, the protocol of Home Assistant's voice services (https://github.com/OHF-Voice/wyoming), over TCP.

    client → server   describe                                          client ← server   info
                      transcribe, audio-start, audio-chunk …, audio-stop                  transcript-start,
                                                                                          transcript-chunk …,
                                                                                          transcript, transcript-stop
                      ping                                                                pong

Each event is a line of JSON, with data and a payload of bytes behind it. Chunks never take words back; `transcript` has
the text that counts. The protocol has no tokens and no encryption: whoever reaches the port may use it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from starlette import status
from starlette.websockets import WebSocketDisconnect
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from asr import __version__
from asr.errors import RillError
from asr.inference.recognizer import Event as TextEvent
from asr.server.parameters import check_language
from asr.server.pcm import linear16
from asr.server.service import Service, SessionClosed
from asr.server.session import CLOSE_TIMEOUT_S, GONE, AgreedWords, Conversation, Outbox, invalid
from asr.text.results import Final

PROJECT = Attribution(name="Rill", url="https://github.com/rill-asr/rill")
MAX_LINE_BYTES = 1 << 16


def parse_address(uri: str) -> tuple[str, int]:
    """Host and port of "tcp://HOST:PORT". Raises RillError."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.scheme != "tcp":
        raise RillError(
            f"The Wyoming address '{uri}' cannot be used: write tcp://HOST:PORT, such as tcp://127.0.0.1:10300."
        )
    return host, port


async def serve(service: Service, listener: socket.socket) -> asyncio.Server:
    """Accept clients on this socket from now on."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await WyomingConnection(reader, writer, service).run()

    return await asyncio.start_server(talk, sock=listener, limit=MAX_LINE_BYTES)


class WyomingConnection(Conversation):
    """One client, which may send several recordings."""

    protocol = "wyoming"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: Service) -> None:
        super().__init__(service)
        self.reader, self.writer = reader, writer
        self.language = service.recognizer.engine.checkpoint.config.language
        self.format = (0, 0, 0)  # rate in Hz, bytes of a sample, channels
        self.finals: list[Final] = []  # of the recording
        self.agreed = AgreedWords()  # of the utterance
        self.said = ""  # chunks of the recording
        self.outbox: Outbox

    async def run(self) -> None:
        end = await self.serve()
        self.service.metrics.session_ended(end.code)
        with suppress(asyncio.TimeoutError, *GONE):
            if end.code not in (status.WS_1000_NORMAL_CLOSURE, status.WS_1005_NO_STATUS_RCVD):
                error = Error(str(end), str(end.code)).event()
                await asyncio.wait_for(async_write_event(error, self.writer), CLOSE_TIMEOUT_S)
            self.writer.close()
            await asyncio.wait_for(self.writer.wait_closed(), CLOSE_TIMEOUT_S)

    async def talk(self) -> None:
        self.outbox = Outbox(self._write)
        try:
            while event := await self._receive():
                await self._obey(event)
                await self.outbox.drained()
        finally:
            if self.slot.closed is None:
                await self.outbox.close()

    async def deliver_last_final(self) -> None:
        if self.audio.open:
            await self._finish()
        await self.outbox.close()

    async def _obey(self, event: Event) -> None:
        if Describe.is_type(event.type):
            self.outbox.post(info(self.service))
        elif Ping.is_type(event.type):
            self.outbox.post(Pong(text=Ping.from_event(event).text))
        elif Transcribe.is_type(event.type):
            request = Transcribe.from_event(event)
            check_language(self.service.recognizer, request.language)
            phrases = [*(request.transcript_names or ()), *(request.transcript_terms or ())]
            if phrases or self.audio.hotwords != self.service.recognizer.hotwords:
                await self.audio.expect(phrases)
        elif AudioStart.is_type(event.type):
            self.audio.discard()
            self._begin(event)
        elif AudioChunk.is_type(event.type):
            if not self.audio.open:
                self._begin(event)
            await self.audio.push(self._samples(event.payload or b""))
            await self.audio.caught_up()
        elif AudioStop.is_type(event.type):
            await self._finish()

    def _begin(self, event: Event) -> None:
        """A recording of the format that the event says."""
        try:
            rate, width, channels = (int(event.data[key]) for key in ("rate", "width", "channels"))
        except (KeyError, TypeError, ValueError) as error:
            raise invalid("The audio needs its rate, width and channels.") from error
        if width != 2 or not 1 <= channels <= 8:
            raise invalid("The audio must have 16-bit samples (width 2) and at most 8 channels.")
        self.audio.set_rate(rate)
        self.format = rate, width, channels
        self.finals, self.said, self.agreed = [], "", AgreedWords()

    def _samples(self, payload: bytes) -> np.ndarray:
        """The mean of all channels."""
        samples, channels = linear16(payload), self.format[2]
        if len(samples) % channels:
            raise invalid(f"A chunk of {len(payload)} bytes is no whole number of frames.")
        return samples if channels == 1 else samples.reshape(-1, channels).mean(axis=1).astype(np.int16)

    async def _finish(self) -> None:
        """The recording ends: its text as a whole."""
        await self.audio.finish()
        text = " ".join(final.text for final in self.finals)
        if text and not self.said:
            self._say(text)
        self.outbox.post(Transcript(text=text, language=self.language))
        if self.said:
            self.outbox.post(TranscriptStop())

    def on_event(self, event: TextEvent) -> None:
        if isinstance(event, Final):
            self.finals.append(event)
            self.agreed = AgreedWords()
        elif chunk := self.agreed.update(event):
            self._say(chunk)

    def _say(self, text: str) -> None:
        """The next chunk of a transcript that is on its way."""
        if not self.said:
            self.outbox.post(TranscriptStart(language=self.language))
        elif not text.startswith(" "):
            text = " " + text  # a new utterance
        self.outbox.post(TranscriptChunk(text=text))
        self.said += text

    async def _write(self, message: Eventable) -> None:
        with self.slot.unread:
            await async_write_event(message.event(), self.writer)

    async def _receive(self) -> Event | None:
        """The next event; None at the end. (The package's own reader sets no limit to what a client sends.)"""
        with self.slot.idle:
            try:
                line = await self.reader.readline()
                if not line:
                    return None
                header = json.loads(line)
                sizes = [int(header.get(key) or 0) for key in ("data_length", "payload_length")]
                if min(sizes) < 0 or sum(sizes) > self.service.options.message_bytes:
                    raise SessionClosed(
                        status.WS_1009_MESSAGE_TOO_BIG,
                        f"An event may have {self.service.options.max_message} KiB at most.",
                    )
                data, payload = [await self.reader.readexactly(size) for size in sizes]
                fields: dict[str, Any] = {**(header.get("data") or {}), **(json.loads(data) if data else {})}
                return Event(str(header["type"]), fields, payload or None)
            except (ConnectionError, asyncio.IncompleteReadError):
                raise WebSocketDisconnect(status.WS_1006_ABNORMAL_CLOSURE) from None
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise invalid("This is no event of Wyoming: a line of JSON with a type, data and payload.") from error


def info(service: Service) -> Info:
    """What this server is, for `describe`."""
    config = service.recognizer.engine.checkpoint.config
    model = AsrModel(
        name=config.name,
        attribution=PROJECT,
        installed=True,
        description=f"{config.name} of Rill",
        version=__version__,
        languages=[config.language],
    )
    program = AsrProgram(
        name="rill",
        attribution=PROJECT,
        installed=True,
        description="Live speech recognition with a latency-controlled bidirectional LSTM",
        version=__version__,
        models=[model],
        supports_transcript_streaming=True,
    )
    return Info(asr=[program])
