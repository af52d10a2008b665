"""Which words of a live utterance do not change any more, while somebody speaks on.

A latency-controlled pass of its own, with more look-ahead than partials wait for, is searched as well as a final is.
A word becomes firm once that search has heard enough after it; words become firm in order. Its tokens are then
expected of the utterance's second pass, which corrects them only where the sound or the sentence speaks clearly
against them. (Whisper-Streaming, Macháček et al. 2023, arXiv 2307.14743, never corrects what it has confirmed.)

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
        self._expected: list[tuple[int, int]] = []  # frames heard when so many of the `_tokens` were known
        self._tokens = np.zeros(0, np.int64)  # of the frames up to the last firm word's end

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

    def expected(self, frames: range) -> np.ndarray:
        """The tokens that were firm when the last of these frames was heard, (F,); −1 where none was."""
        count = max((count for heard, count in self._expected if heard <= frames.stop), default=0)
        tokens = np.full(frames.stop, -1, np.int64)
        tokens[:count] = self._tokens[:count]
        return tokens[frames.start :]

    def continued(self, hypothesis: Sequence[Word]) -> list[Word]:
        """The firm words, and those of a hypothesis that come after them."""
        return [*self.words, *self._after(hypothesis)]

    def _take(self) -> None:
        after = round(SEARCHED_AFTER_S / self._utterance.engine.seconds_per_frame)
        words, tokens = self._session.settled(self._searched - after)
        self.words += self._after(words)
        self._tokens = np.concatenate([self._tokens, tokens[len(self._tokens) :]])
        self._expected.append((self._searched + LATENCY.look_ahead, len(self._tokens)))

    def _after(self, words: Sequence[Word]) -> list[Word]:
        end = self.words[-1].end if self.words else 0.0
        return [word for word in words if (word.start + word.end) / 2 > end]
