"""Deepgram's transcription of recordings (https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded).

    POST /v1/listen?smart_format=true&utterances=true&keyterm=rill
        an audio or video file; with `encoding` and `sample_rate`, raw audio of one channel
    200  {"metadata": {…}, "results": {"channels": [{"alternatives": [{"transcript", "confidence", "words": […]}]}],
                                       "utterances": […]}}

The server fetches no addresses: a request with a `url` is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from asr.audio.isolated import Isolated
from asr.errors import RillError
from asr.server.deepgram import (
    PATH,
    UNSUPPORTED,
    alternative,
    alternatives,
    audio_facts,
    check_query,
    flag,
    model_facts,
    phrases,
)
from asr.server.pcm import DECODERS
from asr.server.recordings import parse_hotwords, recognize
from asr.server.service import Service
from asr.text.results import Final, Paragraphs, Transcript, join_alternatives
from asr.text.sentences import segments

ANALYSES = ("summarize", "topics", "intents", "sentiment", "detect_language", "search", "replace")


def routes(service: Service) -> list[BaseRoute]:
    async def transcribe(request: Request) -> Response:
        query = request.query_params
        check_query(service, query, (*UNSUPPORTED, *ANALYSES))
        if request.headers.get("content-type", "").partition(";")[0] == "application/json":
            raise RillError("This server fetches no addresses: send the recording itself.")
        hotwords, wanted = await parse_hotwords(service, phrases(query)), alternatives(query)
        request_id = str(uuid4())
        found: list[Final] = []
        seconds = 0.0
        with tempfile.TemporaryFile(prefix="rill-") as file:
            sha256 = await _receive(request, file)
            rate = _rate(query.get("sample_rate")) if "encoding" in query else None
            async for seconds, new in recognize(  # noqa: B007
                service,
                request,
                DECODERS[query["encoding"]](file.read()) if rate else Isolated(file, "recording"),
                hotwords,
                sample_rate=rate,
                punctuate=flag(query, "punctuate") or flag(query, "smart_format"),
                alternatives=wanted,
            ):
                found += new
        facts = model_facts(service)
        uuid, info = facts["model_uuid"], facts["model_info"]
        metadata = {**audio_facts(request_id, sha256, seconds), "models": [uuid], "model_info": {uuid: info}}
        paragraphs = flag(query, "paragraphs") or flag(query, "smart_format")
        results = await asyncio.to_thread(
            _results, Transcript(tuple(found), seconds), wanted, paragraphs, flag(query, "utterances")
        )
        return JSONResponse({"metadata": metadata, "results": results})

    return [Route(PATH, transcribe, methods=["POST"])]


async def _receive(request: Request, file: BinaryIO) -> str:
    """The body goes into the file, which then stands at its beginning; returns the hash that Deepgram reports."""
    digest = hashlib.sha256()
    async for block in request.stream():
        digest.update(block)
        await asyncio.to_thread(file.write, block)
    file.seek(0)
    return digest.hexdigest()


def _rate(text: str | None) -> float:
    """Raises RillError."""
    try:
        return float(text or "")
    except ValueError:
        raise RillError(f"The sample_rate must be a number, in Hz, not '{text!s:.20}'.") from None


def _results(transcript: Transcript, wanted: int, with_paragraphs: bool, with_utterances: bool) -> dict[str, Any]:
    others = join_alternatives(transcript.segments, wanted)[1:] if wanted else []
    if wanted and transcript.segments:  # they are parts of the recording: make them what they are without alternatives
        split = segments(transcript.words, transcript.segments[0].punctuated)
        transcript = Transcript(tuple(split), transcript.duration)
    text = " ".join(segment.text for segment in transcript.segments)
    best = alternative(text, transcript.words)
    if with_paragraphs:
        best["paragraphs"] = {"transcript": transcript.text, "paragraphs": _paragraphs(transcript.segments)}
    found = [best, *(alternative(each.text, each.words) for each in others)]
    results: dict[str, Any] = {"channels": [{"alternatives": found}]}
    if with_utterances:
        results["utterances"] = [
            {
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "channel": 0,
                "id": str(uuid4()),
                **alternative(segment.text, segment.words),
            }
            for segment in transcript.segments
        ]
    return results


def _paragraphs(segments: Sequence[Final]) -> list[dict[str, Any]]:
    """Segments that belong together, as the text files of `asr transcribe` have them."""
    found: list[list[Final]] = []
    rule = Paragraphs()
    for segment in segments:
        if rule.before(segment) == " ":
            found[-1].append(segment)
        else:
            found.append([segment])
    return [
        {
            "sentences": [
                {"text": each.text, "start": round(each.start, 3), "end": round(each.end, 3)} for each in paragraph
            ],
            "num_words": sum(len(each.words) for each in paragraph),
            "start": round(paragraph[0].start, 3),
            "end": round(paragraph[-1].end, 3),
        }
        for paragraph in found
    ]
