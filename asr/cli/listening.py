"""From an audio source to text on a display, until the source ends or a signal comes.

source ──► pump thread ──► WAV file (--save-audio)
                └────────► LiveSession's worker thread ──► transcript file (--output), listeners, display
main thread: signals, level and lag on the display, the end
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from asr.audio.microphone import Microphone
from asr.audio.replay import Replay
from asr.audio.wav import WavWriter
from asr.cli.signals import stopping
from asr.cli.terminal import Display
from asr.errors import RillError
from asr.inference.live import LiveSession
from asr.inference.recognizer import Event, Recognizer
from asr.inference.utterance import STEP_MEL_FRAMES
from asr.text.numerals import numerals
from asr.text.results import Final
from asr.text.writers import LiveWriter

REFRESH_INTERVAL_S = 0.1  # of level and lag
WARNING_INTERVAL_S = 30.0  # between warnings of one kind, at least
SILENCE_S = 5.0  # of nothing but zeros, after which a warning comes
SOURCE_TIMEOUT_S = 1.0  # in which a source must end; a pipe with nothing in it may block for ever

AudioSource = Microphone | Replay


class Listener(Protocol):
    """What is told of every event: the keyboard of --type, the page of --captions."""

    def event(self, event: Event) -> None: ...


def listen(
    recognizer: Recognizer,
    source: AudioSource,
    display: Display,
    *,
    save_audio: Path | None = None,
    output: Path | None = None,
    listeners: Sequence[Listener] = (),
    digits: bool = False,
) -> None:
    """Recognize a source until it ends or SIGINT or SIGTERM comes; then finalize the last words and close all files.

    With `digits`, numbers of finals are written in digits. A second signal does not wait for the last words. Raises
    DeviceError and AudioError where the source fails (once the audio before is final), and RillError where a file
    cannot be written.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        with naming(output):
            writer = stack.enter_context(closing(LiveWriter(output))) if output else None
        with naming(save_audio):
            recording = stack.enter_context(closing(WavWriter(save_audio, source.sample_rate))) if save_audio else None

        def on_event(event: Event, lag: float) -> None:
            if digits and isinstance(event, Final):
                event = replace(event, words=numerals(event.words))
            if writer and isinstance(event, Final):
                with naming(output):
                    writer.add(event)
            for listener in listeners:
                listener.event(event)
            display.event(event, lag)

        session = LiveSession(recognizer, source.sample_rate, on_event)
        pump = Pump(source, session, recording, save_audio)
        display.note(opening(recognizer, source))
        watch = Watch(display)
        while pump.is_alive() and not session.error and not stop.wait(REFRESH_INTERVAL_S):
            watch.update(session, source.overflows)
        source.close()
        pump.join(SOURCE_TIMEOUT_S)
        session.close()
        watch.update(session, source.overflows)
        if pump.error:
            raise pump.error
        display.note(summary(session, source.overflows, [path for path in (output, save_audio) if path]))


def opening(recognizer: Recognizer, source: AudioSource) -> str:
    """The source, and the total latency: the setting's worst case, the stream's step, the source's blocks."""
    latency, pause = recognizer.latency, recognizer.rules.min_trailing_silence
    parts = {
        "model": latency.seconds(recognizer.engine.seconds_per_frame),
        "step": STEP_MEL_FRAMES * recognizer.engine.frontend.seconds_per_frame,
        "sound": source.latency,
    }
    total = " + ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    return (
        f"Listening to {source.name} at {source.sample_rate:g} Hz. Total latency {sum(parts.values()):.2f} s "
        f"({total}); provisional words come sooner. A pause of {pause:g} s ends a line, Ctrl-C ends."
    )


def summary(session: LiveSession, overflows: int, paths: list[Path]) -> str:
    stats = session.stats
    lost = f" {overflows} overflows of the audio device." if overflows else ""
    lost += f" {stats.dropped:.1f} s were not recognized, the computer was too slow." if stats.dropped else ""
    wrote = f" Wrote {' and '.join(map(str, paths))}." if paths else ""
    return f"Heard {stats.heard:.1f} s.{lost}{wrote}"


class Pump(threading.Thread):
    """Carries audio from the source to the recording and the session, until the source ends or fails."""

    def __init__(
        self, source: AudioSource, session: LiveSession, recording: WavWriter | None, path: Path | None
    ) -> None:
        super().__init__(name="pump", daemon=True)
        self.source, self.session, self.recording, self.path = source, session, recording, path
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for block in self.source:
                if self.recording:
                    with naming(self.path):
                        self.recording.write(block)
                self.session.push(block, wait=self.source.patient)
        except Exception as error:  # raised again on the main thread
            self.error = error


class Watch:
    """Shows a session's state, and warns, not too often, of what is wrong with it."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.warned: dict[str, float] = {}  # the time of each kind's last warning
        self.overflows = 0
        self.last_sound = 0.0  # seconds heard at the last sample that was not zero

    def update(self, session: LiveSession, overflows: int) -> None:
        stats = session.stats
        self.display.refresh(stats, overflows)
        if stats.level:
            self.last_sound = stats.heard
        if stats.behind:
            self.warn(
                "behind",
                f"Recognition is {stats.lag:.1f} s behind: text comes in larger pieces until it has "
                f"caught up. Less work: --latency accurate, or --no-lm.",
            )
        if stats.dropped:
            self.warn("dropped", f"{stats.dropped:.1f} s of audio were not recognized: this computer is too slow.")
        if overflows > self.overflows:
            self.overflows = overflows
            self.warn("overflow", f"The audio device lost audio {overflows} times: the computer is busy.")
        if stats.heard - self.last_sound > SILENCE_S and not self.warned.get("silent"):
            self.warn(
                "silent",
                "Nothing but digital silence arrives: is the microphone muted, or is this program "
                "not allowed to use it?",
            )

    def warn(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now - self.warned.get(kind, -WARNING_INTERVAL_S) >= WARNING_INTERVAL_S:
            self.warned[kind] = now
            self.display.warn(text)


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """An OSError becomes a sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise RillError(f"{path} cannot be written, {str(error.strerror).lower()}: choose another place.") from error
