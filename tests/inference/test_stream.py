"""Live recognition with the shipped checkpoint and real speech: however the audio comes, nothing is lost."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch

from asr.audio.reading import Resampler
from asr.errors import AudioError, HotwordError, RillError
from asr.inference import firm
from asr.inference.endpoint import EndpointRules
from asr.inference.engine import SecondPassRequest
from asr.inference.runner import InlineRunner
from asr.inference.utterance import STEP_MEL_FRAMES
from asr.model.latency import Latency
from asr.text.results import Final, Partial
from tests.support.streams import RATE, finals, play, silence, texts

rng = np.random.default_rng(11)


def sparse(stream):
    """A stream that saves most previews, for tests that do not look at partials."""
    stream.preview_interval_steps = 4
    return stream


@pytest.fixture(scope="module")
def sentence(clips):
    """About 5 s of clear speech that the shipped model gets right."""
    return next(clip for clip in clips if clip.path.stem == "commonvoice-4")


@pytest.fixture(scope="module")
def two(clips):
    """Two sentences, 2 s of silence between them."""
    first, second = (next(clip for clip in clips if clip.path.stem == name) for name in ("commonvoice-2", "kathleen-0"))
    return np.concatenate([first.samples, silence(2), second.samples]), (first, second)


@pytest.fixture(scope="module")
def two_events(recognizer, two):
    return play(recognizer.stream(), two[0])


def test_an_utterance_grows_and_becomes_final(two_events):
    partials = [(event.text, event.stable) for event in two_events if isinstance(event, Partial)]
    assert partials[0][0] and all(a != b for a, b in pairwise(partials))  # one may take back all that was shown
    assert isinstance(two_events[0], Partial) and isinstance(two_events[-1], Final)
    assert len(partials) > 10
    kinds = [type(event) for event in two_events]
    first_final = kinds.index(Final)
    start = two_events[first_final].start
    assert all(event.start <= start for event in two_events[:first_final])
    assert all(event.start >= two_events[first_final].end for event in two_events[first_final + 1 :])


def test_two_utterances_have_the_texts_and_times_of_each_alone(recognizer, two, two_events):
    _, clips = two
    got = finals(two_events)
    alone = [recognizer.decode_utterance(clip.samples) for clip in clips]
    assert [final.text for final in got] == [final.text for final in alone] and all(texts(two_events))
    offset = 0.0
    for final, expected, clip in zip(got, alone, clips, strict=True):
        for word, known in zip(final.words, expected.words, strict=True):
            assert word.start == pytest.approx(offset + known.start, abs=0.2)
            assert word.end == pytest.approx(offset + known.end, abs=0.2)
        offset += len(clip.samples) / RATE + 2


def test_the_silence_before_an_utterance_is_not_recognized_again(recognizer, sentence, monkeypatch):
    asked, second_pass = [], InlineRunner.second_pass
    monkeypatch.setattr(
        InlineRunner,
        "second_pass",
        lambda runner, request: asked.append(len(request.mel)) or second_pass(runner, request),
    )
    (said,) = finals(play(recognizer.stream(), sentence.samples))
    last = asked[-1]
    waited = 4.2  # seconds: of less than 5 the stream forgets nothing
    (later,) = finals(play(recognizer.stream(), np.concatenate([silence(waited), sentence.samples])))
    assert later.text == said.text
    assert [word.start for word in later.words] == pytest.approx([word.start + waited for word in said.words], abs=0.1)
    assert asked[-1] <= last + 60  # mel frames: at most half a second of it


@pytest.mark.parametrize("two_pass", [True, False])
def test_an_utterance_that_is_cut_before_its_first_word(recognizer, sentence, two_pass):
    """The longest utterance may be shorter than the silence that is waited through."""
    rules = EndpointRules(max_leading_silence=5, max_utterance=4)
    stream = recognizer.stream(rules=rules, two_pass=two_pass)
    got = finals(play(stream, np.concatenate([silence(3.2), sentence.samples])))
    assert got[0].start > 3 and len(" ".join(final.text for final in got).split()) >= len(sentence.text.split()) - 2


@pytest.mark.parametrize("split", ["whole", "random", "tiny"])
def test_finals_do_not_depend_on_the_split(recognizer, two, two_events, split):
    samples = two[0]
    cuts = {"whole": [], "random": np.sort(rng.integers(0, len(samples), 30)), "tiny": range(37, len(samples), 37)}[
        split
    ]
    stream = recognizer.stream()
    events = play(sparse(stream) if split == "tiny" else stream, samples, cuts)
    for got, expected in zip(finals(events), finals(two_events), strict=True):
        assert [(w.text, w.start, w.end) for w in got.words] == [(w.text, w.start, w.end) for w in expected.words]
        assert [w.confidence for w in got.words] == pytest.approx([w.confidence for w in expected.words], abs=1e-3)
    if split == "random":  # a partial comes at most once a call, and says what it says to smaller blocks
        shown = {event.text for event in two_events if isinstance(event, Partial)}
        assert {event.text for event in events if isinstance(event, Partial)} <= shown


@pytest.mark.parametrize("every", [3, 8])
def test_finals_do_not_depend_on_how_often_a_stream_previews(recognizer, two, two_events, every):
    stream = recognizer.stream()
    stream.preview_interval_steps = every
    assert finals(play(stream, two[0])) == finals(two_events)


@pytest.mark.parametrize("kind", ["int16", "int32", "float64", "stereo"])
def test_any_dtype_says_the_same(recognizer, sentence, kind):
    x = np.clip(sentence.samples, -1, 1 - 2**-15)
    given = {
        "int16": (x * 2**15).astype(np.int16),
        "int32": (x * 2.0**31).astype(np.int32),
        "float64": x.astype(np.float64),
        "stereo": np.stack([x, x], axis=1),
    }[kind]
    assert " ".join(texts(play(sparse(recognizer.stream()), given))) == sentence.text


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_any_sample_rate(recognizer, sentence, rate):
    import soxr

    samples = soxr.resample(sentence.samples, RATE, rate)
    got = finals(play(sparse(recognizer.stream(sample_rate=rate)), samples))
    heard = Resampler(rate)
    expected = recognizer.decode_utterance(np.concatenate([heard.push(samples), heard.flush()]))
    assert " ".join(final.text for final in got) == expected.text
    assert got[-1].end == pytest.approx(expected.end, abs=0.1)
    if rate > 8_000:
        assert expected.text == sentence.text


@pytest.mark.parametrize("latency", ["fast", "balanced", (32, 12), (5, 0)])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_committed_emissions_are_those_of_forward_chunked(recognizer, clips, latency, rate):
    """Through the whole path, resampler and all, in blocks of uneven length."""
    committed = []

    class Session:
        def accept(self, emissions):
            committed.append(emissions)

        def words(self, preview=None):
            return []

        finish = words

    stream = recognizer.stream(rate, latency=latency, two_pass=False, rules=EndpointRules(99, 99, 99, 99))
    stream._utterance.session = Session()
    samples = clips[0].samples
    for block in np.split(samples, np.sort(rng.integers(0, len(samples), 25))):
        stream.accept(block)
    stream.finish()
    resampler = Resampler(rate)
    mel = recognizer.engine.frontend(np.concatenate([resampler.push(samples), resampler.flush()]))
    chosen = Latency.parse(latency)
    expected, _ = recognizer.engine.model.forward_chunked(mel[None], None, chosen.chunk, chosen.look_ahead)
    for head, values in expected.items():
        got = np.concatenate([part[head] for part in committed])
        np.testing.assert_allclose(got, values[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("two_pass", [True, False])
def test_the_last_word_is_there_when_the_sound_stops_right_after_it(recognizer, clips, two_pass):
    for clip in (clips[2], clips[12], clips[17]):
        words = recognizer.decode_utterance(clip.samples).words
        cut = clip.samples[: round((words[-1].end + 0.06) * RATE)]
        expected = recognizer.decode_utterance(cut, "offline" if two_pass else "balanced").text
        got = texts(play(sparse(recognizer.stream(two_pass=two_pass)), cut))
        assert expected.split()[-1] == words[-1].text or not two_pass
        assert " ".join(got) == expected


def test_a_greedy_stream_says_what_greedy_text_is(greedy, clips):
    for clip in (clips[12], clips[14], clips[15]):  # they begin with speech: a second pass leaves out longer silence
        got = texts(play(greedy.stream(rules=EndpointRules(min_trailing_silence=9)), clip.samples))
        assert " ".join(got) == greedy.decode_utterance(clip.samples).text != ""


def test_one_pass_says_what_its_latency_gives(recognizer, clips):
    """But for the end, whose look-ahead is the silence that ended it."""
    (got,) = texts(play(recognizer.stream(two_pass=False), np.concatenate([clips[4].samples, silence(1)])))
    expected = recognizer.decode_utterance(clips[4].samples, "balanced").text
    assert got.split()[:-2] == expected.split()[:-2] and len(got.split()) == len(expected.split())


def test_finish_is_the_end(recognizer, clips):
    stream = recognizer.stream()
    stream.accept(clips[12].samples)
    assert texts(stream.finish()) == [clips[12].text]
    assert stream.finish() == stream.finish() == []
    with pytest.raises(RuntimeError, match="finished"):
        stream.accept(silence(0.1))


def test_nothing_at_all(recognizer):
    assert recognizer.stream().finish() == []
    stream = recognizer.stream()
    assert stream.accept(silence(0)) == stream.accept(silence(0.01)) == stream.finish() == []


@pytest.mark.parametrize(
    "level, seconds, two_pass", [(0.0, 30, True), (0.0, 8, False), (1e-4, 8, True), (3e-3, 8, True), (3e-3, 8, False)]
)
def test_silence_gives_no_text(recognizer, level, seconds, two_pass):
    """With language model and priors on, digital silence and faint noise alike."""
    samples = (level * rng.standard_normal(seconds * RATE)).astype(np.float32)
    stream = recognizer.stream(two_pass=two_pass)
    assert [event for block in np.split(samples, 50 * seconds) for event in stream.accept(block)] == []
    assert stream._origin > (seconds - 6) * 100  # dropped, not kept
    assert stream.finish() == []
    assert recognizer.transcribe(samples, sample_rate=RATE).text == ""


@pytest.fixture(scope="module")
def endless(clips):
    """A minute of speech without a pause: the middles of clips, again and again."""
    pieces = [clip.samples for clip in clips if clip.path.stem.startswith(("kathleen", "ljspeech"))]
    loud = [np.flatnonzero(np.abs(piece) > 0.02) for piece in pieces]
    trimmed = [piece[where[0] : where[-1]] for piece, where in zip(pieces, loud, strict=True)]
    return np.concatenate(trimmed * 3)[: 62 * RATE]


@pytest.mark.parametrize("two_pass", [True, False])
def test_speech_without_pauses_is_cut_and_no_word_is_lost(recognizer, endless, two_pass):
    rules = EndpointRules(min_trailing_silence=3.0)
    got = finals(play(sparse(recognizer.stream(two_pass=two_pass, rules=rules)), endless))
    expected = recognizer.transcribe(endless, sample_rate=RATE).words
    assert len(got) >= 3
    assert all(final.end - final.start <= 20.2 for final in got)
    words = [word for final in got for word in final.words]
    assert all(a.start < b.start and a.end <= b.start + 0.2 for a, b in pairwise(words))  # nothing twice
    assert abs(len(words) - len(expected)) <= 0.05 * len(expected) + 3
    for final in got[:-1]:  # around each cut stand as many words as in the whole, the one that it touches aside
        around = [w.text for w in words if abs(w.start - final.end) < 3]
        known = [w.text for w in expected if abs(w.start - final.end) < 3]
        assert abs(len(around) - len(known)) <= 2


def sizes(stream) -> dict[str, int]:
    """Everything that a stream keeps, in elements."""
    utterance, waiting = stream._utterance, stream._waiting
    return {
        "samples": stream._features.samples,
        "waiting": waiting.size,
        "activity": utterance.activity.size,
        "utterance": sum(mel.shape[0] for mel in utterance.mel),
        "frames": utterance.state.frames.size,
        "mel": utterance.state.mel.size,
        "storage": (waiting if waiting.base is None else waiting.base).size,
    }


def test_work_and_memory_per_second_are_constant(recognizer, clips, monkeypatch):
    """One clip and a pause, over and over: each round runs as many frames through the model as the one before."""
    samples = np.concatenate([clips[5].samples, silence(2 + (-len(clips[5].samples) % 2560 + 2560 * 4) / RATE)])
    samples = samples[: len(samples) // 2560 * 2560]
    run, rounds, largest = [], [], []

    def counted(way):
        def call(frames, *rest):
            run.append(frames.shape[1])
            return way(frames, *rest)

        return call

    for name in ("advance", "forward"):
        monkeypatch.setattr(recognizer.engine.model, name, counted(getattr(recognizer.engine.model, name)))
    stream = recognizer.stream()
    for _ in range(5):
        found, most = [], {}
        for block in np.split(samples, len(samples) // 2560):
            found += stream.accept(block)
            most = {name: max(size, most.get(name, 0)) for name, size in sizes(stream).items()}
        rounds.append((sum(run), len(finals(found))))
        largest.append(most)
        run.clear()
    assert all(count == 1 for _, count in rounds)
    assert max(work for work, _ in rounds[1:]) <= 1.05 * min(work for work, _ in rounds[1:])
    for name in largest[0]:
        assert max(most[name] for most in largest[2:]) <= 1.1 * max(most[name] for most in largest[:2]) + 16, name
    assert stream.seconds == pytest.approx(5 * len(samples) / RATE, abs=0.1)


def test_the_latency_can_be_changed_on_the_way(recognizer, sentence):
    stream, events = sparse(recognizer.stream(latency="accurate")), []
    for i, block in enumerate(np.array_split(sentence.samples, 30)):
        events += stream.accept(block)
        if i % 5 == 0:
            stream.latency = ["fast", (16, 8), "accurate", "5,0"][i // 5 % 4]
    assert texts(events + stream.finish()) == [sentence.text]
    with pytest.raises(ValueError, match="full context"):
        stream.latency = "offline"
    with pytest.raises(ValueError, match="fast, balanced"):
        stream.latency = "slow"
    with pytest.raises(ValueError, match="full context"):
        recognizer.stream(latency="offline")


def test_a_lower_latency_commits_earlier(recognizer, sentence):
    seen = {}
    for latency in ("fast", "accurate"):
        stream = sparse(recognizer.stream(latency=latency))
        for block in np.array_split(sentence.samples[: 3 * RATE], 30):
            stream.accept(block)
        seen[latency] = len(stream._utterance.committed)
    assert seen["fast"] > seen["accurate"] + 10


def test_hot_words_act_from_the_next_utterance_on(recognizer, two):
    samples, (first, second) = two
    plain = [recognizer.decode_utterance(clip.samples).text for clip in (first, second)]
    hot = ["knight:12", "roc:12"]  # they sound like night and rock
    assert plain == ["no one seemed to have thought about it that night", "there was nothing on the rock"]
    stream = sparse(recognizer.stream())
    events = stream.accept(samples[: 2 * RATE])
    stream.hotwords = hot  # while the first utterance is being said
    events += play(stream, samples[2 * RATE :])
    assert texts(events) == [plain[0], "there was nothing on the roc"]
    engine = recognizer.engine
    mel, decoder = engine.frontend(first.samples), engine.decoder(engine.parse_hotwords(hot))
    ((offline,),) = engine.recognize_batch([SecondPassRequest(mel, decoder, 1)])
    said = offline.text
    assert said.endswith("that knight")
    assert texts(play(sparse(recognizer.stream(hotwords=hot)), first.samples)) == [said]
    with pytest.raises(HotwordError):
        stream.hotwords = [":3"]
    assert [h.phrase for h in stream.hotwords] == [("knight",), ("roc",)]


def test_alternatives_are_what_else_may_have_been_said(recognizer, two):
    samples, (first, _) = two
    (plain, _) = finals(play(recognizer.stream(), samples))
    many = finals(play(recognizer.stream(alternatives=5), samples))
    assert plain.alternatives == () and "alternatives" not in plain.to_dict()
    assert len(many) == 2
    for final in many:
        best, *others = final.alternatives
        assert best.words == final.words and 1 <= len(others) <= 4
        assert len({each.text for each in final.alternatives}) == len(final.alternatives)
        sure = [each.confidence for each in final.alternatives]
        assert sure == sorted(sure, reverse=True) and sum(sure) == pytest.approx(1)
        for each in final.alternatives:
            assert all(final.start - 0.2 <= word.start < word.end <= final.end + 0.2 for word in each.words)
        assert [each["text"] for each in final.to_dict()["alternatives"]] == [each.text for each in final.alternatives]
    assert many[0].words == plain.words
    (greedy,) = finals(play(recognizer.stream(alternatives=5, two_pass=False), first.samples))
    assert [each.text for each in greedy.alternatives] == [greedy.text]


def test_hot_words_need_the_language_model(greedy):
    with pytest.raises(HotwordError, match="language model"):
        greedy.stream(hotwords=["rill"])


@pytest.mark.parametrize(
    "bad",
    [
        np.full(100, np.nan, np.float32),
        np.full(5, np.inf),
        np.zeros(5, complex),
        np.zeros((2, 3, 4), np.float32),
        np.array(["a"]),
    ],
)
def test_a_bad_block_is_refused_and_the_stream_goes_on(recognizer, sentence, bad):
    stream = sparse(recognizer.stream(sample_rate=RATE))
    half = len(sentence.samples) // 2
    events = stream.accept(sentence.samples[:half])
    with pytest.raises(AudioError):
        stream.accept(bad)
    events += stream.accept(sentence.samples[half:])
    assert texts(events + stream.finish()) == [sentence.text]


def test_a_rate_that_cannot_be(recognizer):
    with pytest.raises(AudioError, match="Hz"):
        recognizer.stream(sample_rate=10)


def test_streams_of_one_recognizer_do_not_disturb_one_another(recognizer, clips):
    chosen = (clips[2], clips[12])
    streams, events = [sparse(recognizer.stream()) for _ in chosen], [[], []]
    for i in range(30):
        for stream, clip, found in zip(streams, chosen, events, strict=True):
            found += stream.accept(np.array_split(clip.samples, 30)[i])
    for stream, clip, found in zip(streams, chosen, events, strict=True):
        assert texts(found + stream.finish()) == [recognizer.decode_utterance(clip.samples).text]


def test_words_are_in_order_and_confidences_are_probabilities(two, two_events):
    duration = len(two[0]) / RATE
    words = [word for final in finals(two_events) for word in final.words]
    assert all(0 <= word.start < word.end <= duration + 0.1 and 0 <= word.confidence <= 1 for word in words)
    assert all(a.start < b.start for a, b in pairwise(words))
    for event in two_events:
        assert all(0 <= word.confidence <= 1 and word.start < word.end for word in event.words)


@pytest.mark.parametrize("interval", [1, 4, 100])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_nothing_happens_with_less_than_the_stream_wants(recognizer, sentence, monkeypatch, interval, rate):
    """Audio that comes in portions of just what is wanted makes the same finals in fewer steps."""
    samples = np.concatenate([np.repeat(sentence.samples, rate // RATE), np.zeros(rate, np.float32)])
    expected = texts(play(sparse(recognizer.stream(rate)), samples))
    steps, step = [], InlineRunner.step

    def count(runner, request):
        if request.latency != firm.LATENCY:
            steps.append(len(request.mel))
        return step(runner, request)

    monkeypatch.setattr(InlineRunner, "step", count)
    stream = recognizer.stream(rate)
    stream.preview_interval_steps = interval
    events, first = [], 0
    while first < len(samples):
        wanted = max(0, int(stream.wanted_s * rate) - 1)
        before = len(steps)
        events += stream.accept(samples[first : first + wanted])
        assert len(steps) == before
        events += stream.accept(samples[first + wanted : first + wanted + 48])
        first += wanted + 48
    assert texts(events + stream.finish()) == expected
    assert (np.mean(steps) > STEP_MEL_FRAMES) == (interval > 1)  # steps with nothing to do are taken together


def test_a_long_block_is_previewed_at_its_end_alone(recognizer, two, monkeypatch):
    """Partials inside it are seen by nobody, and each costs as much as a chunk."""
    previews, step = [], InlineRunner.step
    monkeypatch.setattr(
        InlineRunner, "step", lambda runner, request: previews.append(request.preview) or step(runner, request)
    )
    counts = []
    for cuts in (None, []):
        previews.clear()
        play(recognizer.stream(), np.concatenate([two[0], silence(1)] * 2), cuts)
        counts.append(sum(previews))
    assert counts[1] < counts[0] / 2


def test_a_second_thread_is_refused_and_loses_nothing(recognizer, sentence, monkeypatch):
    working, go_on, step = threading.Event(), threading.Event(), InlineRunner.step

    def held(runner, request):
        working.set()
        assert go_on.wait(60)
        return step(runner, request)

    stream = recognizer.stream()
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as other:
        patch.setattr(InlineRunner, "step", held)
        first = other.submit(stream.accept, sentence.samples)
        assert working.wait(60)
        for call in (lambda: stream.accept(sentence.samples), stream.finish):
            with pytest.raises(RillError, match="at work in another thread"):
                call()
        go_on.set()
        events = first.result()
    assert texts(events + stream.finish()) == texts(play(recognizer.stream(), sentence.samples))


@pytest.mark.e2e
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_so(recognizer, sentence):
    """Its copy of the recognizer has no threads: it would wait for ever."""
    stream = recognizer.stream()
    child = os.fork()
    if not child:
        refused = 0
        for call in (lambda: stream.accept(sentence.samples), lambda: recognizer.transcribe(sentence.path)):
            try:
                call()
            except RillError as error:
                refused += "before the process was forked" in str(error)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


@pytest.mark.parametrize(
    "wrong", [[0.0, 0.5], b"\0\0", bytearray(4), None, "audio", 0.5, torch.ones(4).requires_grad_()]
)
def test_samples_that_are_no_array(recognizer, sentence, wrong):
    """One sentence, and the stream goes on; a tensor is an array."""
    stream = recognizer.stream()
    with pytest.raises(AudioError, match=r"pass .* NumPy array"):
        stream.accept(wrong)
    events = stream.accept(torch.from_numpy((sentence.samples * 32767).astype(np.int16)))
    assert texts(events + stream.finish()) == texts(play(recognizer.stream(), sentence.samples))
