"""Which words of a live utterance do not change any more, while somebody speaks on.

A latency-controlled pass of its own, with more look-ahead than partials wait for, is searched as well as a final is,
and on through the look-ahead, less well. A word becomes firm once enough after it has been committed; words become
firm in order. The second pass, which has heard the whole utterance, keeps them unless it insists on others
(`asr.decoding.insistence`; Whisper-Streaming, Macháček et al. 2023, arXiv 2307.14743, keeps all of them).

What is firm follows from the utterance's audio alone, as its final must, however its steps are cut or batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from asr.decoding.decoder import Emissions
from asr.inference.pending import Pending
from asr.inference.runner import ModelRunner
from asr.inference.steps import StepRequest, StepResult
from asr.inference.utterance import Utterance
from asr.model.latency import Latency
from asr.text.results import Word

LATENCY = Latency(16, 32)
COMMITTED_AFTER_S = 0.5  # of audio after a word


class FirmWords:
    """The firm words of one utterance; times count from its beginning."""

    def __init__(self, runner: ModelRunner, utterance: Utterance) -> None:
        self.words: list[Word] = []
        self._heard: list[int] = []  # frames, the look-ahead included, with which each of them became firm
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
            (emissions,) = result.committed
            settled = yield self._runner.search(partial(self._settled, emissions, result.provisional))
            new = self._after(settled)
            self.words += new
            self._heard += [self._searched + LATENCY.look_ahead] * len(new)
            self.begin()

    def within(self, frame: int) -> tuple[str, ...]:
        """Those that the audio before a frame has made firm, however much has been heard since."""
        return tuple(word.text for word, heard in zip(self.words, self._heard, strict=True) if heard <= frame)

    def continued(self, hypothesis: Sequence[Word]) -> list[Word]:
        """The firm words, and those of a hypothesis that come after them."""
        return [*self.words, *self._after(hypothesis)]

    def _settled(self, chunk: Emissions, look_ahead: Emissions | None) -> list[Word]:
        """The words that one more chunk makes firm, and those before them."""
        self._session.accept(chunk)
        self._searched += LATENCY.chunk
        after = round(COMMITTED_AFTER_S / self._utterance.engine.seconds_per_frame)
        return self._session.settled(self._searched - after, look_ahead)

    def _after(self, words: Sequence[Word]) -> list[Word]:
        end = self.words[-1].end if self.words else 0.0
        return [word for word in words if (word.start + word.end) / 2 > end]
