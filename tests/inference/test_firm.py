"""Words become firm in order, soon after they were said, and stay."""

import numpy as np
import pytest

from asr.inference.firm import COMMITTED_AFTER_S, LATENCY, FirmWords
from asr.inference.pending import wait
from asr.inference.runner import InlineRunner
from asr.inference.utterance import Utterance
from asr.text.results import Final, Partial
from tests.support.streams import RATE

FRAME_S = 0.04


@pytest.fixture(scope="module")
def mel(recognizer, clips):
    samples = np.concatenate([clip.samples for clip in clips if clip.path.stem.startswith("ljspeech")][:2])
    return recognizer.engine.frontend(samples)


def heard(recognizer, mel, size, active=True):
    """The firm words of an utterance that comes in pieces of `size` mel frames."""
    engine = recognizer.engine
    utterance = Utterance(engine, engine.decoder(), draft=True)
    utterance.activity = np.array([active])
    firm = FirmWords(InlineRunner(engine), utterance)
    for first in range(0, len(mel), size):
        utterance.push(mel[first : first + size])
        wait(firm.advance())
    return firm


def test_what_is_firm_follows_from_the_audio_alone(recognizer, mel):
    firm, other = (heard(recognizer, mel, size) for size in (16, 217))
    assert len(firm.words) >= 5
    assert [word.text for word in firm.words] == [word.text for word in other.words]


def test_which_words_a_frame_has_made_firm_does_not_depend_on_what_came_later(recognizer, mel):
    whole, frame = heard(recognizer, mel, 16), 100
    until = heard(recognizer, mel[: 4 * frame + 20], 16)  # the model hears a little further than its frames
    assert 0 < len(whole.within(frame)) < len(whole.words)
    assert whole.within(frame) == until.within(frame)
    assert whole.within(10**6) == tuple(word.text for word in whole.words)
    assert whole.within(0) == ()


def test_nothing_is_computed_where_nothing_was_said(recognizer, mel):
    firm = heard(recognizer, mel, 16, active=False)
    assert firm.words == [] and firm._pushed == 0


def test_a_firm_word_stays_whatever_a_hypothesis_says(recognizer, mel):
    firm = heard(recognizer, mel, 16)
    hypothesis = recognizer.engine.recognize([mel], recognizer.latency)[0]
    shown = firm.continued([])
    assert firm.continued(hypothesis)[: len(shown)] == shown
    assert len(firm.continued(hypothesis)) > len(shown)


def test_finals_are_asked_for_with_the_same_firm_words_however_the_audio_comes(recognizer, clips, monkeypatch):
    samples = np.concatenate([clip.samples for clip in clips if clip.path.stem.startswith("ljspeech")])
    asked, second_pass = {}, InlineRunner.second_pass
    ways = ((RATE // 10, "balanced", 1), (3 * RATE, "balanced", 1), (RATE // 4, "accurate", 16), (RATE, "balanced", 5))
    for way, (size, latency, interval) in enumerate(ways):

        def ask(runner, request, way=way):
            asked.setdefault(len(request.mel), {})[way] = request.firm
            return second_pass(runner, request)

        monkeypatch.setattr(InlineRunner, "second_pass", ask)
        stream = recognizer.stream(latency=latency)
        stream.preview_interval_steps = interval
        for first in range(0, len(samples), size):
            stream.accept(samples[first : first + size])
        stream.finish()
    shared = [tuple(words.values()) for words in asked.values() if len(words) == len(ways)]
    assert all(len(set(words)) == 1 for words in shared)
    assert sum(map(len, {words[0] for words in shared})) >= 20


def test_live_text_firms_up_and_no_firm_word_changes(recognizer, clips):
    samples = np.concatenate([clip.samples for clip in clips if clip.path.stem.startswith("ljspeech")])
    stream, partial, lags = recognizer.stream(), Partial((), 0.0), []
    for end in range(RATE // 10, len(samples), RATE // 10):
        for event in stream.accept(samples[end - RATE // 10 : end]):
            if isinstance(event, Final):
                partial = Partial((), 0.0)
                continue
            assert event.stable >= partial.stable
            assert event.words[: partial.stable] == partial.words[: partial.stable]
            lags += [end / RATE - word.end for word in event.words[partial.stable : event.stable]]
            partial = event
    stream.finish()
    assert len(lags) >= 10
    soonest, latest = COMMITTED_AFTER_S + LATENCY.look_ahead * FRAME_S, COMMITTED_AFTER_S + LATENCY.seconds(FRAME_S)
    assert min(lags) > soonest and np.median(lags) < latest + 0.2
