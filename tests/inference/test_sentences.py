"""Sentences from the recognizer, live and offline. How well they are written, `benchmarks/punctuation.py` says."""

import json

import numpy as np
import pytest

import asr
from asr.inference.recognizer import Recognizer
from asr.text.labels import MARK_OF
from asr.text.results import Final
from tests.conftest import RATE

LETTERS = str.maketrans("", "", "".join(MARK_OF))


@pytest.fixture(scope="module")
def writer(recognizer) -> Recognizer:
    """As the shared one, but it writes sentences."""
    return Recognizer(recognizer.engine)


@pytest.fixture(scope="module")
def talk(clips) -> np.ndarray:
    """Three clips with a second of silence after each."""
    quiet = np.zeros(RATE, np.float32)
    return np.concatenate([part for clip in clips[:3] for part in (clip.samples, quiet)])


def events(stream, samples: np.ndarray) -> list:
    found = [event for at in range(0, len(samples), 4000) for event in stream.accept(samples[at : at + 4000])]
    return found + stream.finish()


def test_written_words_are_the_raw_ones(recognizer, writer, talk):
    raw, written = (each.transcribe(talk, sample_rate=RATE) for each in (recognizer, writer))
    assert [word.text for word in written.words] == [word.text for word in raw.words]
    assert written.text.lower().translate(LETTERS).split() == " ".join(word.text for word in raw.words).split()
    assert written.text[0].isupper()
    assert not any(segment.punctuated for segment in raw.segments)
    assert all(segment.punctuated for segment in written.segments)
    assert writer.transcribe(talk, sample_rate=RATE, punctuate=False) == raw
    word = json.loads(json.dumps(written.to_dict()))["segments"][0]["words"][0]
    assert word["text"][0].isupper() and word["word"].islower()


def test_live_finals_are_written_and_partials_are_raw(recognizer, writer, talk):
    raw, written = events(recognizer.stream(), talk), events(writer.stream(), talk)
    finals = [event for event in written if isinstance(event, Final)]
    assert [[word.text for word in event.words] for event in written] == [
        [word.text for word in event.words] for event in raw
    ]
    assert all(word.written is None for event in written if not isinstance(event, Final) for word in event.words)
    assert finals[0].text[0].isupper()
    before = finals[0]
    for final in finals[1:]:  # a capital where the sentence before has ended, and only there unless it is a name
        if before.text[-1] in ".?":
            assert final.text[0].isupper()
        before = final
    assert [event.text for event in events(writer.stream(punctuate=False), talk)] == [event.text for event in raw]


def test_the_public_function_loads_the_shipped_tagger():
    punctuator = asr.load_punctuator()
    assert punctuator.punctuate("how are you i am fine").startswith("How are you")
    assert isinstance(punctuator, asr.Punctuator)


def test_a_checkpoint_without_a_tagger_gives_raw_words(recognizer, monkeypatch, talk):
    monkeypatch.setattr(recognizer.engine, "punctuator", None, raising=False)
    assert Recognizer(recognizer.engine).transcribe(talk, sample_rate=RATE).segments[0].words[0].written is None
