"""OpenAI's transcription API with OpenAI's own client, pointed at this server."""

from __future__ import annotations

import io
import socket
from contextlib import ExitStack

import httpx
import numpy as np
import openai
import pytest
import soundfile

from asr.decoding.hotwords import Hotword
from asr.errors import AudioError
from asr.inference.recognizer import Recognizer
from asr.server.openai import PATH
from asr.server.options import ServeOptions
from asr.server.service import RECEIVING_FACTOR
from asr.text.writers import render
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, running, until

ROCK = CLIPS / "kathleen-0.flac"


@pytest.fixture(scope="module")
def server(recognizer):
    with running(recognizer, ServeOptions(max_upload=3, max_minutes=1, uploads=1)) as here:
        yield here


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url("/v1"), api_key="none", max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def talk(clips, tmp_path_factory):
    """Three sentences with pauses, 2 MB of WAV, so that it does not stay in the server's memory."""
    pause = np.zeros(16_000, np.float32)
    chosen = [clip.samples for clip in clips if clip.path.stem in ("commonvoice-4", "kathleen-0", "kathleen-1")]
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    samples = np.concatenate([part for sound in chosen for part in (sound, pause)])
    soundfile.write(path, samples, 16_000, subtype="DOUBLE")
    assert path.stat().st_size > 1 << 20
    return path


@pytest.fixture(scope="module")
def expected(recognizer, talk):
    return recognizer.transcribe(talk)


def transcribe(client, path, **options):
    with open(path, "rb") as file:
        return client.audio.transcriptions.create(model="en-small", file=file, **options)


def test_models(client):
    listed = client.models.list().data
    assert [(model.id, model.object) for model in listed] == [("en-small", "model")]
    assert client.models.retrieve("whisper-1").id == client.models.retrieve("gpt-4o-transcribe").id == "en-small"
    with pytest.raises(openai.NotFoundError, match=r"ask for 'en-small'") as error:
        client.models.retrieve("whisper-2")
    assert error.value.code == "model_not_found"


def test_json(client, talk, expected):
    answer = transcribe(client, talk)
    assert answer.text == " ".join(segment.text for segment in expected.segments)
    assert len(expected.segments) == 3


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles(client, talk, expected, format):
    assert transcribe(client, talk, response_format=format) == render(expected, format)


def test_text(client, talk, expected):
    assert transcribe(client, talk, response_format="text") == " ".join(s.text for s in expected.segments) + "\n"


def test_verbose_json(client, talk, expected):
    answer = transcribe(
        client,
        talk,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
        prompt="a talk",
        temperature=0.3,
    )
    assert answer.language == "english" and answer.duration == pytest.approx(expected.duration, abs=1e-3)
    assert [(s.text, s.start, s.end) for s in answer.segments] == [
        (s.text, round(s.start, 3), round(s.end, 3)) for s in expected.segments
    ]
    assert [s.id for s in answer.segments] == [0, 1, 2]
    assert all(-3 < s.avg_logprob < 0 and 0 < s.compression_ratio < 2 for s in answer.segments)
    assert [(w.word, w.start, w.end) for w in answer.words] == [
        (w.text, round(w.start, 3), round(w.end, 3)) for w in expected.words
    ]


@pytest.mark.parametrize(
    "granularities, keys", [(None, {"segments"}), (["word"], {"words"}), (["segment"], {"segments"})]
)
def test_granularities(client, granularities, keys):
    options = {"timestamp_granularities": granularities} if granularities else {}
    answer = transcribe(client, ROCK, response_format="verbose_json", **options).model_dump()
    assert {key for key in ("segments", "words") if answer[key] is not None} == keys


def test_a_stream_of_events(client, talk, expected):
    events = list(transcribe(client, talk, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == transcribe(client, talk).text


def test_a_stream_tells_of_a_late_error(client, server, talk, monkeypatch):
    whole = server.service.recognizer.transcribe_parts

    def fail(source, **_):
        yield next(whole(source))
        raise AudioError("The rest is damaged.")

    monkeypatch.setattr(server.service.recognizer, "transcribe_parts", fail, raising=False)
    with pytest.raises(openai.APIError, match="damaged"):
        list(transcribe(client, talk, stream=True))


def test_a_prompt_gives_hot_words_and_the_model_may_be_left_out(server, monkeypatch):
    """As curl sends it: OpenAI's client wants a model."""

    def text(**data) -> str:
        with open(ROCK, "rb") as file:
            answer = httpx.post(server.url(PATH), data=data, files={"file": file}, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()["text"]

    expected = []
    known = Recognizer.expecting

    def expecting(self, hotwords):
        expected.append([hotword.phrase for hotword in hotwords])
        return known(self, [Hotword(hotword.phrase, 16) for hotword in hotwords])

    monkeypatch.setattr(Recognizer, "expecting", expecting)
    assert text() == "there was nothing on the rock" and not expected
    prompt = "They're, New York. And this is a sentence that is prose."
    assert text(prompt=prompt) == "they're was nothing on the rock"
    assert expected == [[("they're",), ("new", "york")]]
    assert not server.service._phrase_lists


def test_probabilities_on_request(client, talk, expected):
    answer = transcribe(client, talk, include=["logprobs"])
    assert "".join(each.token for each in answer.logprobs).split() == answer.text.split()
    assert [each.logprob for each in answer.logprobs] == pytest.approx(
        [np.log(word.confidence) for word in expected.words], abs=0.02
    )
    last = list(transcribe(client, talk, include=["logprobs"], stream=True))[-1]
    assert [each.logprob for each in last.logprobs] == [each.logprob for each in answer.logprobs]
    assert transcribe(client, ROCK).logprobs is None


def test_what_the_model_cannot_do(client):
    with pytest.raises(openai.BadRequestError, match="'en' only, not 'de'"):
        transcribe(client, ROCK, language="de")
    with pytest.raises(openai.BadRequestError, match="response_format"):
        transcribe(client, ROCK, response_format="yaml")
    with pytest.raises(openai.BadRequestError, match="json only"):
        transcribe(client, ROCK, response_format="srt", stream=True)
    with pytest.raises(openai.NotFoundError, match="no model 'tts-1'"):
        client.audio.transcriptions.create(model="tts-1", file=ROCK)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_sound_is_named(client, stream):
    for name, content, hint in (
        ("notes.txt", b"no sound at all" * 100, r"notes\.txt: is not audio"),
        ("a.wav", b"", r"a\.wav: is empty"),
    ):
        with pytest.raises(openai.BadRequestError, match=hint):
            client.audio.transcriptions.create(model="en-small", file=(name, content), stream=stream)


def test_names_are_bounded_and_printable(server, caplog):
    """Of recordings and of models; a form's charset may make half a surrogate pair of them, which is no text."""
    name = "\x1b[31m" + 300 * "a"
    answer = httpx.post(
        server.url(PATH), data={"model": "en-small"}, files={"file": (name, b"no sound" * 99)}, timeout=PATIENCE
    )
    assert answer.status_code == 400 and "a" * 90 in answer.text and "a" * 101 not in answer.text
    body = "\r\n".join(
        (
            "--x",
            'Content-Disposition: form-data; name="model"',
            "",
            r"\ud800" + 300 * "b",
            "--x",
            'Content-Disposition: form-data; name="file"; filename="\\ud800"',
            "",
            "x",
            "--x--",
            "",
        )
    )
    answer = httpx.post(
        server.url(PATH),
        content=body,
        timeout=PATIENCE,
        headers={"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"},
    )
    assert answer.status_code == 404 and "There is no model '?bbb" in answer.text and "b" * 101 not in answer.text
    assert not caplog.records


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"response_format": "pdf"}, "'response_format' must be 'json', 'text', 'srt', 'vtt' or 'verbose_json', not"),
        ({"temperature": "hot"}, "'temperature' must be a number, not 'hot'."),
        ({"stream": "maybe"}, "'stream' must be true or false, not 'maybe'."),
        ({"timestamp_granularities[]": "x"}, "'timestamp_granularities[]' must be 'word' or 'segment', not 'x'."),
        ({"file": "text"}, "'file' must be a file, not 'text'."),
        ({}, "The request has no 'file': send it as a field of a form (multipart/form-data)."),
    ],
)
def test_a_parameter_that_cannot_be_used_is_a_sentence(server, fields, says):
    files = None if not fields or "file" in fields else {"file": ("a.wav", b"x")}
    answer = httpx.post(server.url(PATH), data=fields or {"model": "en-small"}, files=files, timeout=PATIENCE)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["message"].startswith(says)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)


def test_a_path_that_is_not_there_is_a_sentence(server):
    for method, path, status in (("GET", "/nowhere", 404), ("DELETE", PATH, 405)):
        answer = httpx.request(method, server.url(path), timeout=PATIENCE)
        says = f"This server has no {method} {path}: /docs shows what it has."
        assert answer.status_code == status and answer.json()["error"]["message"] == says


def test_a_recording_that_is_too_large(client, server):
    with pytest.raises(openai.APIStatusError, match="3 MiB at most") as error:
        client.audio.transcriptions.create(model="en-small", file=("a.wav", bytes(4 << 20)))
    assert error.value.status_code == 413

    def pieces():  # without a length that could be known before
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(64):
            yield bytes(1 << 16)

    answer = httpx.post(
        server.url("/v1/audio/transcriptions"),
        content=pieces(),
        timeout=PATIENCE,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 413 and "3 MiB at most" in answer.json()["error"]["message"]


def test_a_recording_that_is_too_long(client):
    """Two minutes of silence in a few kilobytes."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(120 * 16_000), 16_000, format="FLAC")
    with pytest.raises(openai.APIStatusError, match="longer than 60 s") as error:
        client.audio.transcriptions.create(model="en-small", file=("long.flac", file.getvalue()))
    assert error.value.status_code == 413


def test_there_is_room_for_so_many(client, server, monkeypatch):
    with server.service.upload(), pytest.raises(openai.InternalServerError, match="1 places for uploads") as error:
        transcribe(client, ROCK)
    assert error.value.status_code == 503 and error.value.response.headers["retry-after"]
    assert transcribe(client, ROCK).text == "there was nothing on the rock"
    assert server.service.uploads == 0


def begin(server) -> socket.socket:
    """A recording of which the beginning has come only."""
    begun = socket.create_connection(("127.0.0.1", server.port))
    begun.sendall(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    begun.settimeout(PATIENCE)
    return begun


def test_recordings_are_refused_before_they_are_received(server):
    """Where all places are taken, and where too many are on their way."""
    with server.service.upload(), begin(server) as early:
        assert b" 503 " in early.recv(10_000)
    with ExitStack() as others:
        for _ in range(RECEIVING_FACTOR):
            others.enter_context(begin(server))
        until(lambda: server.service.receiving == RECEIVING_FACTOR)
        with begin(server) as one_more:
            assert b"Too many recordings" in one_more.recv(10_000)
    until(lambda: not server.service.receiving)
    assert httpx.post(server.url(PATH), timeout=PATIENCE).status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_recording_that_does_not_end_before_the_server_does_is_told_so(client, server, monkeypatch, stream):
    def slow(recording, **_):
        yield 0.5, []
        server.service.deadline = 0.0
        yield 1.0, []

    monkeypatch.setattr(server.service, "deadline", server.service.deadline)
    monkeypatch.setattr(server.service.recognizer, "transcribe_parts", slow)
    with pytest.raises(openai.APIError, match="shutting down"):
        for _ in transcribe(client, ROCK, stream=stream):
            pass


def test_an_upload_that_stops_half_way(recognizer):
    with running(recognizer, ServeOptions(idle=0.3)) as server, begin(server) as half:
        assert b" 408 " in half.recv(10_000)
