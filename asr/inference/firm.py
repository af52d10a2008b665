"""Which words of a live utterance do not change any more, while somebody speaks on.

A latency-controlled pass of its own, with more look-ahead than partials wait for, is searched and judged as well as a
final is, over the frames of its look-ahead, too. A word becomes firm once its own frames have been committed, if the
hypothesis before had it, too (local agreement, Liu et al. 2020, arXiv 2005.11185). Words become firm in order: those
after a new one wait with it. The second pass, which has heard the whole utterance, is not bound by them: a final may
correct what was firm, as full context is more accurate.
(Whisper-Streaming, Macháček et al. 2023, arXiv 2307.14743, never corrects what it has confirmed.)

What is firm follows from the utterance's audio alone, as its final must, however its steps are cut or batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from asr.inference.pending import Pending
from asr.inference.runner import ModelRunner
from asr.inference.stability import repeated
from asr.inference.steps import StepRequest, StepResult
from asr.inference.utterance import Utterance
from asr.model.latency import Latency
from asr.model.streaming import Emissions
from asr.text.results import Word

LATENCY = Latency(16, 32)


class FirmWords:
    """The firm words of one utterance; times count from its beginning."""

    def __init__(self, runner: ModelRunner, utterance: Utterance) -> None:
        self.words: list[Word] = []
        self._hypothesis: list[Word] = []
        self._runner, self._utterance = runner, utterance
        self._session = utterance.decoder.session()
        self._state = utterance.engine.model.stream_state()
        self._pushed = 0  # mel frames
        self._searched = 0  # frames
        self._result: Future[StepResult] | None = None

    def begin(self) -> None:
        """Asks for the next chunk if its look-ahead has been heard, so that it may share a batch with what comes next.

        Where nothing has been said, nothing is computed.
        """
        utterance = self._utterance
        missing = utterance.engine.model.missing(self._state, LATENCY.chunk + LATENCY.look_ahead)
        end = self._pushed + missing
        if self._result is None and end <= utterance.mel_frames and utterance.activity.any():
            mel = np.concatenate(utterance.mel)[self._pushed : end]
            self._pushed = end
            self._result = self._runner.step(StepRequest(self._state, mel, LATENCY, preview=False))

    def advance(self) -> Pending[None]:
        """Takes in all that has been heard."""
        self.begin()
        while self._result:
            result = yield self._result
            self._result = None
            for emissions in result.committed:
                self._session.accept(emissions)
                self._searched += LATENCY.chunk
            self._take(result.provisional)
            self.begin()

    def continued(self, hypothesis: Sequence[Word]) -> list[Word]:
        """The firm words, and those of a hypothesis that come after them."""
        return [*self.words, *self._after(hypothesis)]

    def _take(self, look_ahead: Emissions | None) -> None:
        before, self._hypothesis = self._hypothesis, self._session.judged(look_ahead)
        committed_s = self._searched * self._utterance.engine.seconds_per_frame
        for word in self._after(self._hypothesis):
            if word.end > committed_s or not repeated(word, before):
                break
            self.words.append(word)

    def _after(self, words: Sequence[Word]) -> list[Word]:
        end = self.words[-1].end if self.words else 0.0
        return [word for word in words if (word.start + word.end) / 2 > end]
