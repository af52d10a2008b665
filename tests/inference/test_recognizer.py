import threading
import wave
import weakref
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asr
from asr.audio import reading
from asr.errors import AudioError, CheckpointError, HotwordError
from asr.evaluation.scoring import score
from asr.inference.endpoint import EndpointRules
from asr.inference.engine import BATCH_UTTERANCES, batches_of
from asr.inference.recognizer import Recognizer
from asr.model.latency import PRESETS
from asr.text.sentences import SEGMENT_PAUSE_S
from tests.support.streams import finals, play

RATE = 16_000


def test_the_shipped_model_understands_most_words(recognizer, clips):
    """Not a benchmark: 18 clips. A broken decoder or frontend makes all of them wrong."""
    found = [recognizer.transcribe(clip.samples, sample_rate=RATE).text.replace("\n", " ") for clip in clips]
    errors = sum(score([clip.text], [words]).word_errors for clip, words in zip(clips, found, strict=True))
    assert errors < 0.25 * sum(len(clip.text.split()) for clip in clips)


def test_an_array_says_what_its_file_says(recognizer, clips, tmp_path):
    clip = clips[4]
    pcm = np.round(clip.samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    from_array = recognizer.transcribe(pcm, sample_rate=RATE)
    assert recognizer.transcribe(tmp_path / "a.wav") == recognizer.transcribe(str(tmp_path / "a.wav")) == from_array
    with open(tmp_path / "a.wav", "rb") as file:
        assert recognizer.transcribe(file) == from_array
    assert recognizer.transcribe(clip.path).text == from_array.text == clip.text
    assert recognizer.transcribe(np.stack([pcm, pcm], axis=1), sample_rate=RATE) == from_array
    assert from_array.duration == pytest.approx(len(pcm) / RATE)


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 700])
def test_hardly_any_sound_is_an_empty_transcript(recognizer, samples):
    transcript = recognizer.transcribe(np.full(samples, 0.1, np.float32), sample_rate=RATE)
    assert transcript.segments == () and transcript.text == ""
    assert transcript.duration == pytest.approx(samples / RATE)
    assert recognizer.decode_utterance(np.full(samples, 0.1, np.float32)).words == ()


@pytest.fixture(scope="module")
def long(recognizer, clips):
    """Over a minute of speech with 1 s of silence between sentences, and its transcript."""
    samples = np.concatenate([part for clip in clips for part in (clip.samples, np.zeros(RATE, np.float32))])
    return samples, recognizer.transcribe(samples, sample_rate=RATE)


def test_times_are_in_order_and_within_the_sound(long):
    samples, transcript = long
    assert transcript.duration == pytest.approx(len(samples) / RATE)
    words = transcript.words
    assert len(words) > 100
    assert all(0 <= w.start < w.end <= transcript.duration and 0 <= w.confidence <= 1 for w in words)
    assert all(a.start < b.start and a.end <= b.end for a, b in pairwise(words))
    for segment in transcript.segments:
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
        assert all(b.start - a.end < SEGMENT_PAUSE_S for a, b in pairwise(segment.words))
    assert len(transcript.segments) >= 12


def test_segments_say_what_each_utterance_says_alone(recognizer, clips, long):
    """Cutting, batching and sorting by length change few words (another voice is context too), and no word's place."""
    together, offset, errors, total = long[1], 0.0, 0, 0
    for clip in clips:
        alone = recognizer.decode_utterance(clip.samples).text
        end = offset + len(clip.samples) / RATE + 1
        inside = " ".join(word.text for word in together.words if offset - 0.5 <= word.start < end - 0.5)
        errors += score([alone], [inside]).word_errors
        total += len(alone.split())
        offset = end
    assert errors <= 0.15 * total


def test_a_batch_says_what_each_of_its_members_says(recognizer, clips):
    mels = [recognizer.engine.frontend(clip.samples) for clip in clips[:5]]
    mels.insert(2, mels[0][:0])  # nothing
    for latency in (recognizer.latency, asr.inference.recognizer.Latency.parse("offline")):
        heard = [mel for mel in mels if len(mel)]
        for mel, emissions in zip(heard, recognizer.engine.emissions(heard, latency), strict=True):
            (alone,) = recognizer.engine.emissions([mel], latency)
            for head, values in emissions.items():
                np.testing.assert_allclose(values, alone[head], rtol=0, atol=1e-4)
        together = recognizer.engine.recognize(mels, latency)
        assert together[2] == []
        for mel, words in zip(mels, together, strict=True):
            (alone,) = recognizer.engine.recognize([mel], latency)
            assert [(w.text, w.start, w.end) for w in words] == [(w.text, w.start, w.end) for w in alone]
            assert [w.confidence for w in words] == pytest.approx([w.confidence for w in alone], abs=1e-3)


@given(st.lists(st.integers(0, 50), max_size=20))
def test_batches_hold_each_utterance_once_and_are_bounded(lengths):
    batches = batches_of(lengths, 100)
    assert sorted(i for batch in batches for i in batch) == [i for i, length in enumerate(lengths) if length]
    assert all(len(batch) <= BATCH_UTTERANCES and len(batch) * lengths[batch[0]] <= 100 for batch in batches)
    inside = [lengths[i] for batch in batches for i in batch]
    assert inside == sorted(inside, reverse=True)


def test_full_batches_are_no_smaller_than_they_must_be():
    assert batches_of([20] * 5, 100) == [[0, 1, 2, 3], [4]]
    assert batches_of([45, 5, 50, 0, 200, 4], 100) == [[4], [2, 0], [1, 5]]


def test_parts_join_to_the_whole(recognizer, long):
    parts = list(recognizer.transcribe_parts(long[0], sample_rate=RATE))
    assert [segment for _, segments in parts for segment in segments] == list(long[1].segments)
    assert parts[-1][0] == pytest.approx(long[1].duration)


def test_alternatives_of_each_part_of_a_recording(recognizer, long):
    samples, plain = long
    parts = list(recognizer.transcribe_parts(samples, sample_rate=RATE, alternatives=3))
    segments = [segment for _, found in parts for segment in found]
    assert [word.display for segment in segments for word in segment.words] == [word.display for word in plain.words]
    assert len(segments) >= len(samples) / RATE / 20 and any(found for _, found in parts[:-1])
    for segment in segments:
        best, *others = segment.alternatives
        assert [word.text for word in best.words] == [word.text for word in segment.words]
        assert [word.start for word in best.words] == [word.start for word in segment.words]
        assert len(others) <= 2 and all(other.text != best.text for other in others)
    assert sum(len(segment.alternatives) > 1 for segment in segments) > len(segments) / 2
    raw = recognizer.transcribe(samples, sample_rate=RATE, alternatives=3, punctuate=False)
    assert [segment.alternatives for segment in raw.segments] == [segment.alternatives for segment in segments]
    assert raw.segments[0].text == raw.segments[0].alternatives[0].text


def test_without_a_search_there_is_one_alternative(greedy, clips):
    (segment,) = greedy.transcribe(clips[4].samples, sample_rate=RATE, alternatives=3).segments
    assert [each.confidence for each in segment.alternatives] == [1.0]


def test_a_recording_is_read_on_while_it_is_recognized(recognizer, long, monkeypatch):
    read_on, begun = threading.Event(), threading.Event()
    read_blocks, emissions = reading.read_blocks, recognizer.engine.emissions

    def blocks(*args, **options):
        for block in read_blocks(*args, **options):
            yield block
            if begun.is_set():
                read_on.set()

    def recognized(*args):
        begun.set()
        assert read_on.wait(60)
        return emissions(*args)

    monkeypatch.setattr(reading, "read_blocks", blocks)
    monkeypatch.setattr(recognizer.engine, "emissions", recognized)
    begin = recognizer.engine.recognize_later
    monkeypatch.setattr(
        recognizer.engine, "recognize_later", lambda *args: (begin(*args), begun.wait(60))[0]
    )  # until a thread has it
    assert recognizer.transcribe(long[0][: 60 * RATE], sample_rate=RATE).words[:50] == long[1].words[:50]


def test_features_are_given_back_once_the_model_has_heard_them(recognizer, clips, monkeypatch):
    engine, given, alive = recognizer.engine, threading.Event(), []
    utterances = [engine.frontend(clip.samples) for clip in clips[:3]]
    features = [weakref.ref(each) for each in utterances]

    def sentences(*_):
        assert given.wait(60)
        alive.append(sum(each() is not None for each in features))
        return []

    monkeypatch.setattr(engine, "sentences", sentences)
    recognition = engine.recognize_later(utterances, PRESETS["offline"], (), 1)
    del utterances
    given.set()
    assert recognition.result() == [[], [], []] and alive == [0, 0, 0]


def test_what_was_read_before_an_error_is_text_all_the_same(recognizer, long, monkeypatch):
    read_blocks = reading.read_blocks

    def blocks(*args, **options):
        yield from read_blocks(*args, **options)
        raise AudioError("The end is missing.")

    monkeypatch.setattr(reading, "read_blocks", blocks)
    found = []

    def hear():
        for _, segments in recognizer.transcribe_parts(long[0][: 60 * RATE], sample_rate=RATE):
            found.extend(segments)

    with pytest.raises(AudioError, match="missing"):
        hear()
    assert found and tuple(found) == long[1].segments[: len(found)]


def test_whoever_stops_listening_stops_the_work(recognizer, long, monkeypatch):
    begin, begun = recognizer.engine.recognize_later, []
    monkeypatch.setattr(recognizer.engine, "recognize_later", lambda *args: begun.append(begin(*args)) or begun[-1])
    parts = recognizer.transcribe_parts(np.tile(long[0], 3), sample_rate=RATE)
    next(parts)
    parts.close()
    assert begun and all(each.done() or each.running() for group in begun for each in group.found)


def test_a_recording_can_be_transcribed_at_live_latency(recognizer, clips):
    low = recognizer.transcribe(clips[4].samples, sample_rate=RATE, latency="fast")
    assert len(low.words) >= 7
    with pytest.raises(ValueError, match="offline"):
        recognizer.transcribe(clips[4].samples, sample_rate=RATE, latency="slow")


def test_sound_that_is_none(recognizer, tmp_path):
    with pytest.raises(AudioError, match=r"missing.wav"):
        recognizer.transcribe(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="sample_rate"):
        recognizer.transcribe(np.zeros(100))
    with pytest.raises(AudioError, match="NaN"):
        recognizer.transcribe(np.full(1000, np.nan), sample_rate=RATE)


def test_a_hot_word_of_the_recognizer_is_heard_in_recordings_and_streams(recognizer, clips):
    clip = next(clip for clip in clips if clip.path.stem == "commonvoice-2")
    hot = asr.load(hotwords=["knight:12"], device="cpu", threads=1, punctuate=False)
    for text in (hot.transcribe(clip.samples, sample_rate=RATE).text, hot.decode_utterance(clip.samples).text):
        assert text.endswith("that knight")
    stream = hot.stream()
    assert (stream.accept(clip.samples) + stream.finish())[-1].text.endswith("that knight")


def test_rules_of_the_recognizer_are_those_of_its_streams(recognizer, clips):
    clip = next(clip for clip in clips if clip.path.stem == "commonvoice-4")
    short = Recognizer(recognizer.engine, rules=EndpointRules(max_utterance=2.0))
    assert len(finals(play(short.stream(), clip.samples))) > len(finals(play(recognizer.stream(), clip.samples))) == 1


@pytest.mark.model
def test_what_cannot_be_loaded():
    with pytest.raises(CheckpointError, match="no checkpoint"):
        asr.load("nowhere", device="cpu")
    with pytest.raises(ValueError, match="fast, balanced"):
        asr.load(latency="slow", lm=False, device="cpu")
    with pytest.raises(HotwordError, match="language model"):
        asr.load(hotwords=["rill"], lm=False, device="cpu")


def test_without_language_model_any_spelling_is_possible(greedy, clips):
    transcript = greedy.transcribe(clips[6].samples, sample_rate=RATE)
    assert set(transcript.text) <= set(greedy.engine.checkpoint.config.tokens["characters"].symbols)
    assert len(transcript.words) >= 5
    assert all(0 <= word.confidence <= 1 for word in transcript.words)
