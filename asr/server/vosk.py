"""Vosk server's WebSocket protocol, for the clients that speak it (https://alphacephei.com/vosk/server).

    client → server   JSON   {"config": {"sample_rate": 16000, "words": true, "phrase_list": ["new york", …],
                                         "punctuate": true}}   ours: `text` is written as sentences, words stay raw
                      bytes  mono 16-bit PCM, little-endian, any length
                      JSON   {"reset": 1}   end of a recording; another one follows
                      JSON   {"eof": 1}     end of stream
    server → client   JSON   {"partial": "…"}   one answer to each binary message; or, where an utterance ended,
                      JSON   {"text": "…", "result": [{"word", "start", "end", "conf"}, …]}   also to reset and eof

Clients send a message and then wait for its answer. The server answers when it has recognized the audio of the message,
or after half the time that this audio lasts, so that load never slows a live client down. It slows a client down that
sends faster than real time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from starlette import status
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.audio.reading import SAMPLE_RATE, Resampler
from asr.decoding.decoder import shift
from asr.decoding.hotwords import parse_list
from asr.errors import AudioError, RillError
from asr.inference.async_session import AsyncSession
from asr.inference.recognizer import Event
from asr.server.metrics import FinalLatency
from asr.server.service import Busy, Service, SessionClosed, SessionSlot
from asr.text.results import Final

MAX_ANSWER_DELAY = 0.5  # of the duration of a message's audio; then its answer is sent, although the audio still waits,
MAX_WAITING_AUDIO_S = 2.0  # unless more than this waits: the client sends too fast
MAX_REASON_BYTES = 123  # of a close frame (RFC 6455, section 5.5)
CLOSE_TIMEOUT_S = 2.0  # in which a client must take the last message and the close frame
UNKNOWN_WORD = "[unk]"  # in a Vosk grammar: all other words, which are never excluded here
COMMANDS = ("config", "reset", "eof")
log = logging.getLogger(__name__)


def routes(service: Service) -> list[BaseRoute]:
    async def vosk(socket: WebSocket) -> None:
        await VoskConnection(socket, service).run()

    return [WebSocketRoute(path, vosk) for path in ("/ws", "/")]


class VoskConnection:
    """One client, from its first message to the last answer."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket, self.service = socket, service
        self.sample_rate = float(SAMPLE_RATE)
        self.words = True
        self.punctuate = False  # Vosk's text is raw
        self.hotwords = service.recognizer.hotwords
        self.session: AsyncSession | None = None  # of the recording
        self.offset = 0.0  # seconds of the recordings before the last reset
        self.finals: list[Final] = []  # that the client does not know yet
        self.partial = ""  # text after them
        self.latency = FinalLatency(service.metrics)  # of the recording

    async def run(self) -> None:
        await self.socket.accept()
        end = await self._serve()
        self.service.metrics.session_ended(end.code)
        reason = str(end).encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
        with suppress(asyncio.TimeoutError, WebSocketDisconnect, RuntimeError):  # the client may have gone
            await asyncio.wait_for(self.socket.close(end.code, reason), CLOSE_TIMEOUT_S)

    async def _serve(self) -> SessionClosed:
        """Answer messages until the end, and return why it was one."""
        try:
            with self.service.slot("vosk") as slot:
                try:
                    await self._answer_messages(slot)
                    return SessionClosed(status.WS_1000_NORMAL_CLOSURE, "")
                except asyncio.CancelledError:
                    if slot.closed is None:
                        raise
                    await self._deliver_last_final()
                    return slot.closed
                finally:
                    if self.session:
                        self.session.cancel()
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

    async def _answer_messages(self, slot: SessionSlot) -> None:
        while True:
            with slot.idle:
                message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", status.WS_1005_NO_STATUS_RCVD))
            command: dict[str, Any] = {}
            if message.get("bytes") is not None:
                answer = await self._recognize(message["bytes"], slot)
            else:
                command = _parse(message["text"])
                if "config" in command:
                    await self._configure(command["config"], slot)
                    continue
                answer = await self._finish()
            with slot.idle:
                await self.socket.send_text(answer)
            if "eof" in command:
                return

    async def _configure(self, config: object, slot: SessionSlot) -> None:
        if not isinstance(config, dict):
            raise invalid("The config must be a JSON object.")
        try:
            rate = float(config.get("sample_rate", self.sample_rate))
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid("The sample_rate must be a number of Hz.") from error
        try:
            Resampler(rate)
        except AudioError as error:
            raise invalid(f"The sample_rate cannot be used: {error}") from error
        if self.session and rate != self.sample_rate:
            raise invalid("The sample_rate cannot change inside a recording: send a reset first.")
        self.sample_rate = rate
        self.words = bool(config.get("words", self.words))
        self.punctuate = bool(config.get("punctuate", self.punctuate))
        if "phrase_list" in config:
            await self._boost(config["phrase_list"], slot)

    async def _boost(self, phrases: object, slot: SessionSlot) -> None:
        """Make these phrases more likely from the next utterance on; all other words remain possible."""
        if isinstance(phrases, list):
            phrases = [phrase for phrase in phrases if phrase != UNKNOWN_WORD]
        hotwords = await asyncio.to_thread(parse_list, phrases)
        self.hotwords = await slot.prepare(hotwords, beside=self.service.recognizer.hotwords)
        if self.session:
            self.session.set_hotwords(self.hotwords)

    async def _recognize(self, data: bytes, slot: SessionSlot) -> str:
        """The answer to a message of audio."""
        if len(data) % 2:
            raise invalid(f"A message of {len(data)} bytes is no 16-bit audio: send an even number.")
        if self.session is None:
            await self.service.build_search(self.hotwords)
            self.latency = FinalLatency(self.service.metrics)
            self.session = slot.session(
                self.sample_rate, self._on_event, hotwords=self.hotwords, punctuate=self.punctuate
            )
        samples = np.frombuffer(data, dtype="<i2")
        self.session.push(samples)
        self.latency.arrived(self.session.seconds)
        patience = 0.0 if self.finals else MAX_ANSWER_DELAY * len(samples) / self.sample_rate
        await self.session.caught_up(MAX_WAITING_AUDIO_S, patience)
        return self._final_answer() if self.finals else _partial_answer(self.partial)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Final):
            self.finals.append(event)
            self.partial = ""
            self.latency.observe(event)
        else:
            self.partial = event.text

    async def _finish(self) -> str:
        """The answer to the end of a recording: its last final."""
        if self.session is None:
            return _dumps({"text": ""})
        await self.session.finish()
        answer = self._final_answer()
        self.offset += self.session.seconds
        self.session, self.partial = None, ""
        return answer

    async def _deliver_last_final(self) -> None:
        """Finalize what came so far, although the client has not ended the recording."""
        with suppress(asyncio.TimeoutError, WebSocketDisconnect, RuntimeError, RillError):
            if self.session:
                await asyncio.wait_for(self.socket.send_text(await self._finish()), CLOSE_TIMEOUT_S)

    def _final_answer(self) -> str:
        """All finals that the client does not know, as one."""
        words = shift([word for final in self.finals for word in final.words], self.offset)
        self.finals.clear()
        answer: dict[str, Any] = {"text": " ".join(word.display for word in words)}
        if words and self.words:
            answer["result"] = [
                {
                    "word": word.text,
                    "start": round(word.start, 3),
                    "end": round(word.end, 3),
                    "conf": round(word.confidence, 3),
                }
                for word in words
            ]
        return _dumps(answer)


def invalid(reason: str) -> SessionClosed:
    """The end of a session whose client sent something that the server does not understand."""
    return SessionClosed(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, reason)


def _parse(text: str) -> dict[str, Any]:
    try:
        command = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("A text message is not JSON; audio must come as binary messages.") from error
    if not isinstance(command, dict) or not set(COMMANDS) & set(command):
        raise invalid(f"A text message must be a JSON object with one of: {', '.join(COMMANDS)}.")
    return command


@lru_cache(maxsize=256)
def _partial_answer(text: str) -> str:
    """Most answers repeat the one before."""
    return _dumps({"partial": text})


def _dumps(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False)
