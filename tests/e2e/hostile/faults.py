"""Commands in trouble: killed, without room, home or reader. What is done is whole, and nothing is left."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.conftest import CLIPS
from tests.e2e.hostile.figures import Budget, Figures
from tests.e2e.hostile.files import HANG_S, ROOT

ASR = [sys.executable, "-m", "asr.cli"]
CLIP = CLIPS / "kathleen-0.flac"
MARK = "RILL_HOSTILE"  # in the environment of a command and of all that it starts
SMALL_BYTES = 1000  # the largest file that may be written where the disk is full
HANG = "it does not end"


class Trouble:
    """Starts commands; `wrong` says what is not as it should be."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wrong = folder, list[str]()

    def start(
        self, *arguments: object, set_up: Callable[[], None] | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        self.mark = uuid.uuid4().hex
        environment = (env if env is not None else dict(os.environ)) | {MARK: self.mark, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*ASR, *map(str, arguments)],
            cwd=self.folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            preexec_fn=set_up,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: object, status: int, says: str = "", **options: object) -> str:
        """Standard output; status, traceback and sentence are looked at."""
        process = self.start(*arguments, **options)  # type: ignore[arg-type]
        return self.end(process, status, says)

    def end(self, process: subprocess.Popen[bytes], status: int, says: str = "") -> str:
        try:
            out, err = (text.decode(errors="replace") for text in process.communicate(timeout=2 * HANG_S))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.wrong.append(HANG)
            return ""
        if process.returncode != status:
            self.wrong.append(f"status {process.returncode} instead of {status}: {err[-500:]}")
        if "Traceback" in err:
            self.wrong.append(err[-2000:])
        if says not in err:
            self.wrong.append(f"'{says}' is not said: {err[-500:]}")
        return out

    def check(self, true: bool, otherwise: str) -> None:
        if not true:
            self.wrong.append(otherwise)

    def left(self) -> list[int]:
        """Processes of the last command that still run, after some time to end in."""
        end = time.monotonic() + HANG_S
        while (found := list(_marked(self.mark))) and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def recordings(self, count: int) -> Path:
        folder = self.folder / "recordings"
        folder.mkdir()
        for number in range(count):
            shutil.copy(CLIP, folder / f"{number}.flac")
        return folder


def _marked(mark: str) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes():
                yield int(path.parent.name)
        except OSError:  # it has just ended
            continue


# ---- the troubles ---------------------------------------------------------------------------------------------


def killed(trouble: Trouble, chance: random.Random) -> None:
    """kill -9 of `transcribe --jobs 2`: what was written is whole, and no worker lives on."""
    _ended(trouble, signal.SIGKILL, -signal.SIGKILL)


def terminated(trouble: Trouble, chance: random.Random) -> None:
    _ended(trouble, signal.SIGTERM, 128 + signal.SIGTERM)


def _ended(trouble: Trouble, by: signal.Signals, status: int) -> None:
    recordings, out = trouble.recordings(60), trouble.folder / "out"
    process = trouble.start("transcribe", recordings, "--no-lm", "--jobs", 2, "-f", "json", "-o", f"{out}/")
    end = time.monotonic() + 2 * HANG_S
    while not (out.is_dir() and any(out.glob("**/*.json"))) and time.monotonic() < end:
        time.sleep(0.02)
    workers = len(list(_marked(trouble.mark)))
    process.send_signal(by)
    trouble.end(process, status)
    trouble.check(workers >= 3, f"{workers} processes at work instead of 3")
    trouble.check(not (left := trouble.left()), f"processes {left} are left")
    written = list(out.glob("**/*.json"))
    trouble.check(0 < len(written) < 60, f"{len(written)} transcripts are written")
    texts = [json.loads(path.read_text())["text"] for path in written]
    trouble.check(all("rock" in text.lower() for text in texts), f"not whole: {texts}")
    if by == signal.SIGTERM:
        trouble.check(not list(out.glob("**/.*")), "a half-written file is left")


def full_disk(trouble: Trouble, chance: random.Random) -> None:
    """No file may grow beyond some bytes: the sentence names it, and an old one stays."""
    out = trouble.folder / "talk.json"
    out.write_text("old")

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES, SMALL_BYTES))

    trouble.run("transcribe", CLIPS / "ljspeech-2.flac", "--no-lm", "-o", out, status=1, says="talk.json", set_up=full)
    trouble.check(out.read_text() == "old", "the old transcript is lost")
    trouble.check([path.name for path in trouble.folder.iterdir()] == ["talk.json"], "a part is left")


def full_disk_while_listening(trouble: Trouble, chance: random.Random) -> None:
    """The audio cannot be saved; the text that was heard is."""

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    arguments = ("--no-lm", "--input", CLIP, "--speed", 0, "--save-audio", "talk.wav", "-o", "talk.txt")
    out = trouble.run("listen", *arguments, status=1, says="talk.wav", set_up=full)
    heard = out + (trouble.folder / "talk.txt").read_text() if (trouble.folder / "talk.txt").exists() else out
    trouble.check("there was nothing" in heard.lower(), f"what was heard is lost: {heard!r}")


def no_home(trouble: Trouble, chance: random.Random) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    if chance.random() < 0.5:
        del environment["HOME"]
    out = trouble.run("transcribe", CLIP, "--no-lm", status=0, env=environment)
    trouble.check("rock" in out.lower(), f"heard {out!r}")


def no_folder_to_write(trouble: Trouble, chance: random.Random) -> None:
    trouble.run("transcribe", CLIP, "--no-lm", "-o", "/proc/rill/", status=1, says="/proc/rill")


def nobody_reads(trouble: Trouble, chance: random.Random) -> None:
    """`asr … | head`: it ends quietly."""
    process = trouble.start("transcribe", *[CLIP] * 8, "--no-lm")
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=2 * HANG_S)
    trouble.check(b"Traceback" not in err and b"Exception" not in err, err.decode()[-2000:])


def full_standard_output(trouble: Trouble, chance: random.Random) -> None:
    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    trouble.run("transcribe", CLIP, "--no-lm", status=1, says="output: No space left", set_up=full)


def no_standard_streams(trouble: Trouble, chance: random.Random) -> None:
    def close() -> None:
        for number in chance.sample([0, 1, 2], 2):
            os.close(number)

    process = trouble.start("transcribe", CLIP, "--no-lm", "-o", "talk.txt", set_up=close)
    process.communicate(timeout=2 * HANG_S)
    trouble.check(process.returncode in (0, 1), f"status {process.returncode}")


def plain_ascii(trouble: Trouble, chance: random.Random) -> None:
    """A name with an escape sequence and letters that the terminal cannot show."""
    name = "caf\u00e9 \x1b[31m\u2603.txt"
    (trouble.folder / name).write_bytes(b"no sound")
    encoding = chance.choice(["ascii", "cp1252"])
    environment = dict(os.environ) | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    process = trouble.start("transcribe", name, CLIP, "--no-lm", env=environment)
    out, err = process.communicate(timeout=2 * HANG_S)
    trouble.check(b"Traceback" not in err, err.decode(errors="replace")[-2000:])
    trouble.check(process.returncode == 1 and b"rock" in out.lower(), f"{process.returncode}: {out!r} {err!r}")
    trouble.check(b"\x1b" not in out + err, f"an escape sequence reaches the terminal: {out + err!r}")


TROUBLES = [
    killed, terminated, full_disk, full_disk_while_listening, no_home, no_folder_to_write, nobody_reads,
    full_standard_output, no_standard_streams, plain_ascii,
]  # fmt: skip


def attack_commands(chance: random.Random, folder: Path, budget: Budget) -> Figures:
    """Every trouble once, then again while there is time."""
    figures = Figures("commands in trouble")
    for number in budget.rounds():
        what = TROUBLES[number % len(TROUBLES)]
        place = folder / f"{number}-{what.__name__}"
        place.mkdir()
        trouble = Trouble(place)
        what(trouble, chance)
        figures.inputs += 1
        figures.taken += not trouble.wrong
        for each in trouble.wrong:
            kind = "hangs" if each == HANG else "tracebacks" if "Traceback" in each else "wrong"
            figures.note(kind, f"{what.__name__}: {each}")
        if not trouble.wrong:
            shutil.rmtree(place)
    return figures
