"""`asr listen`: text while it is spoken, from a microphone or a replayed file.

    source ──► pump thread ──► WAV file (--save-audio)
                    └────────► LiveSession's recogniser thread ──► transcript file (--output), display
    main thread: signals, level and lag on the display, the end
"""
from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from asr.audio import reading
from asr.audio.microphone import Microphone, find
from asr.audio.replay import Replay
from asr.cli.terminal import Display, JsonLines, Screen
from asr.errors import RillError
from asr.inference.live import LiveSession
from asr.inference.recognizer import Event, Recognizer
from asr.inference.stream import STEP
from asr.model.latency import PRESETS, Latency
from asr.text.results import Final
from asr.text.writers import LiveWriter

REFRESH = 0.1  # seconds between looks at level and lag
WARN_EVERY = 30.0  # seconds between warnings of one kind, at least
SILENT_AFTER = 5.0  # seconds of nothing but zeros after which a listener is told
LEAVE_AFTER = 1.0  # seconds that a source may take to end; a pipe with nothing in it may block for ever

Source = Microphone | Replay


def run(*, device: str | None = None, file: str | None = None, speed: float = 1.0, rate: float | None = None,
        latency: Latency = PRESETS["balanced"], hotwords: Sequence[str] = (), lm: bool = True,
        checkpoint: str | None = None, save_audio: Path | None = None, output: Path | None = None,
        as_json: bool = False, engine: str = "auto", int8: bool = False) -> None:
    """The command. `file` takes the place of the microphone. Raises RillError and its kinds."""
    if not latency.live:
        raise RillError("Listening cannot wait for full context: choose fast, balanced, accurate or C,R.")
    if file is None:
        find(device)  # says what is wrong before the checkpoint is loaded, which takes seconds
    torch.set_num_threads(1)  # a chunk is too small to share; a second thread would only wait for the first
    recognizer = Recognizer(checkpoint, latency=latency, hotwords=hotwords, lm=lm, device="cpu", engine=engine,
                            int8=int8)
    with Microphone(device) if file is None else Replay(file, speed, rate) as source:
        display = JsonLines() if as_json or not sys.stdout.isatty() else Screen()
        with closing(display), suppress(BrokenPipeError):  # whoever read the events has left
            listen(recognizer, source, display, save_audio=save_audio, output=output)


def listen(recognizer: Recognizer, source: Source, display: Display, *, save_audio: Path | None = None,
           output: Path | None = None) -> None:
    """Recognise a source until it ends, or until SIGINT or SIGTERM; then make the last words final and close all files.

    A second signal does not wait for them. Raises DeviceError and AudioError where the source fails (after what was
    heard has become final), and RillError where a file cannot be written.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(_signals())
        with _naming(output):
            writer = stack.enter_context(closing(LiveWriter(output))) if output else None
        with _naming(save_audio):
            recording = stack.enter_context(closing(WavFile(save_audio, source.sample_rate))) if save_audio else None

        def on_event(event: Event, lag: float) -> None:
            if writer and isinstance(event, Final):
                with _naming(output):
                    writer.add(event)
            display.event(event, lag)

        session = LiveSession(recognizer, source.sample_rate, on_event)
        pump = _Pump(source, session, recording, save_audio)
        display.note(opening(recognizer, source))
        watch = _Watch(display)
        while pump.is_alive() and not session.error and not stop.wait(REFRESH):
            watch.look(session, source.overflows)
        source.close()
        pump.join(LEAVE_AFTER)
        session.close()
        watch.look(session, source.overflows)
        if pump.error:
            raise pump.error
        display.note(summary(session, source.overflows, [path for path in (output, save_audio) if path]))


def opening(recognizer: Recognizer, source: Source) -> str:
    """What is heard, and the total latency: the setting's worst case, the stream's step, the source's blocks."""
    latency, pause = recognizer.latency, recognizer.rules.pause
    parts = {"model": latency.seconds(recognizer.seconds_per_frame),
             "step": STEP * recognizer.frontend.seconds_per_frame, "sound": source.latency}
    total = " + ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    return (f"Listening to {source.name} at {source.sample_rate:g} Hz. Total latency {sum(parts.values()):.2f} s "
            f"({total}); provisional words come sooner. A pause of {pause:g} s ends a line, Ctrl-C ends.")


def summary(session: LiveSession, overflows: int, paths: list[Path]) -> str:
    stats = session.stats
    lost = f" {overflows} overflows of the sound device." if overflows else ""
    lost += f" {stats.dropped:.1f} s were not recognised, the computer was too slow." if stats.dropped else ""
    wrote = f" Wrote {' and '.join(map(str, paths))}." if paths else ""
    return f"Heard {stats.heard:.1f} s.{lost}{wrote}"


class _Pump(threading.Thread):
    """Carries sound from the source to the recording and the session, until the source ends or fails."""

    def __init__(self, source: Source, session: LiveSession, recording: WavFile | None, path: Path | None) -> None:
        super().__init__(name="pump", daemon=True)
        self.source, self.session, self.recording, self.path = source, session, recording, path
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for block in self.source:
                if self.recording:
                    with _naming(self.path):
                        self.recording.write(block)
                self.session.push(block, wait=self.source.patient)
        except Exception as error:  # raised again on the main thread
            self.error = error


class _Watch:
    """Shows how a session does, and says, not too often, what is wrong with it."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.said: dict[str, float] = {}  # when each warning was given last
        self.overflows = 0
        self.sounded = 0.0  # seconds heard when there was last a sample that was not zero

    def look(self, session: LiveSession, overflows: int) -> None:
        stats = session.stats
        self.display.refresh(stats, overflows)
        if stats.level:
            self.sounded = stats.heard
        if stats.behind:
            self.warn("behind", f"Recognition is {stats.lag:.1f} s behind: text comes in larger pieces until it has "
                                f"caught up. Less work: --latency accurate, or --no-lm.")
        if stats.dropped:
            self.warn("dropped", f"{stats.dropped:.1f} s of sound were not recognised: this computer is too slow.")
        if overflows > self.overflows:
            self.overflows = overflows
            self.warn("overflow", f"The sound device lost sound {overflows} times: the computer is busy.")
        if stats.heard - self.sounded > SILENT_AFTER and not self.said.get("silent"):
            self.warn("silent", "Nothing but digital silence arrives: is the microphone muted, or is this program "
                                "not allowed to use it?")

    def warn(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now - self.said.get(kind, -WARN_EVERY) >= WARN_EVERY:
            self.said[kind] = now
            self.display.warn(text)


class WavFile:
    """Mono 16-bit WAV that is valid after every write, also if the process is killed: each one updates the sizes.

    Where they no longer fit (4 GiB, 12 h at 48 kHz) they say "unknown", which readers take as "to the end".
    """

    HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")

    def __init__(self, path: Path, sample_rate: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rate, self._bytes = round(sample_rate), 0
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - open until close()
        self._write_header()

    def write(self, samples: np.ndarray) -> None:
        """Samples as for `reading.to_mono`; what is beyond full scale is clipped."""
        pcm = np.round(np.clip(reading.to_mono(samples), -1, 1) * 32767).astype("<i2").tobytes()
        self._file.seek(0, os.SEEK_END)
        self._file.write(pcm)
        self._bytes += len(pcm)
        self._write_header()

    def _write_header(self) -> None:
        data, whole = (min(self._bytes + extra, 2**32 - 1) for extra in (0, 36))
        self._file.seek(0)
        self._file.write(self.HEADER.pack(b"RIFF", whole, b"WAVE", b"fmt ", 16, 1, 1, self._rate, 2 * self._rate, 2, 16,
                                          b"data", data))

    def close(self) -> None:
        self._file.close()


@contextmanager
def _naming(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RillError(f"{path} cannot be written, {str(error.strerror).lower()}: choose another place.") from error


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets, once; another one acts as usual."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        stop.set()
        restore()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield stop
    finally:
        restore()
