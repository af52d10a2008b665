"""Which words of a live utterance do not change any more, while somebody speaks on.

A latency-controlled pass of its own, with more look-ahead than partials wait for, is searched as well as a final is.
A word becomes firm once that search has heard enough after it; words become firm in order. The second pass, which has
heard the whole utterance, is not bound by them: a final may correct what was firm, as full context is more accurate.
(Whisper-Streaming, Macháček et al. 2023, arXiv 2307.14743, never corrects what it has confirmed.)

What is firm follows from the utterance's audio alone, as its final must, however its steps are cut or batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from asr.inference.pending import Pending
from asr.inference.runner import ModelRunner
from asr.inference.steps import StepRequest, StepResult
from asr.inference.utterance import Utterance
from asr.model.latency import Latency
from asr.text.results import Word

LATENCY = Latency(16, 32)
SEARCHED_AFTER_S = 0.5  # of audio that the search must have heard after a word


class FirmWords:
    """The firm words of one utterance; times count from its beginning."""

    def __init__(self, runner: ModelRunner, utterance: Utterance) -> None:
        self.words: list[Word] = []
        self._runner, self._utterance = runner, utterance
        self._session = utterance.decoder.session()
        self._state = utterance.engine.model.stream_state()
        self._pushed = 0  # mel frames
        self._searched = 0  # frames
        self._result: Future[StepResult] | None = None

    def begin(self) -> None:
        """Asks for the chunks whose look-ahead has been heard, so that they may share a batch with what comes next.

        Where nothing has been said, nothing is computed.
        """
        utterance = self._utterance
        ready = utterance.engine.model.missing(self._state, LATENCY.chunk + LATENCY.look_ahead)
        new = utterance.mel_frames - self._pushed
        if self._result is None and ready <= new and utterance.activity.any():
            mel = np.concatenate(utterance.mel)[self._pushed :]
            self._pushed += new
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
                self._take()
            self.begin()

    def continued(self, hypothesis: Sequence[Word]) -> list[Word]:
        """The firm words, and those of a hypothesis that come after them."""
        return [*self.words, *self._after(hypothesis)]

    def _take(self) -> None:
        after = round(SEARCHED_AFTER_S / self._utterance.engine.seconds_per_frame)
        self.words += self._after(self._session.settled(self._searched - after))

    def _after(self, words: Sequence[Word]) -> list[Word]:
        end = self.words[-1].end if self.words else 0.0
        return [word for word in words if (word.start + word.end) / 2 > end]
