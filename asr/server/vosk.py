"""Vosk server's WebSocket protocol, for the clients that speak it (https://alphacephei.com/vosk/server).

    client → server   JSON   {"config": {"sample_rate": 16000, "words": true, "partial_words": false,
                                         "phrase_list": ["new york", …], "max_alternatives": 0,
                                         "punctuate": true}}   ours: `text` is written as sentences, words stay raw
                      bytes  mono 16-bit PCM, little-endian, any length
                      JSON   {"reset": 1}   end of a recording; another one follows
                      JSON   {"eof": 1}     end of stream
    server → client   JSON   {"partial": "…", "partial_result": […]}   the answer to a binary message; or, at its end,
                      JSON   {"text": "…", "result": [{"word", "start", "end", "conf"}, …]}   also to reset and eof
                             with max_alternatives {"alternatives": [{"confidence", "text", "result"}, …]}

Clients send a message and then wait for its answer. The server answers when it has recognized the audio of the message,
or after half the time that this audio lasts, so that load never slows a live client down. It slows a client down that
sends faster than real time. Audio may begin with the header of a WAV file, as some clients send it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from asr.inference.recognizer import Event
from asr.server.parameters import alternatives_wanted
from asr.server.pcm import linear16, wav_header
from asr.server.service import Service
from asr.server.session import CLOSE_TIMEOUT_S, SocketConversation, invalid
from asr.text.results import Final, Partial, Word, join_alternatives

MAX_ANSWER_DELAY = 0.5  # of the duration of a message's audio; then its answer is sent, although the audio still waits
UNKNOWN_WORD = "[unk]"  # in a Vosk grammar: all other words, which are never excluded here
COMMANDS = ("config", "reset", "eof")


def routes(service: Service) -> list[BaseRoute]:
    async def vosk(socket: WebSocket) -> None:
        await VoskConnection(socket, service).run()

    return [WebSocketRoute(path, vosk) for path in ("/ws", "/")]


class VoskConnection(SocketConversation):
    """One client, from its first message to the last answer."""

    protocol = "vosk"

    def __init__(self, socket: WebSocket, service: Service) -> None:
        super().__init__(socket, service)
        self.rate_chosen = False  # by the client
        self.words, self.partial_words = True, False
        self.finals: list[Final] = []  # that the client does not know yet
        self.partial: Partial | None = None  # text after them

    async def talk(self) -> None:
        self.audio.sample_rate = self.service.options.sample_rate
        self.audio.punctuate = False  # Vosk's text is raw
        while True:
            message = await self.receive()
            if isinstance(message, bytes):
                await self.send(await self._recognize(message))
                continue
            command = _parse(message)
            if "config" in command:
                await self._configure(command["config"])
                continue
            await self.audio.finish()
            await self.send(self._final_answer())
            if "eof" in command:
                return

    async def deliver_last_final(self) -> None:
        await super().deliver_last_final()
        await asyncio.wait_for(self.send(self._final_answer()), CLOSE_TIMEOUT_S)

    def on_event(self, event: Event) -> None:
        if isinstance(event, Final):
            self.finals.append(event)
            self.partial = None
        else:
            self.partial = event

    async def _configure(self, config: object) -> None:
        if not isinstance(config, dict):
            raise invalid("The config must be a JSON object.")
        if "sample_rate" in config:
            self.audio.set_rate(config["sample_rate"])
            self.rate_chosen = True
        self.words = bool(config.get("words", self.words))
        self.partial_words = bool(config.get("partial_words", self.partial_words))
        if "max_alternatives" in config:
            self.audio.alternatives = alternatives_wanted(config["max_alternatives"], "max_alternatives")
        self.audio.punctuate = bool(config.get("punctuate", self.audio.punctuate))
        if "phrase_list" in config:
            phrases = config["phrase_list"]
            if isinstance(phrases, list):
                phrases = [phrase for phrase in phrases if phrase != UNKNOWN_WORD]
            await self.audio.expect(phrases)

    async def _recognize(self, data: bytes) -> str:
        """The answer to a message of audio."""
        if not self.audio.open and (header := wav_header(data)):
            rate, data = header
            if self.rate_chosen and rate != self.audio.sample_rate:
                raise invalid(
                    f"The audio is a WAV file of {rate} Hz, but the config says {self.audio.sample_rate:g} Hz: "
                    f"send the file's own sample_rate."
                )
            self.audio.set_rate(rate)
        samples = linear16(data)
        await self.audio.push(samples)
        delay = 0.0 if self.finals else MAX_ANSWER_DELAY * len(samples) / self.audio.sample_rate
        await self.audio.caught_up(delay)
        return self._final_answer() if self.finals else self._partial_answer()

    def _partial_answer(self) -> str:
        if self.partial_words and self.partial:
            return _dumps({"partial": self.partial.text, "partial_result": _result(self.partial.words)})
        return _plain_partial(self.partial.text if self.partial else "")

    def _final_answer(self) -> str:
        """All finals that the client does not know, as one."""
        if self.audio.alternatives:
            return self._alternatives_answer()
        words = [word for final in self.finals for word in final.words]
        self.finals.clear()
        answer: dict[str, Any] = {"text": " ".join(word.display for word in words)}
        if words and self.words:
            answer["result"] = _result(words)
        return _dumps(answer)

    def _alternatives_answer(self) -> str:
        answers = []
        for each in join_alternatives(self.finals, self.audio.alternatives):
            answer: dict[str, Any] = {"confidence": round(each.confidence, 3), "text": each.text}
            if each.words and self.words:
                answer["result"] = [
                    {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in each.words
                ]
            answers.append(answer)
        self.finals.clear()
        return _dumps({"alternatives": answers})


def _result(words: Sequence[Word]) -> list[dict[str, Any]]:
    return [
        {
            "word": word.text,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "conf": round(word.confidence, 3),
        }
        for word in words
    ]


def _parse(text: str) -> dict[str, Any]:
    try:
        command = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("A text message is not JSON; audio must come as binary messages.") from error
    if not isinstance(command, dict) or not set(COMMANDS) & set(command):
        raise invalid(f"A text message must be a JSON object with one of: {', '.join(COMMANDS)}.")
    return command


@lru_cache(maxsize=256)
def _plain_partial(text: str) -> str:
    """Most answers repeat the one before."""
    return _dumps({"partial": text})


def _dumps(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False)
