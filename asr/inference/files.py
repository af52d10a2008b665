"""Many recordings to transcripts, one after another or several at once, a bad one not stopping the others.

for outcome in transcribe_files(["a.mp3", "b.wav"], Options(numerals=True), jobs=2):
    print(outcome.source, outcome.transcript.text if outcome.transcript else outcome.error)
"""

from __future__ import annotations

import ctypes
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from asr.audio import reading
from asr.audio.inputs import STDIN, opened
from asr.audio.reading import AudioWarning
from asr.audio.remote import is_remote
from asr.errors import RillError
from asr.inference.workers import run_tasks
from asr.model.hardware import cores, set_threads
from asr.model.latency import PRESETS, Latency
from asr.text.numerals import numerals
from asr.text.results import Final, Transcript

if TYPE_CHECKING:
    from asr.inference.recognizer import Recognizer

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h
LARGE_BYTES = 4 << 20  # at 1 MB, pages come anew so often that recordings take an eighth more processor time
# Of a recording over which two processes died, the second one alone.
LOST = "its process was ended from outside, twice, perhaps for want of memory; cut it into parts or free memory."
OnProgress = Callable[[str, float, Sequence[Final]], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to transcribe: what `asr.load` takes, the latency, and whether numbers are written in digits."""

    checkpoint: str | None = None
    latency: Latency = PRESETS["offline"]
    hotwords: tuple[str, ...] = ()
    lm: bool = True
    device: str = "auto"
    numerals: bool = False
    engine: str = "auto"
    int8: bool = False
    threads: int | None = None  # utterances that are recognized at once; None: as many as there are cores
    punctuate: bool = True
    alternatives: int = 0  # of each segment

    def load(self) -> Recognizer:
        from asr.inference.recognizer import load

        return load(
            self.checkpoint,
            hotwords=self.hotwords,
            lm=self.lm,
            device=self.device,
            engine=self.engine,
            int8=self.int8,
            threads=self.threads,
            punctuate=self.punctuate,
        )


@dataclass(frozen=True)
class Outcome:
    """A source and its transcript, or the sentence that says why there is none."""

    source: str
    transcript: Transcript | None
    error: str = ""
    warnings: tuple[str, ...] = ()


def transcribe_files(
    sources: Sequence[str],
    options: Options = Options(),
    *,
    jobs: int = 1,
    on_progress: OnProgress = lambda source, seconds, segments: None,
) -> Iterator[Outcome]:
    """Outcomes in the order in which they are done; `jobs` processes share the processor's cores.

    `on_progress(source, seconds, segments)` is called after every stretch of audio with its segments; with several jobs
    only with seconds. Source `-` is standard input, with one job only.
    Raises CheckpointError and HotwordError; what is wrong with one source is in its outcome. The other processes end
    with the iteration, and if this process dies.
    """
    jobs = min(jobs, len(sources))
    if jobs > 1:
        yield from _transcribe_at_once(sources, options, jobs, on_progress)
    elif sources:
        recognizer = options.load()
        for source in sources:
            yield _transcribe(recognizer, source, options, on_progress)


def _transcribe(recognizer: Recognizer, source: str, options: Options, on_progress: OnProgress) -> Outcome:
    segments: list[Final] = []
    seconds = 0.0
    try:
        with opened(source) as file:
            for now, new in recognizer.transcribe_parts(
                file, latency=options.latency, alternatives=options.alternatives
            ):
                if options.numerals:
                    new = [replace(segment, words=numerals(segment.words)) for segment in new]
                segments += new
                on_progress(source, now - seconds, new)
                seconds = now
    except OSError:  # from what `on_progress` writes to, a closed pipe or a full disk: this ends all the work
        raise
    except RillError as error:
        return Outcome(source, None, str(error))
    except Exception as error:  # a fault of ours must not cost the other recordings of a long night
        return Outcome(source, None, f"{source}: {type(error).__name__}: {error}; please report this as a bug.")
    return Outcome(source, Transcript(tuple(segments), seconds))


def _transcribe_at_once(
    sources: Sequence[str], options: Options, jobs: int, on_progress: OnProgress
) -> Iterator[Outcome]:
    threads = max(1, cores() // jobs)
    for source, outcome in run_tasks(
        partial(_work, replace(options, threads=threads)),
        sources,
        jobs,
        partial(_start_worker, threads),
        lambda seconds: on_progress("", seconds, ()),
    ):
        if outcome is None:
            outcome = Outcome(source, None, f"{source}: {LOST}")
        for message in outcome.warnings:
            warnings.warn(message, AudioWarning, stacklevel=3)
        yield outcome


def spare_memory() -> None:
    """Give the memory of large arrays back at once where the C library is glibc, whose heaps would keep it, and let all
    threads share one heap."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _start_worker(threads: int) -> None:
    spare_memory()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    set_threads(threads)


@cache
def _load(options: Options) -> Recognizer:
    return options.load()


def _work(options: Options, source: str, report: Callable[[float], None]) -> Outcome:
    return transcribe_file(source, options, lambda source, seconds, segments: report(seconds))


def transcribe_file(
    source: str, options: Options, on_progress: OnProgress = lambda source, seconds, segments: None
) -> Outcome:
    """One source in a worker process, warnings included. The model stays; it loads at the first source, not at the
    worker's start, so that its errors reach the caller."""
    recognizer = _load(options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AudioWarning)
        outcome = _transcribe(recognizer, source, options, on_progress)
    return replace(outcome, warnings=tuple(str(each.message) for each in caught))


def total_seconds(sources: Sequence[str]) -> float | None:
    """Seconds of audio in all of them, as their headers say; None where one does not."""
    total = 0.0
    for source in sources:
        try:
            seconds = None if source == STDIN or is_remote(source) else reading.duration(source)
        except RillError:
            seconds = 0.0  # the error comes with its outcome
        if seconds is None:
            return None
        total += seconds
    return total
