"""One utterance of a stream: what is known of it, when it is previewed, and its second pass.

Frames are those of the model (40 ms) and count from the utterance's beginning; mel frames (10 ms) are said to be such.
"""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from asr.decoding.decoder import Decoder, Emissions
from asr.inference.endpoint import active
from asr.inference.engine import Engine, SecondPassRequest
from asr.inference.runner import ModelRunner
from asr.inference.steps import StepResult
from asr.model.latency import Latency
from asr.text.results import Alternative, Word

STEP_MEL_FRAMES = 16  # 160 ms: the pace of previews on a computer that keeps up


class Utterance:
    """Its audio, the model's state, where it is active, and the words of the first pass.

    A `draft`'s words are soon replaced by those of a second pass, so they may be searched less well.
    """

    def __init__(self, engine: Engine, decoder: Decoder, draft: bool) -> None:
        self.engine, self.decoder = engine, decoder
        self.session = decoder.session(draft=draft)
        self.state = engine.model.stream_state()
        self.mel: list[np.ndarray] = []  # blocks (n, bands)
        self.mel_frames = 0
        self.activity = np.zeros(0, dtype=bool)  # of committed and previewed frames
        self.committed = self.activity  # of the committed ones alone
        self.preview: Emissions | None = None  # of the frames right of them

    def push(self, mel: np.ndarray) -> None:
        """New audio, (n, bands)."""
        self.mel.append(mel)
        self.mel_frames += len(mel)

    def update(self, result: StepResult) -> None:
        """What the model made of it."""
        for emissions in result.committed:
            self.session.accept(emissions)
            self.committed = np.concatenate([self.committed, self._active(emissions)])
        self.preview = result.provisional
        provisional = [] if self.preview is None else [self._active(self.preview)]
        self.activity = np.concatenate([self.committed, *provisional])

    def until_frame(self, frame: int) -> int:
        """Mel frames that are missing until the model can see so many frames."""
        return self.engine.model.missing(self.state, frame - len(self.committed))

    def until_chunk(self, latency: Latency) -> int:
        """Mel frames that are missing until the next chunk can be committed."""
        return self.engine.model.missing(self.state, latency.chunk + latency.look_ahead)

    def words(self) -> list[Word]:
        """Those of the first pass so far, provisional ones included."""
        return self.session.words(self.preview)

    def final_words(self, end: int) -> list[Word]:
        """Those of the first pass that begin before frame `end`; later ones belong to the next utterance."""
        if self.state.ended:
            return self.session.finish() if self.activity.any() else []
        end_s = end * self.engine.seconds_per_frame
        return [word for word in self.words() if word.start < end_s]

    def audio(self, frames: range) -> np.ndarray:
        """The mel frames of these frames, (T, bands)."""
        subsampling = self.engine.model.config.subsampling
        return np.concatenate(self.mel)[frames.start * subsampling : frames.stop * subsampling]

    def _active(self, emissions: Emissions) -> np.ndarray:
        head = self.engine.head
        return active(emissions[head], self.engine.checkpoint.config.tokens[head])


class PreviewSchedule:
    """When an utterance is previewed: at a steady pace, for partials, and with the frames that may end it.

    An utterance ends only there or where a chunk is committed. Neither depends on the pace, so utterances end at the
    same frames however seldom their previews come.
    """

    def __init__(self, utterance: Utterance, decision_frame: int) -> None:
        self.utterance = utterance
        self.decision_frame = decision_frame  # the number of frames with which the endpointer decides again
        self.unseen_mel_frames = 0  # since a partial could show everything

    def next_step(self, latency: Latency, interval_steps: int) -> int:
        """Mel frames, at least 1, until a chunk is ready, a decision due, or a preview."""
        return max(
            1, min(self.utterance.until_chunk(latency), self._until_decision(), self._until_preview(interval_steps))
        )

    def is_decision(self, mel_frames: int) -> bool:
        """Whether a decision is due once so many more have come."""
        return self._until_decision() <= mel_frames

    def is_preview(self, mel_frames: int, interval_steps: int) -> bool:
        """Whether a preview is due once so many more have come."""
        return self._until_preview(interval_steps) <= mel_frames

    def _until_decision(self) -> int:
        return self.utterance.until_frame(self.decision_frame)

    def _until_preview(self, interval_steps: int) -> int:
        return STEP_MEL_FRAMES * interval_steps - self.unseen_mel_frames


class SecondPass:
    """Recognizes an utterance again, with full context.

    It begins when the end seems near, beside live text, and begins anew if the end turns out to be another one.
    """

    def __init__(self, runner: ModelRunner, utterance: Utterance, n: int) -> None:
        self.runner, self.utterance, self.n = runner, utterance, n
        self._asked: tuple[range, tuple[str, ...]] | None = None
        self._found: Future[list[Alternative]] | None = None

    def begin(self, frames: range, firm: tuple[str, ...]) -> Future[list[Alternative]]:
        """At most `n` sentences of these frames, at least one; times count from the first. The best keeps the firm
        words where it can."""
        if self._found is None or self._asked != (frames, firm):
            self.cancel()
            self._asked = frames, firm
            utterance = self.utterance
            self._found = self.runner.second_pass(
                SecondPassRequest(utterance.audio(frames), utterance.decoder, self.n, firm)
            )
        return self._found

    def cancel(self) -> None:
        """Speech has gone on past the end that seemed near."""
        if self._found:
            self._found.cancel()
        self._found = None
