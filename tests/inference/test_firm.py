"""Words become firm in order, soon after they were said, and stay."""

import numpy as np
import pytest

from asr.inference.firm import LATENCY, FirmWords
from asr.inference.pending import wait
from asr.inference.runner import InlineRunner
from asr.inference.utterance import Utterance
from asr.text.results import Final, Partial, Word
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


def test_nothing_is_computed_where_nothing_was_said(recognizer, mel):
    firm = heard(recognizer, mel, 16, active=False)
    assert firm.words == [] and firm._pushed == 0


def test_a_firm_word_stays_whatever_a_hypothesis_says(recognizer, mel):
    firm = heard(recognizer, mel, 16)
    hypothesis = recognizer.engine.recognize([mel], recognizer.latency)[0]
    shown = firm.continued([])
    assert firm.continued(hypothesis)[: len(shown)] == shown
    assert len(firm.continued(hypothesis)) > len(shown)


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
    assert min(lags) > LATENCY.look_ahead * FRAME_S and np.median(lags) < LATENCY.seconds(FRAME_S) + 0.2


class Judging:
    """A session whose hypotheses are given; a word lasts half a second."""

    def __init__(self, *hypotheses):
        self.hypotheses = list(hypotheses)

    def accept(self, emissions):
        pass

    def judged(self, preview):
        assert len(preview["phonemes"]) == LATENCY.look_ahead
        said = self.hypotheses.pop(0).split()
        return [Word(word, i / 2, i / 2 + 0.5, 0.5) for i, word in enumerate(said)]


def firm_after(recognizer, mel, *hypotheses):
    """The firm words after each of these hypotheses, one for each chunk of 0.64 s."""
    engine = recognizer.engine
    utterance = Utterance(engine, engine.decoder(), draft=True)
    utterance.activity = np.array([True])
    firm, found = FirmWords(InlineRunner(engine), utterance), []
    firm._session = Judging(*hypotheses)
    last = 0
    for chunk in range(1, len(hypotheses) + 1):
        while len(firm._session.hypotheses) > len(hypotheses) - chunk:
            utterance.push(mel[last : last + 1])
            last += 1
            wait(firm.advance())
        found.append(" ".join(word.text for word in firm.words))
    return found


def test_a_committed_word_that_was_there_before_becomes_firm(recognizer, mel):
    said = "so far away"  # of which the first word ends in the first chunk, the second in the next
    assert firm_after(recognizer, mel, said, said, said) == ["", "so far", "so far away"]


def test_a_new_word_waits_and_those_after_it_too(recognizer, mel):
    assert firm_after(recognizer, mel, "so far", "no far", "no far") == ["", "", "no far"]
