"""OpenAI's transcription API, for the clients that speak it (https://platform.openai.com/docs/api-reference/audio)."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from asr.audio.isolated import Isolated
from asr.errors import RillError
from asr.server.parameters import (
    MAX_NAME_LENGTH,
    UnknownModel,
    check_language,
    check_model,
    language_name,
    log_confidence,
    logprobs,
    prompt_phrases,
)
from asr.server.recordings import Part, parse_hotwords, recognize
from asr.server.responses import ErrorAnswer
from asr.server.service import Busy, Service
from asr.text.results import Final, Transcript, Word
from asr.text.writers import render

PATH = "/v1/audio/transcriptions"
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The text, in the requested format.",
        "content": {
            "application/json": {"example": {"text": "there was nothing on the rock"}},
            "text/plain": {"example": "there was nothing on the rock"},
            "text/event-stream": {"example": 'data: {"type": "transcript.text.done", "text": "…"}'},
        },
    },
    400: {"description": "The recording, or a parameter, cannot be used.", "model": ErrorAnswer},
    404: {"description": "There is no such model.", "model": ErrorAnswer},
    413: {"description": "The recording is too large or too long.", "model": ErrorAnswer},
}


class ModelNotFound(HTTPException):
    """There is no such model; clients know this error by its `code`."""

    code = "model_not_found"


class ResponseFormat(str, Enum):
    json = "json"
    text = "text"
    srt = "srt"
    vtt = "vtt"
    verbose_json = "verbose_json"


class Granularity(str, Enum):
    word = "word"
    segment = "segment"


class Included(str, Enum):
    logprobs = "logprobs"


Recording = Annotated[UploadFile, File(description="An audio or video file in any format that FFmpeg reads.")]
Model = Annotated[
    str | None,
    Form(description="The model's name from `GET /v1/models`; `whisper-1` and OpenAI's other names work too."),
]
Language = Annotated[str | None, Form(description="The model's own language, as ISO 639-1; another one is refused.")]
Prompt = Annotated[
    str | None, Form(description="Words and short phrases to expect, with commas between; prose is left out.")
]
Include = Annotated[
    list[Included] | None,
    Form(alias="include[]", description="`logprobs`: the logarithm of each word's confidence. With `json` only."),
]
Format = Annotated[ResponseFormat, Form(description="`text`, `srt` and `vtt` come as plain text.")]
Temperature = Annotated[float, Form(description="Accepted, but not used: the search is deterministic.")]
Stream = Annotated[
    bool,
    Form(
        description="Send the text as it becomes known, as server-sent events "
        "(`transcript.text.delta`, `transcript.text.done`). With `json` only."
    ),
]
Granularities = Annotated[
    list[Granularity] | None,
    Form(alias="timestamp_granularities[]", description="What `verbose_json` times; segments by default."),
]


def router(service: Service) -> APIRouter:
    protocol = Transcriptions(service)
    api = APIRouter(tags=["OpenAI's API"])
    api.get("/v1/models", summary="The models of this server: one")(protocol.models)
    api.get("/v1/models/{name}", summary="One model")(protocol.model)
    api.post(PATH, summary="A recording as text, subtitles or JSON", responses=RESPONSES, response_class=Response)(
        protocol.transcribe
    )
    return api


class Transcriptions:
    """The API's endpoints."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.checkpoint = service.recognizer.engine.checkpoint

    def models(self) -> dict[str, Any]:
        """OpenAI's list, with the checkpoint that this server runs."""
        return {"object": "list", "data": [self.model(self.checkpoint.config.name)]}

    def model(self, name: str) -> dict[str, Any]:
        try:
            check_model(self.service.recognizer, name)
        except UnknownModel as error:
            raise ModelNotFound(404, str(error)) from error
        return {
            "id": self.checkpoint.config.name,
            "object": "model",
            "created": int(self.checkpoint.path.stat().st_mtime),
            "owned_by": "rill",
        }

    async def transcribe(
        self,
        request: Request,
        file: Recording,
        model: Model = None,
        language: Language = None,
        prompt: Prompt = None,
        response_format: Format = ResponseFormat.json,
        temperature: Temperature = 0.0,
        timestamp_granularities: Granularities = None,
        include: Include = None,
        stream: Stream = False,
    ) -> Response:
        """Transcribes with full context, the highest accuracy of the model. Text is written as sentences where the
        checkpoint can; words with times are raw. The recording may have any length within the server's limits."""
        if model is not None:
            self.model(model)
        check_language(self.service.recognizer, language)
        if stream and response_format is not ResponseFormat.json:
            raise HTTPException(400, "A stream comes as json only: leave out response_format, or stream.")
        hotwords = await parse_hotwords(self.service, prompt_phrases(prompt))
        parts = recognize(self.service, request, Isolated(file.file, _name(file)), hotwords)
        if stream:
            first = await anext(parts)  # a bad recording gives an error, not half a stream
            return StreamingResponse(_events(first, parts, bool(include)), media_type="text/event-stream")
        segments: list[Final] = []
        seconds = 0.0
        async for heard, finals in parts:
            segments += finals
            seconds = heard
        # For hours of speech this takes a while; the event loop must not wait for it.
        return await asyncio.to_thread(
            _response,
            Transcript(tuple(segments), seconds),
            response_format,
            self.checkpoint.config.language,
            timestamp_granularities or [Granularity.segment],
            bool(include),
        )


def _name(upload: UploadFile) -> str:
    """The name that the client gave it; errors mention it."""
    printable = "".join(c for c in upload.filename or "" if c.isprintable())  # nor half a surrogate pair
    return printable[:MAX_NAME_LENGTH] or "recording"


def _response(
    transcript: Transcript,
    format: ResponseFormat,
    language: str,
    granularities: Sequence[Granularity],
    with_logprobs: bool,
) -> Response:
    if format is ResponseFormat.json:
        answer: dict[str, Any] = {"text": _text(transcript.segments), "usage": _usage(transcript)}
        if with_logprobs:
            answer["logprobs"] = logprobs(transcript.words)
        return JSONResponse(answer)
    if format is ResponseFormat.verbose_json:
        return JSONResponse(verbose(transcript, language, granularities))
    if format is ResponseFormat.text:
        return PlainTextResponse(_text(transcript.segments) + "\n")
    return PlainTextResponse(render(transcript, format.value))


def verbose(transcript: Transcript, language: str, granularities: Sequence[Granularity]) -> dict[str, Any]:
    """OpenAI's verbose JSON. `avg_logprob` is the mean logarithm of the words' confidences. This model has no subword
    tokens and no probability of silence: `tokens` is empty, and `no_speech_prob` is 0."""
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": language_name(language),
        "usage": _usage(transcript),
        "duration": round(transcript.duration, 3),
        "text": _text(transcript.segments),
    }
    if Granularity.segment in granularities:
        answer["segments"] = [_segment(number, final) for number, final in enumerate(transcript.segments)]
    if Granularity.word in granularities:
        answer["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in transcript.words
        ]
    return answer


def _segment(number: int, final: Final) -> dict[str, Any]:
    text = final.text.encode()
    total = sum(map(log_confidence, final.words)) / len(final.words)
    return {
        "id": number,
        "seek": round(100 * final.start),
        "start": round(final.start, 3),
        "end": round(final.end, 3),
        "text": final.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(total, 4),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": 0.0,
    }


async def _events(part: Part, others: AsyncIterator[Part], with_logprobs: bool) -> AsyncIterator[str]:
    """Server-sent events: a delta for each segment, then the whole text; or an error that occurs on the way."""
    text, words = "", list[Word]()
    try:
        while True:
            for final in part[1]:
                delta = f" {final.text}" if text else final.text
                text += delta
                words += final.words
                yield _event({"type": "transcript.text.delta", "delta": delta})
            part = await anext(others)
    except StopAsyncIteration:
        known = {"logprobs": logprobs(words)} if with_logprobs else {}
        yield _event({"type": "transcript.text.done", "text": text, **known})
    except (RillError, HTTPException) as error:
        message = error.detail if isinstance(error, HTTPException) else str(error)
        kind = "server_error" if isinstance(error, Busy) else "invalid_request_error"
        yield _event({"error": {"message": message, "type": kind, "param": None, "code": None}})


def _event(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def _text(segments: Sequence[Final]) -> str:
    return " ".join(final.text for final in segments)


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}
