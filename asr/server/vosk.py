"""Vosk server's WebSocket protocol, for the clients that speak it (https://alphacephei.com/vosk/server).

    client → server   JSON   {"config": {"sample_rate": 16000, "words": true, "phrase_list": ["new york", …]}}
                      bytes  mono 16-bit PCM, little-endian, any length
                      JSON   {"reset": 1}   what was said becomes final, and another recording follows
                      JSON   {"eof": 1}     no more sound
    server → client   JSON   {"partial": "…"}   one answer to each binary message; or, where something became final,
                      JSON   {"text": "…", "result": [{"word", "start", "end", "conf"}, …]}   also to reset and eof

Clients send, then wait for the answer: in lock-step. An answer waits for its sound to be recognised, but not for long,
so that a busy server does not slow a live client down; a client that sends faster than that is held up instead.
"""
from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.audio.reading import SAMPLE_RATE, Resampler
from asr.decoding.decoder import shift
from asr.decoding.hotwords import parse_list
from asr.errors import AudioError, RillError
from asr.server.service import DONE, FAILED, INVALID, TRY_LATER, Busy, Leave, Place, Service
from asr.server.session import Session

PATIENCE = 0.5  # of the time that its sound lasts: so long may an answer wait for it, and no live client falls behind
HELD_UP = 2.0  # seconds of sound that may wait; a client that has sent more gets its answer later
LONGEST_REASON = 123  # bytes of a close frame's reason (RFC 6455, section 5.5)
FAREWELL = 2.0  # seconds in which a client must take the last message and the close frame
ANYTHING = "[unk]"  # in a Vosk grammar: all other words, which are never excluded here
UNDERSTOOD = ("config", "reset", "eof")
log = logging.getLogger(__name__)


def routes(service: Service) -> list[BaseRoute]:
    async def vosk(socket: WebSocket) -> None:
        await Conversation(socket, service).run()

    return [WebSocketRoute(path, vosk) for path in ("/ws", "/")]


class Conversation:
    """One client, from its first message to the last answer."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket, self.service = socket, service
        self.sample_rate = float(SAMPLE_RATE)
        self.words = True
        self.hotwords = service.recognizer.hotwords
        self.session: Session | None = None
        self.offset = 0.0  # seconds of the recordings before the last reset

    async def run(self) -> None:
        await self.socket.accept()
        leave = await self._serve()
        self.service.metrics.left(leave.code)
        reason = str(leave).encode()[:LONGEST_REASON].decode(errors="ignore")
        with suppress(asyncio.TimeoutError, WebSocketDisconnect, RuntimeError):  # the client may have gone
            await asyncio.wait_for(self.socket.close(leave.code, reason), FAREWELL)

    async def _serve(self) -> Leave:
        """Talk until the end, and say why it was one."""
        try:
            with self.service.place("vosk") as place:
                try:
                    await self._talk(place)
                    return Leave(DONE, "")
                except asyncio.CancelledError:
                    if place.leave is None:
                        raise
                    await self._say_goodbye()
                    return place.leave
                finally:
                    if self.session:
                        self.session.cancel()
        except WebSocketDisconnect as gone:
            return Leave(gone.code, "")
        except Leave as leave:
            return leave
        except Busy as error:
            return Leave(TRY_LATER, str(error))
        except RillError as error:
            return Leave(INVALID, str(error))
        except Exception:
            log.exception("A session failed.")
            return Leave(FAILED, "Recognition failed; the server's log says why.")

    async def _talk(self, place: Place) -> None:
        while True:
            with place.waiting:
                message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            command: dict[str, Any] = {}
            if message.get("bytes") is not None:
                answer = await self._hear(message["bytes"])
            else:
                command = _parse(message["text"])
                if "config" in command:
                    await self._configure(command["config"], place)
                    continue
                answer = await self._finish()
            with place.waiting:
                await self.socket.send_text(answer)
            if "eof" in command:
                return

    async def _configure(self, config: object, place: Place) -> None:
        if not isinstance(config, dict):
            raise Leave(INVALID, "The config must be a JSON object.")
        try:
            rate = float(config.get("sample_rate", self.sample_rate))
        except (TypeError, ValueError, OverflowError) as error:
            raise Leave(INVALID, "The sample_rate must be a number of Hz.") from error
        try:
            Resampler(rate)
        except AudioError as error:
            raise Leave(INVALID, f"The sample_rate cannot be used: {error}") from error
        if self.session and rate != self.sample_rate:
            raise Leave(INVALID, "The sample_rate cannot change inside a recording: send a reset first.")
        self.sample_rate = rate
        self.words = bool(config.get("words", self.words))
        if "phrase_list" in config:
            await self._boost(config["phrase_list"], place)

    async def _boost(self, phrases: object, place: Place) -> None:
        """Expect these phrases, from the next utterance on; all other words remain possible."""
        if isinstance(phrases, list):
            phrases = [phrase for phrase in phrases if phrase != ANYTHING]
        hotwords = await asyncio.to_thread(parse_list, phrases)
        place.hold(hotwords)
        self.hotwords = (*self.service.recognizer.hotwords, *hotwords)
        await self.service.prepare(self.hotwords)
        if self.session:
            self.session.stream.hotwords = self.hotwords

    async def _hear(self, data: bytes) -> str:
        """Sound → the answer to it."""
        if len(data) % 2:
            raise Leave(INVALID, f"A message of {len(data)} bytes is no 16-bit sound: send an even number.")
        if self.session is None:
            await self.service.prepare(self.hotwords)
            stream = self.service.recognizer.stream(self.sample_rate, hotwords=self.hotwords)
            self.session = Session(stream, "vosk", self.service.metrics)
        samples = np.frombuffer(data, dtype="<i2")
        self.session.push(samples)
        patience = 0.0 if self.session.finals else PATIENCE * len(samples) / self.sample_rate
        await self.session.caught_up(HELD_UP, patience)
        return self._final(self.session) if self.session.finals else _partial(self.session.partial)

    async def _finish(self) -> str:
        """The end of a recording: its last words."""
        if self.session is None:
            return _dumps({"text": ""})
        await self.session.finish()
        answer = self._final(self.session)
        self.offset += self.session.seconds
        self.session = None
        return answer

    async def _say_goodbye(self) -> None:
        """What was heard becomes final, also where the client does not end the recording."""
        with suppress(asyncio.TimeoutError, WebSocketDisconnect, RuntimeError, RillError):
            if self.session:
                await asyncio.wait_for(self.socket.send_text(await self._finish()), FAREWELL)

    def _final(self, session: Session) -> str:
        """All finals that the client does not know, as one."""
        words = shift([word for final in session.finals for word in final.words], self.offset)
        session.finals.clear()
        answer: dict[str, Any] = {"text": " ".join(word.text for word in words)}
        if words and self.words:
            answer["result"] = [{"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3),
                                 "conf": round(word.confidence, 3)} for word in words]
        return _dumps(answer)


def _parse(text: str) -> dict[str, Any]:
    try:
        command = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Leave(INVALID, "A text message is not JSON; sound must come as binary messages.") from error
    if not isinstance(command, dict) or not set(UNDERSTOOD) & set(command):
        raise Leave(INVALID, f"A text message must be a JSON object with one of: {', '.join(UNDERSTOOD)}.")
    return command


@lru_cache(maxsize=256)
def _partial(text: str) -> str:
    """Most answers repeat the one before."""
    return _dumps({"partial": text})


def _dumps(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False)
