"""OpenAI's transcription API, for the clients that speak it (https://platform.openai.com/docs/api-reference/audio)."""
from __future__ import annotations

import asyncio
import json
import math
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asr.errors import RillError
from asr.server.access import refusal
from asr.server.service import Busy, Service
from asr.text.results import Final, Transcript
from asr.text.writers import render

PATH = "/v1/audio/transcriptions"
# Models' names that clients have built in; those that stream must use one of the latter two.
ALIASES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
LANGUAGES = {"en": "english"}  # ISO 639-1 → as OpenAI writes it; others are written as they are
RECEIVED = 4  # times as many recordings as are transcribed may be on their way
LAST_WORD = 5.0  # seconds before the server's end at which a recording that has not ended is given up
LEAST = 1e-3  # confidence that a logarithm is taken of
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The text, in the format that was asked for.",
          "content": {"application/json": {"example": {"text": "there was nothing on the rock"}},
                      "text/plain": {"example": "there was nothing on the rock"},
                      "text/event-stream": {"example": 'data: {"type": "transcript.text.done", "text": "…"}'}}},
    400: {"description": "The recording, or a parameter, cannot be used."},
    401: {"description": "The server wants a bearer token."},
    404: {"description": "There is no such model."},
    413: {"description": "The recording is too large or too long."},
    503: {"description": "All places are taken: try again later."}}


class NoModel(HTTPException):
    """There is no such model; clients know it by `code`."""

    code = "model_not_found"


Part = tuple[float, list[Final]]  # seconds read so far, segments that became known


class ResponseFormat(str, Enum):
    json = "json"
    text = "text"
    srt = "srt"
    vtt = "vtt"
    verbose_json = "verbose_json"


class Granularity(str, Enum):
    word = "word"
    segment = "segment"


Recording = Annotated[UploadFile, File(description="A sound or video file in any format that FFmpeg reads.")]
Model = Annotated[str, Form(description="The model's name, as `GET /v1/models` has it; `whisper-1` and OpenAI's other "
                                        "names are understood too.")]
Language = Annotated[str | None, Form(description="The model's own language, as ISO 639-1; another one is refused.")]
Prompt = Annotated[str | None, Form(description="Accepted, and not used.")]
Format = Annotated[ResponseFormat, Form(description="`text`, `srt` and `vtt` come as plain text.")]
Temperature = Annotated[float, Form(description="Accepted, and not used: the search is deterministic.")]
Stream = Annotated[bool, Form(description="Send the text as it becomes known, as server-sent events "
                                          "(`transcript.text.delta`, `transcript.text.done`). With `json` only.")]
Granularities = Annotated[list[Granularity] | None, Form(
    alias="timestamp_granularities[]", description="What `verbose_json` gives times of; segments by default.")]


def router(service: Service) -> APIRouter:
    door = Door(service)
    api = APIRouter(tags=["OpenAI's API"])
    api.get("/v1/models", summary="The models that can be asked for: one")(door.models)
    api.get("/v1/models/{name}", summary="One model")(door.model)
    api.post(PATH, summary="A recording as text, subtitles or JSON", responses=ANSWERS,
             response_class=Response)(door.transcribe)
    return api


class Room:
    """An ASGI middleware that bounds what is received before it is known what it is: recordings for which there is no
    place, and more than `RECEIVED` times as many as there are places."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.inside = 0  # requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            self.service.expect_upload()
            if self.inside >= RECEIVED * self.service.limits.uploads:
                raise Busy("Too many recordings are being received: try again later.")
        except Busy as error:
            await refusal(503, str(error))(scope, receive, send)
            return
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1


class Door:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.checkpoint = service.recognizer.checkpoint

    def models(self) -> dict[str, Any]:
        """As OpenAI's list, with the checkpoint that this server runs."""
        return {"object": "list", "data": [self.model(self.checkpoint.config.name)]}

    def model(self, name: str) -> dict[str, Any]:
        known = self.checkpoint.config.name
        if name not in (known, *ALIASES):
            raise NoModel(404, f"There is no model '{name}' here: ask for '{known}'.")
        return {"id": known, "object": "model", "created": int(self.checkpoint.path.stat().st_mtime),
                "owned_by": "rill"}

    async def transcribe(self, request: Request, file: Recording, model: Model, language: Language = None,
                         prompt: Prompt = None, response_format: Format = ResponseFormat.json,
                         temperature: Temperature = 0.0, timestamp_granularities: Granularities = None,
                         stream: Stream = False) -> Response:
        """Everything is decoded with full context, the highest accuracy of the model. Text is in lower case, without
        punctuation. A segment ends where the speaker pauses. Any length within the server's limits."""
        self.model(model)
        own = self.checkpoint.config.language
        if language and language.lower().partition("-")[0] not in (own, _spelled_out(own)):
            raise HTTPException(400, f"This model understands '{own}' only, not '{language}'.")
        if stream and response_format is not ResponseFormat.json:
            raise HTTPException(400, "A stream comes as json only: leave out response_format, or stream.")
        parts = self._parts(request, cast(BinaryIO, _Named(file)))
        if stream:
            first = await anext(parts)  # what is wrong with the recording is an error, not half a stream
            return StreamingResponse(_events(first, parts), media_type="text/event-stream")
        segments: list[Final] = []
        seconds = 0.0
        async for heard, finals in parts:
            segments += finals
            seconds = heard
        # Of hours of speech this takes a while, which other speakers need not wait for.
        return await asyncio.to_thread(_laid_out, Transcript(tuple(segments), seconds), response_format, own,
                                       timestamp_granularities or [Granularity.segment])

    async def _parts(self, request: Request, recording: BinaryIO) -> AsyncIterator[Part]:
        """(seconds read so far, segments that became known), until the client leaves. Raises AudioError and Busy."""
        longest = self.service.limits.seconds
        with self.service.upload():
            parts = self.service.recognizer.transcribe_parts(recording)
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                if part[0] > longest:
                    raise HTTPException(413, f"The recording lasts longer than {longest:g} s, the most that is taken.")
                if time.monotonic() > self.service.until - LAST_WORD:
                    raise Busy("The server is shutting down: send the recording again in a minute.")
                yield part
                if await request.is_disconnected():
                    return


class _Named:
    """An upload as a file that carries the name which its sender gave it."""

    def __init__(self, upload: UploadFile) -> None:
        self.name = upload.filename or "recording"
        self.read, self.seek, self.tell = upload.file.read, upload.file.seek, upload.file.tell

    def seekable(self) -> bool:
        return True


def _laid_out(transcript: Transcript, format: ResponseFormat, language: str,
              granularities: Sequence[Granularity]) -> Response:
    if format is ResponseFormat.json:
        return JSONResponse({"text": _text(transcript.segments), "usage": _usage(transcript)})
    if format is ResponseFormat.verbose_json:
        return JSONResponse(verbose(transcript, language, granularities))
    if format is ResponseFormat.text:
        return PlainTextResponse(_text(transcript.segments) + "\n")
    return PlainTextResponse(render(transcript, format.value))


def verbose(transcript: Transcript, language: str, granularities: Sequence[Granularity]) -> dict[str, Any]:
    """OpenAI's verbose JSON. `avg_logprob` is the mean logarithm of the words' confidences; `tokens` and
    `no_speech_prob`, which this model does not have, are empty and 0."""
    answer: dict[str, Any] = {"task": "transcribe", "language": _spelled_out(language), "usage": _usage(transcript),
                              "duration": round(transcript.duration, 3), "text": _text(transcript.segments)}
    if Granularity.segment in granularities:
        answer["segments"] = [_segment(number, final) for number, final in enumerate(transcript.segments)]
    if Granularity.word in granularities:
        answer["words"] = [{"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
                           for word in transcript.words]
    return answer


def _segment(number: int, final: Final) -> dict[str, Any]:
    text = final.text.encode()
    sure = sum(math.log(max(word.confidence, LEAST)) for word in final.words) / len(final.words)
    return {"id": number, "seek": round(100 * final.start), "start": round(final.start, 3), "end": round(final.end, 3),
            "text": final.text, "tokens": [], "temperature": 0.0, "avg_logprob": round(sure, 4),
            "compression_ratio": round(len(text) / len(zlib.compress(text)), 4), "no_speech_prob": 0.0}


async def _events(part: Part, others: AsyncIterator[Part]) -> AsyncIterator[str]:
    """Server-sent events: a delta for each segment, then the whole text; or an error, where one comes late."""
    text = ""
    try:
        while True:
            for final in part[1]:
                delta = f" {final.text}" if text else final.text
                text += delta
                yield _event({"type": "transcript.text.delta", "delta": delta})
            part = await anext(others)
    except StopAsyncIteration:
        yield _event({"type": "transcript.text.done", "text": text})
    except (RillError, HTTPException) as error:
        sentence = error.detail if isinstance(error, HTTPException) else str(error)
        kind = "server_error" if isinstance(error, Busy) else "invalid_request_error"
        yield _event({"error": {"message": sentence, "type": kind, "param": None, "code": None}})


def _event(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def _text(segments: Sequence[Final]) -> str:
    return " ".join(final.text for final in segments)


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def _spelled_out(language: str) -> str:
    return LANGUAGES.get(language, language)
