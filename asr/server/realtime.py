"""OpenAI's Realtime API for transcription (https://platform.openai.com/docs/guides/realtime-transcription).

    client → server   {"type": "session.update", "session": {"type": "transcription", "audio": {"input": {
                          "format": {"type": "audio/pcm", "rate": 24000},           or audio/pcmu, audio/pcma: 8 kHz
                          "transcription": {"model": …, "language": "en", "prompt": "names, and terms"},
                          "turn_detection": {"type": "server_vad"}}}}}              or null: the client commits
                      {"type": "input_audio_buffer.append", "audio": BASE64}   or .commit, .clear
    server → client   session.created, session.updated, input_audio_buffer.speech_started, .speech_stopped, .committed,
                      .cleared, conversation.item.added, .done, error, and for each item
                      conversation.item.input_audio_transcription.delta, .completed

Clients of the beta (`OpenAI-Beta: realtime=v1`) send `transcription_session.update`, whose session is flat. A delta
never takes words back; `completed` has the text that counts. Errors that a client can repair leave the session open.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from starlette import status
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from asr.errors import RillError
from asr.inference.recognizer import Event
from asr.server.parameters import check_language, check_model, logprobs, prompt_phrases
from asr.server.pcm import DECODERS
from asr.server.service import Busy, Service, SessionClosed
from asr.server.session import AgreedWords, Outbox, SocketConversation
from asr.text.results import Final

PATH = "/v1/realtime"
PCM_RATE_HZ, G711_RATE_HZ = 24_000, 8_000
FORMATS = {"audio/pcm": "linear16", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
BETA_SUBPROTOCOL, BETA_HEADER = "openai-beta.realtime-v1", "realtime=v1"
LOGPROBS = "item.input_audio_transcription.logprobs"


def routes(service: Service) -> list[BaseRoute]:
    async def realtime(socket: WebSocket) -> None:
        await RealtimeConnection(socket, service).run()

    return [WebSocketRoute(PATH, realtime)]


class BadEvent(RillError):
    """An event that the server cannot obey; the session goes on."""


class RealtimeConnection(SocketConversation):
    """One client, from `session.created` to the close frame."""

    protocol = "realtime"
    subprotocols = ("realtime",)

    def __init__(self, socket: WebSocket, service: Service) -> None:
        super().__init__(socket, service)
        self.id = f"sess_{uuid4().hex}"
        offered = socket.scope.get("subprotocols", ())
        self.beta = socket.headers.get("openai-beta") == BETA_HEADER or BETA_SUBPROTOCOL in offered
        self.format = "audio/pcm"
        self.transcription: dict[str, Any] = {"model": service.recognizer.engine.checkpoint.config.name}
        self.detects_turns = True
        self.include: list[str] = []
        self.item = _new_item()
        self.item_before: str | None = None
        self.speaking = False  # the client knows that the item's speech has begun
        self.said = ""  # deltas of the item
        self.agreed = AgreedWords()  # of the utterance
        self.finals: list[Final] = []  # of the item
        self.outbox: Outbox

    async def talk(self) -> None:
        self.audio.sample_rate = PCM_RATE_HZ
        self.outbox = Outbox(self.send)
        self._post_session("created", self.beta)
        try:
            while True:
                event: Any = {}
                try:
                    event = _parse(await self.receive())
                    await self._obey(event)
                except (RillError, SessionClosed) as error:
                    if isinstance(error, SessionClosed) and error.code != status.WS_1007_INVALID_FRAME_PAYLOAD_DATA:
                        raise
                    self._post_error(str(error), "server_error" if isinstance(error, Busy) else None, event)
                await self.outbox.drained()
        finally:
            if self.slot.closed is None:
                await self.outbox.close()

    async def deliver_last_final(self) -> None:
        await self._commit()
        await self.outbox.close()

    async def say_goodbye(self, end: SessionClosed) -> None:
        if end.code not in (status.WS_1000_NORMAL_CLOSURE, status.WS_1005_NO_STATUS_RCVD):
            kind = "invalid_request_error" if end.code == status.WS_1007_INVALID_FRAME_PAYLOAD_DATA else "server_error"
            await self.socket.send_text(_dumps({"type": "error", "error": _error(str(end), kind)}))

    async def _obey(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "input_audio_buffer.append":
            await self._append(event.get("audio"))
        elif kind == "input_audio_buffer.commit":
            if not self.audio.open:
                raise BadEvent("The input audio buffer is empty: append audio before you commit it.")
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            self.audio.discard()
            self._begin_item()
            self._post("input_audio_buffer.cleared")
        elif kind in ("session.update", "transcription_session.update"):
            session = event.get("session")
            if not isinstance(session, dict):
                raise BadEvent("session: must be an object.")
            await self._update(_from_beta(session) if kind.startswith("transcription") else session)
            self._post_session("updated", kind.startswith("transcription"))
        else:
            raise BadEvent(f"'{kind!s:.100}' is no event of a transcription session.")

    async def _append(self, audio: object) -> None:
        try:
            data = base64.b64decode(audio, validate=True) if isinstance(audio, str) else None
        except (binascii.Error, ValueError):
            data = None
        if data is None:
            raise BadEvent("audio: must be base64.")
        await self.audio.push(DECODERS[FORMATS[self.format]](data))
        await self.audio.caught_up()

    async def _update(self, session: Mapping[str, Any]) -> None:
        """All of the settings, or none where one cannot be used."""
        if session.get("type", "transcription") != "transcription":
            raise BadEvent("session.type: this server transcribes only; ask for a session of type 'transcription'.")
        given = session.get("audio")
        given = (given.get("input") if isinstance(given, dict) else None) or {}
        if not isinstance(given, dict):
            raise BadEvent("session.audio.input: must be an object.")
        transcription = {**self.transcription, **_object(given, "transcription")}
        check_model(self.service.recognizer, str(transcription["model"]))
        check_language(self.service.recognizer, transcription.get("language"))
        format = _object(given, "format") or {"type": self.format, "rate": self.audio.sample_rate}
        kind = format.get("type", "audio/pcm")
        if kind not in FORMATS:
            raise BadEvent(f"format.type: must be one of {', '.join(FORMATS)}.")
        turns = _object(given, "turn_detection")
        self.audio.set_rate(format.get("rate", PCM_RATE_HZ) if kind == "audio/pcm" else G711_RATE_HZ)
        if "transcription" in given:
            phrases = transcription.get("keywords") or prompt_phrases(transcription.get("prompt"))
            if self.service.recognizer.engine.language_model:  # without it there are no hot words
                await self.audio.expect(phrases)
        if "turn_detection" in given:
            self.detects_turns = bool(turns)
        include = session.get("include")
        if isinstance(include, list):
            self.include = [each for each in include if each == LOGPROBS]
        self.format, self.transcription = kind, transcription

    async def _commit(self) -> None:
        """The recording ends, and with it the item."""
        item, open = self.item, self.audio.open
        await self.audio.finish()
        if open and item == self.item:  # no turn has ended it
            self._complete()

    def on_event(self, event: Event) -> None:
        if not event.words:  # a partial that was taken back
            return
        if self.detects_turns and not self.speaking:
            start_ms = _ms(event.words[0].start)
            self._post("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=self.item)
        self.speaking = True
        if isinstance(event, Final):
            self.finals.append(event)
            self.agreed = AgreedWords()
            if self.detects_turns:
                self._post("input_audio_buffer.speech_stopped", audio_end_ms=_ms(event.end), item_id=self.item)
                self._complete()
        elif delta := self.agreed.update(event):
            if self.said and not delta.startswith(" "):
                delta = " " + delta
            self.said += delta
            self._post(f"{_TRANSCRIPTION}.delta", item_id=self.item, content_index=0, delta=delta)

    def _complete(self) -> None:
        """The item has all its text."""
        transcript = " ".join(final.text for final in self.finals)
        self._post("input_audio_buffer.committed", item_id=self.item, previous_item_id=self.item_before)
        content = {"type": "input_audio", "transcript": None}
        item = {"id": self.item, "type": "message", "status": "completed", "role": "user", "content": [content]}
        for kind in ("created",) if self.beta else ("added", "done"):
            self._post(f"conversation.item.{kind}", previous_item_id=self.item_before, item=item)
        if transcript and not self.said:
            self._post(f"{_TRANSCRIPTION}.delta", item_id=self.item, content_index=0, delta=transcript)
        words = [word for final in self.finals for word in final.words]
        self._post(
            f"{_TRANSCRIPTION}.completed",
            item_id=self.item,
            content_index=0,
            transcript=transcript,
            logprobs=logprobs(words) if self.include else None,
            usage={"type": "duration", "seconds": round(sum(each.end - each.start for each in self.finals), 3)},
        )
        self.item_before = self.item
        self._begin_item()

    def _begin_item(self) -> None:
        self.item, self.speaking, self.said = _new_item(), False, ""
        self.agreed, self.finals = AgreedWords(), []

    def _post(self, kind: str, **fields: Any) -> None:
        self.outbox.post(_dumps({"type": kind, "event_id": f"event_{uuid4().hex}", **fields}))

    def _post_session(self, verb: str, beta: bool) -> None:
        turns = None
        if self.detects_turns:
            silence_ms = _ms(self.service.recognizer.rules.min_trailing_silence)
            turns = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 0, "silence_duration_ms": silence_ms}
        session: dict[str, Any] = {"id": self.id, "object": "realtime.transcription_session", "include": self.include}
        if beta:
            format = next(name for name, kind in BETA_FORMATS.items() if kind == self.format)
            session |= {"input_audio_format": format, "input_audio_transcription": self.transcription}
            self._post(f"transcription_session.{verb}", session={**session, "turn_detection": turns})
            return
        audio = {
            "format": {"type": self.format}
            | ({"rate": round(self.audio.sample_rate)} if self.format[6:] == "pcm" else {}),
            "transcription": self.transcription,
            "noise_reduction": None,
            "turn_detection": turns,
        }
        self._post(f"session.{verb}", session={**session, "type": "transcription", "audio": {"input": audio}})

    def _post_error(self, message: str, kind: str | None, event: Mapping[str, Any]) -> None:
        cause = event.get("event_id")
        error = _error(message, kind or "invalid_request_error", cause if isinstance(cause, str) else None)
        self._post("error", error=error)


_TRANSCRIPTION = "conversation.item.input_audio_transcription"


def _parse(message: str | bytes) -> dict[str, Any]:
    try:
        event = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise BadEvent("A message must be JSON; audio comes as base64 inside it.") from error
    if not isinstance(event, dict):
        raise BadEvent("A message must be a JSON object.")
    return event


def _object(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = given.get(key)
    if value is not None and not isinstance(value, dict):
        raise BadEvent(f"{key}: must be an object or null.")
    return {name: each for name, each in (value or {}).items() if each is not None}


def _from_beta(session: Mapping[str, Any]) -> dict[str, Any]:
    """The beta's flat session in the form that replaced it."""
    given: dict[str, Any] = {}
    if "input_audio_format" in session:
        given["format"] = {"type": BETA_FORMATS.get(str(session["input_audio_format"]), "")}
    if "input_audio_transcription" in session:
        given["transcription"] = session["input_audio_transcription"]
    if "turn_detection" in session:
        given["turn_detection"] = session["turn_detection"]
    return {"audio": {"input": given}, "include": session.get("include")}


def _error(message: str, kind: str, cause: str | None = None) -> dict[str, Any]:
    return {"type": kind, "code": None, "message": message, "param": None, "event_id": cause}


def _new_item() -> str:
    return f"item_{uuid4().hex}"


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _dumps(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False).encode(errors="replace").decode()
