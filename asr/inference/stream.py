"""One speaker, live: samples in, partial and final text out, as they become known.

An utterance's final text comes from a second pass with full context over its buffered mel frames, so it is as accurate
as a file's; partials come from the latency-controlled pass and a preview of the frames right of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from asr.audio import reading
from asr.decoding.decoder import shift_all
from asr.decoding.hotwords import Hotword
from asr.errors import RillError
from asr.inference.endpoint import Cut, Endpointer, EndpointRules
from asr.inference.engine import Engine, Hotwords
from asr.inference.firm import FirmWords
from asr.inference.pending import Pending, wait
from asr.inference.runner import ModelRunner
from asr.inference.stability import StablePartials
from asr.inference.steps import StepRequest, StepResult
from asr.inference.utterance import STEP_MEL_FRAMES, PreviewSchedule, SecondPass, Utterance
from asr.model.latency import Latency, LatencyLike
from asr.text.results import Alternative, Final, Partial
from asr.text.sentences import Sentences

Event = Partial | Final


class Stream:
    """One speaker, live; made by `Recognizer.stream`. `accept` and `finish` return events in order of time.

        stream = recognizer.stream(sample_rate=48_000)
        for block in blocks:                            # of any length
            for event in stream.accept(block):
                print(event.text)
        print(stream.finish())

    Events do not depend on how the samples are cut, except that a partial comes at most once a call. Work and memory
    are bounded by the longest utterance, so a stream can last for days. `accepting` and `finishing` do the same for
    `pending.wait_async`. The work of one call must end before the next call, else that raises RillError and changes
    nothing.
    """

    def __init__(
        self,
        engine: Engine,
        runner: ModelRunner,
        sample_rate: float,
        latency: Latency,
        hotwords: tuple[Hotword, ...],
        two_pass: bool,
        rules: EndpointRules,
        sentences: Sentences | None = None,
        alternatives: int = 0,
    ) -> None:
        self.sample_rate = sample_rate
        self.latency = latency
        self.preview_interval_steps = 1  # from one preview to the next, at least: raise it when computing falls behind
        self._engine, self._runner, self._two_pass, self._sentences = engine, runner, two_pass, sentences
        self._alternatives = alternatives
        self._resampler = reading.Resampler(sample_rate)
        self._features = engine.frontend.stream()
        self._endpointer = Endpointer(rules, engine.seconds_per_frame)
        self.hotwords = hotwords
        self._waiting = np.zeros(
            (0, engine.frontend.bands), np.float32
        )  # mel frames that the utterance does not have yet
        self._finished = False
        self._busy = threading.Lock()
        self._begin(0)
        self.wanted_s = self._missing_s()  # seconds of audio with fewer than which `accept` can do nothing

    @property
    def latency(self) -> Latency:
        """May be changed at any time, and acts at the next chunk. Raises ValueError for full context."""
        return self._latency

    @latency.setter
    def latency(self, value: LatencyLike) -> None:
        self._latency = Latency.parse_live(value)

    @property
    def hotwords(self) -> tuple[Hotword, ...]:
        """May be changed at any time, and act from the next utterance on. Raises HotwordError."""
        return self._hotwords

    @hotwords.setter
    def hotwords(self, value: Hotwords) -> None:
        chosen = self._engine.parse_hotwords(value)
        self._decoder = self._engine.decoder(chosen)
        self._hotwords = chosen

    @property
    def seconds(self) -> float:
        """How much audio has become mel frames so far."""
        frames = self._origin + self._utterance.mel_frames + len(self._waiting)
        return frames * self._engine.frontend.seconds_per_frame

    def accept(self, samples: np.ndarray) -> list[Event]:
        """Any number of samples, (n,) or (n, channels), of any common dtype. Raises AudioError, and stays usable."""
        return wait(self.accepting(samples))

    def finish(self) -> list[Event]:
        """The end of the audio: everything in it becomes final. A second call returns nothing."""
        return wait(self.finishing())

    def accepting(self, samples: np.ndarray) -> Pending[list[Event]]:
        """`accept` as work to wait for."""
        with self._alone():
            if self._finished:
                raise RuntimeError("This stream is finished: ask the recognizer for a new one.")
            least = self._step_mel_frames - len(self._waiting)  # with fewer mel frames nothing can happen
            mel = self._features.accept(self._resampler.push(samples), least)
            return (yield from self._process(mel, last=False))

    def finishing(self) -> Pending[list[Event]]:
        """`finish` as work to wait for."""
        with self._alone():
            if self._finished:
                return []
            self._finished = True
            return (yield from self._process(self._features.accept(self._resampler.flush()), last=True))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While one call is at work, others raise RillError; in a process that was forked, all do."""
        self._engine.check_process()
        if not self._busy.acquire(blocking=False):
            raise RillError("This stream is at work in another thread: give each speaker a stream, and it one thread.")
        try:
            yield
        finally:
            self._busy.release()

    def _begin(self, origin: int) -> None:
        """An utterance starts at mel frame `origin` of the stream."""
        self._origin = origin
        self._utterance = Utterance(self._engine, self._decoder, draft=self._two_pass)  # keeps its hot words
        self._schedule = PreviewSchedule(self._utterance, self._endpointer.next_decision(self._utterance.activity))
        self._firm = FirmWords(self._runner, self._utterance)
        self._second_pass = SecondPass(self._runner, self._utterance, max(1, self._alternatives))
        self._partials = StablePartials()
        self._step_mel_frames = self._schedule.next_step(self._latency, self._interval_steps())

    def _interval_steps(self) -> int:
        """Nobody sees the previews inside a long block, so they come after its half, a half of the rest, and so on."""
        unseen = len(self._waiting) // STEP_MEL_FRAMES
        return max(self.preview_interval_steps, self._runner.preview_interval_steps, unseen)

    def _missing_s(self) -> float:
        missing = self._features.missing(self._step_mel_frames - len(self._waiting)) / reading.SAMPLE_RATE
        return max(0.0, missing - self._resampler.held)

    def _process(self, mel: np.ndarray, last: bool) -> Pending[list[Event]]:
        """New mel frames, in steps of those that something can be done with."""
        self._waiting = np.concatenate([self._waiting, mel])
        events: list[Event] = []
        while len(self._waiting) >= self._step_mel_frames:
            step, self._waiting = self._waiting[: self._step_mel_frames], self._waiting[self._step_mel_frames :]
            if cut := (yield from self._advance(step)):
                events += yield from self._end(cut)
            self._step_mel_frames = self._schedule.next_step(self._latency, self._interval_steps())
        if last:
            yield from self._advance(self._waiting, last=True)
            self._waiting = self._waiting[:0]
            events += yield from self._end(Cut(len(self._utterance.activity), True))
        else:
            events += self._partials.changed(self._origin * self._engine.frontend.seconds_per_frame)
        self.wanted_s = self._missing_s()
        return events

    def _advance(self, mel: np.ndarray, last: bool = False) -> Pending[Cut | None]:
        """One step: commit the chunk that is ready, preview the rest, and decide whether the utterance has ended."""
        utterance, schedule = self._utterance, self._schedule
        preview, decision = schedule.is_preview(len(mel), self._interval_steps()), schedule.is_decision(len(mel))
        utterance.push(mel)
        self._firm.begin()
        schedule.unseen_mel_frames += len(mel)
        result: StepResult = yield self._runner.step(
            StepRequest(utterance.state, mel, self._latency, last, preview or decision)
        )
        utterance.update(result)
        if self._two_pass:
            yield from self._firm.advance()
        seen = result.complete and (preview or bool(result.committed))
        if seen:
            schedule.unseen_mel_frames = 0
        if last or not result.complete:
            return None
        self._foresee_end()
        cut = None
        if decision or result.committed:
            schedule.decision_frame = self._endpointer.next_decision(utterance.activity)
            cut = self._endpointer.decide(utterance.activity)
        if seen and not cut and utterance.activity.any():
            self._partials.update(self._firm.continued(utterance.words()), len(self._firm.words))
        return cut

    def _foresee_end(self) -> None:
        """Begin the second pass where the end seems near; cancel it where it no longer does."""
        activity = self._utterance.activity
        if self._two_pass and (end := self._endpointer.likely_end(activity)):
            self._second_pass.begin(range(self._endpointer.beginning(activity), end), self._firm.within(end))
        else:
            self._second_pass.cancel()

    def _end(self, cut: Cut) -> Pending[list[Event]]:
        """Close the utterance at a cut; the audio after it opens the next one."""
        utterance = self._utterance
        found: list[Alternative] = []
        first = self._endpointer.beginning(utterance.activity)
        if cut.spoken and cut.frame > first:
            if self._two_pass:
                found = yield self._second_pass.begin(range(first, cut.frame), self._firm.within(cut.frame))
                found = shift_all(found, first * self._engine.seconds_per_frame)
            else:
                found = [Alternative(tuple(utterance.final_words(cut.frame)), 1.0)]
        found = shift_all(found, self._origin * self._engine.frontend.seconds_per_frame)
        words = list(found[0].words) if found else []
        end = min(cut.frame * self._engine.model.config.subsampling, utterance.mel_frames)
        self._waiting = np.concatenate([*utterance.mel, self._waiting])[end:]
        self._begin(self._origin + end)
        if self._sentences:
            silent = np.nan if cut.silence is None else cut.silence * self._engine.seconds_per_frame
            words = self._sentences.write(words, silence=silent)
        alternatives = found if self._alternatives else ()
        return [Final.of(words, self._sentences is not None, alternatives)] if words else []
