"""Deepgram's live transcription, for the clients that speak it (https://developers.deepgram.com/reference/speech-to-text/listen-streaming).

    /v1/listen?encoding=linear16&sample_rate=16000&interim_results=true&punctuate=true&keyterm=rill
    client → server   bytes  audio: linear16, mulaw or alaw; without `encoding`, a mono 16-bit WAV file
                      JSON   {"type": "KeepAlive"}, {"type": "Finalize"}, {"type": "CloseStream"}
    server → client   JSON   {"type": "Results", "is_final": true, "speech_final": true, "start": 0.1, "duration": 1.2,
                              "channel": {"alternatives": [{"transcript", "confidence", "words": […]}]}, …}
                      JSON   {"type": "SpeechStarted"}, {"type": "UtteranceEnd"} where asked for, {"type": "Metadata"}

Where an utterance ends depends on the sound alone: `endpointing` and `utterance_end_ms` do not change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from starlette import status
from starlette.datastructures import QueryParams
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from asr import __version__
from asr.errors import RillError
from asr.inference.recognizer import Event
from asr.server.parameters import alternatives_wanted, check_language
from asr.server.pcm import DECODERS, wav_header
from asr.server.service import Service, SessionClosed
from asr.server.session import Outbox, SocketConversation, invalid
from asr.text.results import Final, Partial, Word

PATH = "/v1/listen"
UNSUPPORTED = ("multichannel", "diarize", "redact", "detect_entities", "callback")  # that would change what comes


def routes(service: Service) -> list[BaseRoute]:
    async def listen(socket: WebSocket) -> None:
        await DeepgramConnection(socket, service).run()

    return [WebSocketRoute(PATH, listen)]


def phrases(query: QueryParams) -> list[str]:
    """The words that a query says to expect."""
    return [*query.getlist("keyterm"), *(each.partition(":")[0] for each in query.getlist("keywords"))]


def flag(query: QueryParams, name: str) -> bool:
    return query.get(name, "false").lower() not in ("false", "0", "")


def alternatives(query: QueryParams) -> int:
    """How many sentences are wanted; 0 where one is enough. Raises RillError."""
    wanted = alternatives_wanted(query.get("alternatives", 1), "alternatives")
    return wanted if wanted > 1 else 0


def check_query(service: Service, query: QueryParams, unsupported: Sequence[str]) -> None:
    """Raises RillError for what this server does not do, and for another language."""
    for name in unsupported:
        if flag(query, name):
            raise RillError(f"This server has no {name}: leave it out.")
    check_language(service.recognizer, query.get("language"))
    encoding = query.get("encoding")
    if encoding and encoding not in DECODERS:
        raise RillError(f"The encoding must be one of {', '.join(DECODERS)}; a file needs none: send it in a request.")
    if encoding and "sample_rate" not in query:
        raise RillError("An encoding needs its sample_rate, in Hz.")


def alternative(text: str, words: Sequence[Word]) -> dict[str, Any]:
    """A text as Deepgram writes it."""
    return {
        "transcript": text,
        "confidence": round(sum(word.confidence for word in words) / max(1, len(words)), 3),
        "words": [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 3),
                **({} if word.written is None else {"punctuated_word": word.written}),
            }
            for word in words
        ],
    }


def audio_facts(request_id: str, sha256: str, seconds: float) -> dict[str, Any]:
    return {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": sha256,
        "created": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        "duration": round(seconds, 3),
        "channels": 1,
    }


def model_facts(service: Service) -> dict[str, Any]:
    name = service.recognizer.engine.checkpoint.config.name
    return {
        "model_info": {"name": name, "version": __version__, "arch": "rill"},
        "model_uuid": str(uuid5(NAMESPACE_URL, f"rill:{name}")),
    }


class DeepgramConnection(SocketConversation):
    """One client, from its query to `Metadata`."""

    protocol = "deepgram"
    subprotocols = ("token", "bearer")  # with which a page sends its token

    def __init__(self, socket: WebSocket, service: Service) -> None:
        super().__init__(socket, service)
        self.query = socket.query_params
        self.encoding = "linear16"
        self.interim, self.vad_events = flag(self.query, "interim_results"), flag(self.query, "vad_events")
        self.speaking = False  # SpeechStarted of the utterance was sent
        self.finalizing = False  # what comes was asked for by Finalize
        self.answered = False  # by a final, since Finalize
        self.request_id = str(uuid4())
        self.hash = hashlib.sha256()  # of the audio, as Deepgram reports it
        self.outbox: Outbox

    async def talk(self) -> None:
        self.outbox = Outbox(self.send)
        try:
            await self._configure()
            while True:
                message = await self.receive()
                if isinstance(message, bytes) and message:
                    await self._hear(message)
                    await self.outbox.drained()
                    continue
                kind = _parse(message) if message else "CloseStream"  # older clients end with an empty message
                if kind == "CloseStream":
                    await self.deliver_last_final()
                    return
                if kind == "Finalize":
                    await self._finalize()
                elif kind != "KeepAlive":
                    raise invalid(f"'{kind:.50}' is no message of a live transcription.")
        finally:
            if self.slot.closed is None:
                await self.outbox.close()

    async def deliver_last_final(self) -> None:
        await self.audio.finish()
        self._post(
            "Metadata",
            **audio_facts(self.request_id, self.hash.hexdigest(), self.audio.seconds),
        )
        await self.outbox.close()

    async def say_goodbye(self, end: SessionClosed) -> None:
        if end.code not in (status.WS_1000_NORMAL_CLOSURE, status.WS_1005_NO_STATUS_RCVD):
            await self.socket.send_text(_dumps({"type": "Error", "description": str(end), "variant": str(end.code)}))

    async def _configure(self) -> None:
        """What the query asks for. Raises SessionClosed and HotwordError."""
        query = self.query
        check_query(self.service, query, UNSUPPORTED)
        if query.get("channels", "1") != "1":
            raise invalid("This server transcribes one channel: send mono audio, with channels=1.")
        if encoding := query.get("encoding"):
            self.encoding = encoding
            self.audio.set_rate(query["sample_rate"])
        self.audio.punctuate = flag(query, "punctuate") or flag(query, "smart_format")
        self.audio.alternatives = alternatives(query)
        if expected := phrases(query):
            await self.audio.expect(expected)

    async def _hear(self, data: bytes) -> None:
        self.hash.update(data)
        if not self.audio.seconds and not self.audio.open and "encoding" not in self.query:
            header = wav_header(data)
            if header is None:
                raise invalid("The audio has no WAV header: say its encoding and sample_rate in the address.")
            rate, data = header
            self.audio.set_rate(rate)
        await self.audio.push(DECODERS[self.encoding](data))
        await self.audio.caught_up()

    async def _finalize(self) -> None:
        self.finalizing, self.answered = True, False
        await self.audio.finish()
        if not self.answered:
            self._post_results(Final.of([]))
        self.finalizing = False

    def on_event(self, event: Event) -> None:
        if not self.speaking and self.vad_events and event.words:
            self._post("SpeechStarted", channel=[0], timestamp=round(event.words[0].start, 3))
        self.speaking = not isinstance(event, Final)
        if isinstance(event, Partial):
            if self.interim:
                self._post_results(event)
            return
        self.answered = True
        self._post_results(event)
        if "utterance_end_ms" in self.query:
            self._post("UtteranceEnd", channel=[0, 1], last_word_end=round(event.end, 3))

    def _post_results(self, event: Event) -> None:
        words, final = event.words, isinstance(event, Final)
        others = (
            [alternative(each.text, each.words) for each in event.alternatives[1:]] if isinstance(event, Final) else []
        )
        start, end = (words[0].start, words[-1].end) if words else (self.audio.seconds, self.audio.seconds)
        self._post(
            "Results",
            channel_index=[0, 1],
            start=round(start, 3),
            duration=round(end - start, 3),
            is_final=final,
            speech_final=final and not self.finalizing,
            from_finalize=self.finalizing,
            channel={"alternatives": [alternative(event.text, words), *others]},
            metadata={"request_id": self.request_id, **model_facts(self.service)},
        )

    def _post(self, kind: str, **fields: Any) -> None:
        self.outbox.post(_dumps({"type": kind, **fields}))


def _parse(message: str | bytes) -> str:
    """The type of a message."""
    try:
        return str(json.loads(message)["type"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise invalid('A text message must be JSON with a "type"; audio must come as binary messages.') from error


def _dumps(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False).encode(errors="replace").decode()
