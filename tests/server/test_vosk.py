"""Vosk's WebSocket protocol as its clients speak it, and what happens to those that speak something else."""

import asyncio
import copy
import io
import json

import numpy as np
import pytest
import soundfile
import soxr

from asr.inference.async_session import AsyncSession
from asr.server import session as session_module
from asr.server import vosk as protocol
from asr.server.options import ServeOptions
from asr.server.service import Service
from asr.text.results import Final
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, RATE, closed, connect, pcm, running, said, silence, vosk

ROCK = pcm(CLIPS / "kathleen-0.flac")  # "there was nothing on the rock", 1.5 s


@pytest.fixture(scope="module")
def server(recognizer):
    with running(recognizer, ServeOptions(max_message=98)) as here:
        yield here


@pytest.fixture(scope="module")
def url(server):
    return server.url("/ws", "ws")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Answers wait for their sound, however busy this computer is, so that they can be foretold."""
    monkeypatch.setattr(protocol, "MAX_ANSWER_DELAY", 1e6)


def single(recognizer, sound: bytes) -> list[Final]:
    """The finals of one stream alone."""
    stream = recognizer.stream()
    events = stream.accept(np.frombuffer(sound, "<i2")) + stream.finish()
    return [event for event in events if isinstance(event, Final)]


@pytest.fixture(scope="module")
def two(recognizer):
    """Two utterances with a pause between them, and what a stream alone makes of them."""
    sound = ROCK + silence(1.5) + pcm(CLIPS / "kathleen-1.flac")
    return sound, single(recognizer, sound)


@pytest.mark.parametrize("path, block", [("/ws", 8000), ("/", 3202), ("", 50_000)])
def test_a_recording_in_lock_step(server, two, path, block):
    sound, expected = two
    answers = asyncio.run(vosk(server.url(path, "ws"), sound, block))
    assert len(answers) == -(-len(sound) // block) + 1  # one to each message, none to the config
    assert said(answers) == [final.text for final in expected] and len(expected) == 2
    for answer in answers:
        assert set(answer) in ({"partial"}, {"text"}, {"text", "result"})
    words = [word for answer in answers for word in answer.get("result", [])]
    known = [word for final in expected for word in final.words]
    assert [list(word) for word in words] == [["word", "start", "end", "conf"]] * len(known)
    assert [(w["word"], w["start"], w["end"]) for w in words] == [
        (w.text, round(w.start, 3), round(w.end, 3)) for w in known
    ]
    assert [w["conf"] for w in words] == pytest.approx([w.confidence for w in known], abs=2e-3)


def test_partials_grow_and_the_last_answer_is_final(server, url):
    answers = asyncio.run(vosk(url, pcm(CLIPS / "commonvoice-4.flac"), 6400))
    partials = [answer["partial"] for answer in answers[:-1] if "partial" in answer]
    assert partials[0] == "" and len(set(partials)) > 2
    assert "text" in answers[-1]


def test_several_finals_within_one_message_are_joined(recognizer, two):
    sound, expected = two
    with running(recognizer) as server:
        first, last = asyncio.run(vosk(server.url("/ws", "ws"), sound + silence(1.5), 10**6))
    assert first["text"] == " ".join(final.text for final in expected)
    assert len(first["result"]) == len(first["text"].split()) and "partial" not in first
    assert last == {"text": ""}


def test_without_words_and_at_another_rate(url):
    samples = np.repeat(np.frombuffer(ROCK, "<i2"), 3).tobytes()  # 48 kHz
    answers = asyncio.run(vosk(url, samples, 9600, {"sample_rate": 48000, "words": False}))
    assert answers[-1] == {"text": "there was nothing on the rock"}


def test_partials_have_words_where_the_client_wants_them(url):
    config = {"sample_rate": RATE, "partial_words": True}
    answers = asyncio.run(vosk(url, pcm(CLIPS / "commonvoice-4.flac"), 6400, config))
    (*_, last) = (answer for answer in answers if answer.get("partial"))
    assert [word["word"] for word in last["partial_result"]] == last["partial"].split()
    assert set(last["partial_result"][0]) == {"word", "start", "end", "conf"}


def narrow_band() -> bytes:
    """The rock at 8 kHz, as telephones and Vosk's page send it."""
    return soxr.resample(np.frombuffer(ROCK, "<i2"), RATE, 8000).tobytes()


@pytest.mark.parametrize("config", [None, {"words": False}])
def test_a_client_that_says_no_rate_sends_8_khz_as_vosks_server_assumes(url, config):
    answers = asyncio.run(vosk(url, narrow_band(), 4000, config or {"partial_words": False}))
    assert answers[-1]["text"] == "there was nothing on the rock"


def test_the_operator_says_another_rate_for_such_clients(recognizer):
    with running(recognizer, ServeOptions(sample_rate=16_000)) as server:
        answers = asyncio.run(vosk(server.url("/ws", "ws"), ROCK, 8000, {}))
    assert answers[-1]["text"] == "there was nothing on the rock"


def wav(rate: int, samples: bytes) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(samples, "<i2"), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def test_a_wav_file_says_its_own_rate(url):
    """Some of Vosk's clients send a file as it is, without a config."""
    answers = asyncio.run(vosk(url, wav(RATE, ROCK), 8000, {}))
    assert answers[-1]["text"] == "there was nothing on the rock"


def test_a_rate_that_contradicts_the_file_is_an_error(url):
    code, reason = closed(url, '{"config": {"sample_rate": 8000}}', wav(RATE, ROCK))
    assert code == 1007 and "16000 Hz" in reason and "8000 Hz" in reason


def test_nothing_said_and_nothing_sent(url):
    assert asyncio.run(vosk(url, silence(0.4), 3200)) == [{"partial": ""}] * 4 + [{"text": ""}]
    assert asyncio.run(vosk(url, b"")) == [{"text": ""}]


def test_an_empty_message_has_an_answer_too(url):
    async def talk():
        async with connect(url) as socket:
            await socket.send(b"")
            return await asyncio.wait_for(socket.recv(), PATIENCE)

    assert json.loads(asyncio.run(talk())) == {"partial": ""}


def test_a_reset_makes_final_and_goes_on(url):
    """Word times count from the beginning of the connection, as Vosk's do."""

    async def talk():
        answers = []
        async with connect(url) as socket:
            config = '{"config": {"sample_rate": 16000, "words": true}}'
            for message in (config, ROCK, '{"reset": 1}', config, ROCK, '{"eof": 1}'):
                await socket.send(message)
                if message != config:
                    answers.append(json.loads(await asyncio.wait_for(socket.recv(), PATIENCE)))
        return answers

    _, first, _, second = asyncio.run(talk())
    assert first["text"] == second["text"] == "there was nothing on the rock"
    later = [word["start"] + len(ROCK) / 2 / RATE for word in first["result"]]
    assert [word["start"] for word in second["result"]] == pytest.approx(later, abs=2e-3)


def test_text_is_raw_unless_the_config_says_punctuate(url):
    raw = asyncio.run(vosk(url, ROCK, 8000))[-1]
    written = asyncio.run(vosk(url, ROCK, 8000, {"sample_rate": RATE, "punctuate": True}))[-1]
    assert raw["text"] == raw["text"].lower()
    assert written["text"][0].isupper()
    assert [word["word"] for word in written["result"]] == [word["word"] for word in raw["result"]]


def test_a_phrase_list_boosts_and_excludes_nothing(server, url):
    config = {"sample_rate": RATE, "phrase_list": ["they're:16", "[unk]"]}
    answers = asyncio.run(vosk(url, ROCK, 8000, config))
    assert answers[-1]["text"] == "they're was nothing on the rock"
    assert not server.service._phrase_lists  # its list is free again


def test_many_at_once_say_what_each_says_alone(server, url, recognizer):
    sounds = [pcm(CLIPS / f"{name}.flac") for name in ("kathleen-0", "kathleen-1", "commonvoice-4", "commonvoice-2")]

    async def all_of_them():
        return await asyncio.gather(*(vosk(url, sound, 6400) for sound in sounds))

    for answers, sound in zip(asyncio.run(all_of_them()), sounds, strict=True):
        assert said(answers) == [final.text for final in single(recognizer, sound)] != []


BAD = {
    "no JSON": ("{", "not JSON"),
    "base64": ("AAAA", "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
    "a list": ("[1]", "JSON object"),
    "another key": ('{"configuration": {}}', "config, reset, eof"),
    "no config": ('{"config": 3}', "JSON object"),
    "no number": ('{"config": {"sample_rate": "fast"}}', "number"),
    "too low": ('{"config": {"sample_rate": 10}}', "10 Hz"),
    "no rate": ('{"config": {"sample_rate": NaN}}', "nan Hz"),
    "too high": ('{"config": {"sample_rate": 1e300}}', "Hz"),
    "null": ('{"config": {"sample_rate": null}}', "number"),
    "deep config": (f'{{"config": {{"words": {"[" * 40_000}{"]" * 40_000}}}}}', "not JSON"),
    "half a pair": ('{"config": {"phrase_list": ["\\ud800"]}}', "holds no word"),
    "half a pair as key": ('{"\\udfff": 1}', "config, reset, eof"),
    "no list": ('{"config": {"phrase_list": "yes no"}}', "list"),
    "no texts": ('{"config": {"phrase_list": [1]}}', "list"),
    "no end": (json.dumps({"config": {"phrase_list": ["9" * 101]}}), "longer than 100 characters"),
    "no word": ('{"config": {"phrase_list": ["!"]}}', "holds no word"),
    "odd": (b"abc", "3 bytes"),
}


@pytest.mark.parametrize("message, hint", BAD.values(), ids=BAD)
def test_what_is_not_understood_ends_the_session_with_a_sentence(server, url, message, hint):
    code, reason = closed(url, message)
    assert code == 1007 and hint in reason and reason[0].isupper()
    assert closed(url, silence(0.1), message)[0] == 1007  # also after sound
    assert asyncio.run(vosk(url, b"")) == [{"text": ""}]  # and the next one finds all as it was


def test_the_rate_cannot_change_inside_a_recording(url):
    assert closed(url, silence(0.1), '{"config": {"sample_rate": 11025}}') == (
        1007,
        "The sample_rate cannot change inside a recording: end the recording first.",
    )


def test_a_message_that_is_too_large(url):
    assert closed(url, bytes((98 << 10) + 2))[0] == 1009


def test_a_flood_is_held_up_and_answered_in_full(server, url, monkeypatch):
    """A client that does not wait for answers gets them all, and no more sound waits than it may."""
    monkeypatch.setattr(protocol, "MAX_ANSWER_DELAY", 0.0)
    most = []

    async def flood():
        async with connect(url) as socket:

            async def send():
                for _ in range(30):
                    await socket.send(silence(0.4))
                await socket.send('{"eof": 1}')

            sending = asyncio.create_task(send())
            answers = [message async for message in socket]
            await sending
            return answers

    wait = AsyncSession.caught_up

    async def spy(self, max_lag, patience=0.0):
        await wait(self, max_lag, patience)
        most.append(self.lag)

    monkeypatch.setattr(AsyncSession, "caught_up", spy)
    assert asyncio.run(flood()) == ['{"partial": ""}'] * 30 + ['{"text": ""}']
    assert 1.0 < max(most) <= session_module.MAX_WAITING_AUDIO_S


def test_a_client_that_reads_nothing_is_closed(recognizer):
    """A socket that takes no answer: its session ends, and its slot is free again."""

    class Deaf:
        closed = None

        async def accept(self, subprotocol): ...

        async def receive(self):
            return {"type": "websocket.receive", "bytes": silence(0.1)}

        async def send_text(self, text):
            await asyncio.sleep(3600)

        async def close(self, code, reason):
            self.closed = code
            await asyncio.sleep(3600)

    async def talk():
        service = Service(copy.copy(recognizer), ServeOptions(idle=0.5), max_model_delay=PATIENCE)
        watching = asyncio.create_task(service.watch())
        deaf = Deaf()
        await asyncio.wait_for(protocol.VoskConnection(deaf, service).run(), PATIENCE)
        watching.cancel()
        service.batcher.close()
        return deaf.closed, service.slots

    assert asyncio.run(talk()) == (1008, set())


def test_reasons_fit_into_a_close_frame(server, url, monkeypatch):
    async def refuse(self, config):
        raise session_module.invalid("ä" * 200)

    monkeypatch.setattr(protocol.VoskConnection, "_configure", refuse)
    assert closed(url, '{"config": {}}') == (1007, "ä" * 61)


@pytest.mark.parametrize(("wanted", "given"), [(3, 3), (20, 10)])  # 20 as Vosk's own client wants
def test_alternatives_as_vosk_writes_them(server, url, recognizer, wanted, given):
    answers = asyncio.run(vosk(url, ROCK + silence(1.5), config={"sample_rate": 16000, "max_alternatives": wanted}))
    (spoken,) = [answer["alternatives"] for answer in answers if answer.get("alternatives", [{}])[0].get("text")]
    (final,) = single(recognizer, ROCK + silence(1.5))
    assert spoken[0]["text"] == final.text and 2 <= len(spoken) <= given
    assert spoken[0]["result"] == [{"word": word.text, "start": word.start, "end": word.end} for word in final.words]
    sure = [each["confidence"] for each in spoken]
    assert sure == sorted(sure, reverse=True) and len({each["text"] for each in spoken}) == len(spoken)
    assert answers[-1] == {"alternatives": [{"confidence": 1.0, "text": ""}]}
    assert not any("text" in answer for answer in answers)


@pytest.mark.parametrize("value", [-1, "many", 1.5, None])
def test_an_impossible_number_of_alternatives_is_told(url, value):
    code, reason = closed(url, json.dumps({"config": {"max_alternatives": value}}))
    assert code == 1007 and "'max_alternatives' must be a whole number" in reason
