"""An archive of recordings on a cluster: `asr transcribe --ray ADDRESS 's3://talks/**/*.mp3' -o OUT -f srt`.

    recordings that are missing in OUT ──► Ray Data ──► workers, a model each ──► this process ──► OUT/talk.srt
                                                                                               └─► OUT/manifest.jsonl

Ray Data (https://docs.ray.io/en/latest/data/data.html) hands the recordings out to as many workers as the cluster has
room for, and once more where a worker is lost. Workers only read; this process alone writes, each result when it comes.
So an output is there once and whole, however often its recording was worked on, and whoever is killed.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from asr.audio.inputs import absolute
from asr.errors import RillError
from asr.inference.files import Options, spare_memory, transcribe_file
from asr.model.hardware import set_threads
from asr.text import writers

MANIFEST = "manifest.jsonl"
CONNECT_TIMEOUT_S = 10.0
MAX_TASKS = 20_000  # what one process hands out well; of a larger archive a task is several recordings
MAX_ATTEMPTS = 4  # at a recording whose workers are lost: machines go, but a recording may also be what kills them


@dataclass(frozen=True)
class Answer:
    """A worker's."""

    source: str
    seconds: float = 0.0
    texts: Mapping[str, str] = field(default_factory=dict)  # by format
    error: str = ""
    warnings: Sequence[str] = ()
    fatal: bool = False  # the same error awaits every other recording


OnAnswer = Callable[[Answer, int, int], None]


class Manifest:
    """What became of each recording: a line of JSON in OUT/manifest.jsonl, of which the last one holds.

        {"source": "s3://talks/monday.mp3", "status": "done", "outputs": ["monday.srt"], "seconds": 1834.2,
         "error": "", "warnings": []}

    `status` is `done` or `failed`; then `error` says why in one sentence.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs: dict[str, list[str]] = {}  # of the recordings that are done
        folder.mkdir(parents=True, exist_ok=True)
        # Files may have names that are not UTF-8.
        self.file = open(folder / MANIFEST, "a+", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        self.file.seek(0)
        whole = True
        for line in self.file:
            whole = line.endswith("\n")
            try:
                self._note(json.loads(line))
            except ValueError:  # the process was killed while it wrote this line
                continue
            except (KeyError, TypeError) as error:
                raise RillError(
                    f"{self.file.name} is not of an archive's transcripts: give another --output."
                ) from error
        if not whole:
            self.file.write("\n")

    def add(self, answer: Answer, outputs: Sequence[str]) -> None:
        record = {
            "source": answer.source,
            "status": "failed" if answer.error else "done",
            "outputs": list(outputs),
            "seconds": round(answer.seconds, 3),
            "error": answer.error,
            "warnings": list(answer.warnings),
        }
        self.file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self._note(record)

    def names(self, places: Mapping[str, Path]) -> dict[str, str]:
        """Source → the name of its outputs. A name that was given stays; RillError where a new one is the same."""
        names = {source: place.as_posix() for source, place in places.items()}
        names |= {source: os.path.splitext(outputs[0])[0] for source, outputs in self.outputs.items()}
        owners: dict[str, str] = {}
        for source, name in names.items():
            other = owners.setdefault(name.casefold(), source)
            if other != source:
                raise RillError(f"{source} and {other} would both become {self.folder / name}: give another --output.")
        return names

    def has(self, source: str, wanted: Sequence[str]) -> bool:
        """Whether these outputs were written, and are still there."""
        written = self.outputs.get(source, ())
        return all(each in written and (self.folder / each).exists() for each in wanted)

    def close(self) -> None:
        self.file.close()

    def _note(self, record: dict[str, Any]) -> None:
        if record["status"] == "done":
            known = self.outputs.get(record["source"], [])
            self.outputs[record["source"]] = list(dict.fromkeys([*known, *record["outputs"]]))


def transcribe_archive(
    sources: Mapping[str, Path],
    options: Options,
    formats: Sequence[str],
    output: Path,
    address: str,
    workers: int | None = None,
    on_answer: OnAnswer = lambda answer, done, total: None,
) -> int:
    """Transcribe recordings on a cluster into a folder; what it has from an earlier run stays.

    Args:
        sources: files and addresses in object stores, with the places of their outputs, as `audio.inputs.expand` gives.
        formats: of `asr.text.writers.FORMATS`.
        address: of a Ray cluster, as `ray.init` knows it: `auto`, `HOST:PORT`; `local` starts one here.
        workers: how many; None: as many as the cluster has cores now (GPUs, with the device `cuda`).
        on_answer: called with each answer once its transcripts are written, how many are done, and how many there are.

    Returns how many failed. Raises RillError where nothing can be done.
    """
    manifest = Manifest(output)
    try:
        everything = {absolute(source): place for source, place in sources.items()}
        places = manifest.names(everything)
        missing = [
            source
            for source in everything
            if not manifest.has(source, [f"{places[source]}.{suffix}" for suffix in formats])
        ]
        failed = 0
        with closing(_answers(missing, options, formats, address, workers)) as answers:
            for done, answer in enumerate(answers, 1):
                written = []
                for suffix, text in answer.texts.items():
                    name = f"{places[answer.source]}.{suffix}"
                    try:
                        writers.put(text, output / name)
                    except OSError as error:  # the others may be written
                        answer = replace(answer, error=f"{output / name}: {error.strerror}.")
                    else:
                        written.append(name)
                manifest.add(answer, written)
                failed += bool(answer.error)
                on_answer(answer, done, len(missing))
    finally:
        manifest.close()
    return failed


def _answers(
    sources: Sequence[str], options: Options, formats: Sequence[str], address: str, workers: int | None
) -> Generator[Answer, None, None]:
    """An answer for each source, as they come. Raises RillError."""
    if not sources:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # on stderr; what goes wrong is raised
    import ray

    with sigterm_kept() as handler:
        try:
            check_address(address)
            session = ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of many classes, Exception itself among them
            raise RillError(
                f"No Ray cluster answers at '{address}' ({str(error).partition('. ')[0]}): start one with "
                f"`ray start --head`, or give --ray local."
            ) from error
        with session:
            _on_sigterm(_leave if handler == signal.SIG_DFL else handler)
            try:
                for answer in hand_out(Worker, sources, options, formats, workers):
                    if answer.fatal:
                        raise RillError(answer.error)
                    yield answer
            except ray.exceptions.RayError as error:
                reason = str(error).strip().rpartition("\n")[2]
                raise RillError(f"The cluster has given up ({reason}): the same command goes on from here.") from error


def check_address(address: str) -> None:
    """Raises OSError where nobody is at HOST:PORT; Ray would try for a quarter of an hour."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()


@contextmanager
def sigterm_kept() -> Iterator[Any]:
    """What the process does at SIGTERM is as before, afterwards, although Ray puts its own handlers there; gives it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield handler
    finally:
        _on_sigterm(handler)


def _on_sigterm(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():  # elsewhere Python has none, and Ray puts none
        signal.signal(signal.SIGTERM, handler)


def _leave(*_: object) -> None:
    """In order, so that no process of a cluster of ours stays; Ray's handler ends in SIGABRT."""
    sys.exit(128 + signal.SIGTERM)


def hand_out(
    worker: type, sources: Sequence[str], options: Options, formats: Sequence[str], workers: int | None
) -> Iterator[Answer]:
    """What the workers say, as it comes. Raises RayError."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each answer comes by itself, when its recording ends
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote(MAX_ATTEMPTS)
    unit = "GPU" if options.device == "cuda" else "CPU"
    room = max(1, int(ray.cluster_resources().get(unit, 0)))
    pool = ray.data.ActorPoolStrategy(size=min(workers or room, len(sources)), max_tasks_in_flight_per_actor=1)
    names = [json.dumps(source) for source in sources]  # Arrow takes no name that is not UTF-8
    answers = ray.data.from_items(names, override_num_blocks=min(len(sources), MAX_TASKS)).map(
        worker,
        fn_constructor_args=(options, tuple(formats), attempts),
        compute=pool,
        num_gpus=1 if unit == "GPU" else None,
        num_cpus=1 if unit == "CPU" else None,
    )
    for batch in answers.iter_batches(batch_size=None, prefetch_batches=0):  # as they come
        for answer in batch["answer"]:
            yield Answer(**json.loads(answer))


class Attempts:
    """How often each recording was begun and not ended. Ray begins again, without end, what a lost worker had begun."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.begun: Counter[str] = Counter()

    def begin(self, source: str) -> bool:
        """Whether to try it."""
        self.begun[source] += 1
        return self.begun[source] <= self.most

    def end(self, source: str) -> None:
        self.begun.pop(source, None)  # this process, too, may have been lost meanwhile


class Worker:
    """A process of the cluster, with a model and a core, or a GPU, of its own."""

    def __init__(self, options: Options, formats: Sequence[str], attempts: Any) -> None:
        self.options, self.formats, self.attempts = replace(options, threads=1), formats, attempts
        set_threads(1)
        spare_memory()
        atexit.register(os._exit, 0)  # Ray's own clean-up, behind it, has been seen to wait for ever (2.60)

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        import ray

        source = json.loads(row["item"])
        if not ray.get(self.attempts.begin.remote(source)):
            answer = Answer(
                source,
                error=f"{source}: every worker was lost over it, perhaps for want of memory; try it without --ray.",
            )
        else:
            try:
                answer = self.transcribe(source)
            except Exception as error:  # the model cannot be loaded
                answer = Answer(source, error=f"A worker cannot work: {error}", fatal=True)
            self.attempts.end.remote(source)  # no need to wait for it
        return {"answer": json.dumps(asdict(answer))}

    def transcribe(self, source: str) -> Answer:
        outcome = transcribe_file(source, self.options)
        if outcome.transcript is None:
            return Answer(source, error=outcome.error, warnings=outcome.warnings)
        texts = {suffix: writers.render(outcome.transcript, suffix) for suffix in self.formats}
        return Answer(source, outcome.transcript.duration, texts, warnings=outcome.warnings)
