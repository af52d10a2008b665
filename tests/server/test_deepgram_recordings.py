"""Deepgram's transcription of recordings with Deepgram's own client, pointed at this server."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import pairwise

import httpx
import pytest
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

import asr
from asr.audio.sample import sample
from asr.server.options import ServeOptions
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, pcm, running

ROCK = (CLIPS / "kathleen-0.flac").read_bytes()
TEXT = "There was nothing on the rock."
TOKEN = "0123456789abcdef"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server():
    with running(asr.load(device="cpu")) as here:  # which writes sentences
        yield here


def environment(server) -> DeepgramClientEnvironment:
    web, socket = server.url(), server.url("", "ws")
    return DeepgramClientEnvironment(base=web, production=socket, agent=socket, agent_rest=web)


@pytest.fixture(scope="module")
def client(server) -> DeepgramClient:
    return DeepgramClient(api_key="none", environment=environment(server), timeout=PATIENCE)


def test_a_recording(client):
    answer = client.listen.v1.media.transcribe_file(request=ROCK, model="nova-3", punctuate=True)
    best = answer.results.channels[0].alternatives[0]
    assert best.transcript == TEXT and 0.5 < best.confidence <= 1 and best.paragraphs is None
    assert [word.word for word in best.words] == TEXT.lower().strip(".").split()
    assert [word.punctuated_word for word in best.words] == TEXT.split()
    assert all(word.start < word.end for word in best.words) and answer.results.utterances is None
    assert answer.metadata.sha256 == hashlib.sha256(ROCK).hexdigest() and answer.metadata.channels == 1
    assert answer.metadata.duration == pytest.approx(1.5, abs=0.1)
    assert answer.metadata.model_info[answer.metadata.models[0]]["name"] == "en-small"


def test_the_asynchronous_client_with_utterances_paragraphs_and_keyterms(server):
    async def ask():
        client = AsyncDeepgramClient(api_key="none", environment=environment(server), timeout=PATIENCE)
        return await client.listen.v1.media.transcribe_file(
            request=sample().read_bytes(), smart_format=True, utterances=True, keyterm=["German", "engaging"]
        )

    answer = asyncio.run(ask())
    best = answer.results.channels[0].alternatives[0]
    utterances = answer.results.utterances
    assert len(utterances) >= 4 and " ".join(each.transcript for each in utterances) == best.transcript
    assert all(one.end <= other.start for one, other in pairwise(utterances))
    sentences = [sentence for each in best.paragraphs.paragraphs for sentence in each.sentences]
    assert [sentence.text for sentence in sentences] == [each.transcript for each in utterances]
    assert sum(each.num_words for each in best.paragraphs.paragraphs) == len(best.words)
    assert best.paragraphs.transcript.replace("\n\n", " ") == best.transcript
    assert "German" in best.transcript


def test_alternatives_change_nothing_else(client):
    wanted = {"request": sample().read_bytes(), "smart_format": True, "utterances": True}
    plain = client.listen.v1.media.transcribe_file(**wanted).results
    several = client.listen.v1.media.transcribe_file(
        **wanted, request_options={"additional_query_parameters": {"alternatives": "3"}}
    ).results
    best, *others = several.channels[0].alternatives
    assert [best] == plain.channels[0].alternatives and len(others) == 2
    assert len({each.transcript for each in others}) == 2 and all(each.words for each in others)
    assert [each.transcript for each in several.utterances] == [each.transcript for each in plain.utterances]


def test_raw_words_and_raw_audio(client):
    answer = client.listen.v1.media.transcribe_file(
        request=pcm(CLIPS / "kathleen-0.flac"),
        encoding="linear16",
        request_options={"additional_query_parameters": {"sample_rate": "16000"}},
    )
    best = answer.results.channels[0].alternatives[0]
    assert best.transcript == TEXT.lower().strip(".") and best.words[0].word == "there"


@pytest.mark.parametrize(
    ("query", "audio", "says"),
    [
        ("diarize=true", ROCK, "no diarize"),
        ("summarize=v2", ROCK, "no summarize"),
        ("language=de", ROCK, "'en' only"),
        ("encoding=opus&sample_rate=1", ROCK, "linear16, mulaw, alaw"),
        ("encoding=linear16&sample_rate=fast", b"ab", "must be a number"),
        ("encoding=linear16&sample_rate=1", b"ab", "1 Hz"),
        ("encoding=linear16&sample_rate=16000", b"abc", "even number"),
        ("", b"no audio", "recording: is not audio that can be read"),
        ("", b"", "recording: is empty"),
        ("", ROCK[:100], "recording: is damaged"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(server, query, audio, says):
    answer = httpx.post(server.url(f"/v1/listen?{query}"), content=audio, timeout=PATIENCE)
    assert answer.status_code == 400 and says in answer.json()["error"]["message"]


def test_addresses_are_not_fetched(client):
    with pytest.raises(ApiError, match="fetches no addresses") as error:
        client.listen.v1.media.transcribe_url(url="http://127.0.0.1/secret.wav")
    assert error.value.status_code == 400


def test_its_limits_and_tokens_are_the_servers():
    recognizer = asr.load(device="cpu", lm=False, punctuate=False)
    options = ServeOptions(uploads=1, max_upload=1)
    with running(recognizer, options, tokens=(TOKEN.encode(),)) as server:

        def post(token: str = TOKEN, **content) -> httpx.Response:
            headers = {"Authorization": f"Token {token}"}
            return httpx.post(server.url("/v1/listen"), headers=headers, timeout=PATIENCE, **content)

        assert post("wrong", content=ROCK).status_code == 401
        assert post(content=bytes(2 << 20)).status_code == 413
        with server.service.upload():
            assert post(content=ROCK).status_code == 503
        assert post(content=ROCK).json()["results"]["channels"][0]["alternatives"][0]["transcript"]
