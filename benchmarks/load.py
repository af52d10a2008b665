"""How many live speakers one server bears: real speech in real time, through Vosk's protocol, on this computer.

    python benchmarks/load.py --sessions 16 32 48 64                          (the test clips, joined)
    python benchmarks/load.py --manifest data/speech --split dev
    python benchmarks/load.py --soak 60 --sessions 24                         (an hour, with guests who behave badly)

The server is a process of its own, `asr serve` with the options that follow `--`, on the first `--cores` cores, which
the clients share. Each client speaks one of `--recordings` recordings, utterances with pauses between them, in blocks
of 0.1 s, and waits for each answer, as Vosk's clients do. What it must get is what one stream alone gives.

- final: seconds from the end of an utterance's last word, at the moment when it is due to be spoken, to its final text;
  95 % must come within the endpoint's pause + 0.5 s (the last of a recording, which its end makes final, is left out)
- MB a session: growth of the server's resident memory since its warm-up
- cores: that the server's process kept busy, in the mean
- stolen: seconds in which this (virtual) computer's cores were taken by others, as Linux counts them
- wrong: finals that are missing, too many, or another text; broken off: clients that did not come to their end
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import websockets

import asr
from asr.audio import manifest
from asr.inference.endpoint import EndpointRules
from asr.text.results import Final

RATE = 16_000
BLOCK = 3200  # bytes: 0.1 s
PAUSE = 1.5  # seconds between utterances
ALLOWED = EndpointRules().min_trailing_silence + 0.5  # seconds for 95 of 100 finals
CLIPS = Path(__file__).parents[1] / "tests" / "clips" / "manifest.jsonl"
GUESTS = 0.25  # share of a soak's conversations that go wrong on purpose


@dataclass(frozen=True)
class Recording:
    sound: bytes  # 16-bit samples
    finals: list[str]  # of a stream alone


@dataclass
class Tally:
    """What the clients have seen."""

    delays: list[float] = field(default_factory=list)
    finals: int = 0  # that were due
    wrong: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # conversations, by how they ended

    @property
    def broken(self) -> int:
        return sum(self.ends.values()) - self.ends["whole"] - self.ends["guest"]

    def compare(self, text: str, due: list[str]) -> None:
        """An answer's text against the finals that are due next; it may hold several."""
        while text:
            expected = due.pop(0) if due else None
            if expected is None or not f"{text} ".startswith(f"{expected} "):
                self.wrong += 1
                return
            text = text[len(expected) + 1 :]


class Process:
    """The server, and what Linux knows of it."""

    def __init__(self, options: list[str], cores: int) -> None:
        self.cores = sorted(os.sched_getaffinity(0))[:cores]
        command = [sys.executable, "-m", "asr.cli", "serve", "--port", "0", "--max-sessions", "1000", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, self.cores)
        )
        assert self.process.stdout
        found = re.search(r"ws://[^ ,]+", self.process.stdout.readline())
        if not found:
            raise SystemExit("The server did not start.")
        self.url = found[0]
        self.folder = Path(f"/proc/{self.process.pid}")

    def resident(self) -> float:
        """Megabytes."""
        return int((self.folder / "status").read_text().split("VmRSS:")[1].split()[0]) / 1024

    def files(self) -> int:
        return len(os.listdir(self.folder / "fd"))

    def busy(self) -> float:
        """Seconds of processor time since its start."""
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.terminate()
        if self.process.wait(60):
            raise SystemExit(f"The server left with status {self.process.returncode}.")


def stolen() -> float:
    """Seconds of all cores since the computer's start."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def recordings(path: Path, split: str | None, count: int, seconds: float, int8: bool | None) -> list[Recording]:
    """Each of other utterances, as far as there are so many, with what one stream alone makes of it."""
    utterances = manifest.read(path, split)
    random.shuffle(utterances)
    sources = iter(utterances * 1000)
    recognizer = asr.load(device="cpu", int8=int8, punctuate=False)
    found = []
    for number in range(count):
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < seconds * RATE:
            parts += [manifest.load(next(sources)), np.zeros(round(PAUSE * RATE), np.float32)]
        samples = np.round(np.clip(np.concatenate(parts), -1, 1) * 32767).astype("<i2")
        stream = recognizer.stream()
        blocks = np.split(samples, range(RATE, len(samples), RATE))
        events = [event for block in blocks for event in stream.accept(block)]
        finals = [event.text for event in events + stream.finish() if isinstance(event, Final)]
        found.append(Recording(samples.tobytes(), finals))
        print(f"\r{number + 1} of {count} recordings are known", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


async def speak(url: str, recording: Recording, tally: Tally) -> None:
    """One client, from its first word to the last answer."""
    due = list(recording.finals)
    tally.finals += len(due)
    try:
        async with websockets.connect(url, compression=None) as socket:
            await socket.send(json.dumps({"config": {"sample_rate": RATE}}))
            start = time.monotonic()
            for first in range(0, len(recording.sound), BLOCK):
                block = recording.sound[first : first + BLOCK]
                await asyncio.sleep(start + (first + len(block)) / 2 / RATE - time.monotonic())
                await socket.send(block)
                answer = json.loads(await socket.recv())
                if answer.get("text"):
                    tally.delays.append(time.monotonic() - start - answer["result"][-1]["end"])
                    tally.compare(answer["text"], due)
            await socket.send('{"eof": 1}')
            tally.compare(json.loads(await socket.recv())["text"], due)
        tally.ends["whole"] += 1
    except (OSError, websockets.WebSocketException) as error:
        tally.ends[f"{type(error).__name__}: {error}"] += 1
    tally.wrong += len(due)


async def misbehave(url: str, tally: Tally) -> None:
    """A guest who sends what nobody should, vanishes in the middle, floods, or says nothing."""
    sound = random.randbytes(BLOCK)
    messages = random.choice(
        [
            [sound, "{"],
            ["AAAA"],
            ["[" * 10_000],
            [sound, b"odd"],
            [bytes(2 << 20)],
            ['{"config": {"sample_rate": 1}}'],
            [sound] * 30,
            [sound, '{"reset": 1}'] * 5,
            [],
        ]
    )
    try:
        async with websockets.connect(url, compression=None) as socket:
            for message in messages:
                await socket.send(message)
            await asyncio.sleep(random.random() * 3)
            if random.random() < 0.5:
                socket.transport.abort()
    except websockets.ConnectionClosed:
        pass  # as it should be
    except (OSError, websockets.WebSocketException) as error:
        tally.ends[f"{type(error).__name__}: {error}"] += 1
        return
    tally.ends["guest"] += 1


async def at_once(server: Process, sounds: list[Recording], sessions: int) -> tuple[Tally, float]:
    """So many speakers together, each starting at a moment of its own; and the most memory that the server had."""
    tally, sizes = Tally(), [server.resident()]

    async def one(number: int) -> None:
        await asyncio.sleep(2 * random.random())
        await speak(server.url, sounds[number % len(sounds)], tally)

    async def watch() -> None:
        while True:
            sizes.append(server.resident())
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(one(number) for number in range(sessions)))
    watching.cancel()
    return tally, max(sizes)


def table(server: Process, sounds: list[Recording], counts: list[int]) -> None:
    asyncio.run(at_once(server, [Recording(sound.sound[: 20 * BLOCK], []) for sound in sounds[:4]], 4))  # warm-up
    at_rest = server.resident()
    print("| sessions | final p50 | p95 | max | MB a session | cores | stolen | finals | wrong | broken off |")
    print("|" + " ---: |" * 10)
    largest = 0
    for sessions in counts:
        busy, lost, began = server.busy(), stolen(), time.monotonic()
        tally, memory = asyncio.run(at_once(server, sounds, sessions))
        cores = (server.busy() - busy) / (time.monotonic() - began)
        p50, p95 = np.percentile(tally.delays, [50, 95])
        print(
            f"| {sessions} | {p50:.2f} | {p95:.2f} | {max(tally.delays):.2f} | {(memory - at_rest) / sessions:.1f} "
            f"| {cores:.2f} | {stolen() - lost:.1f} | {tally.finals} | {tally.wrong} | {tally.broken} |",
            flush=True,
        )
        if p95 < ALLOWED and not tally.wrong and not tally.broken:
            largest = max(largest, sessions)
    print(
        f"\n{largest} sessions on {len(server.cores)} cores: 95 % of finals within {ALLOWED:.1f} s, every text as of "
        f"a stream alone."
    )


async def soak(server: Process, sounds: list[Recording], sessions: int, minutes: float) -> None:
    """So many clients for so long; each comes, speaks or misbehaves, goes, and comes again."""
    tally = Tally()
    start = time.monotonic()

    async def one() -> None:
        while time.monotonic() < start + 60 * minutes:
            await asyncio.sleep(2 * random.random())
            if random.random() < GUESTS:
                await misbehave(server.url, tally)
            else:
                await speak(server.url, random.choice(sounds), tally)

    clients = asyncio.gather(*(one() for _ in range(sessions)))
    print(f"{sessions} clients\n| minutes | MB | files | whole | guests | broken off | finals | wrong | p95 |")
    print("|" + " ---: |" * 9)
    for tenth in range(1, 12):
        if tenth < 11:
            await asyncio.sleep(start + 6 * minutes * tenth - time.monotonic())
        else:
            await clients  # the last ones speak to their end
            await asyncio.sleep(5)
        p95 = np.percentile(tally.delays, 95) if tally.delays else float("nan")
        print(
            f"| {(time.monotonic() - start) / 60:.1f} | {server.resident():.0f} | {server.files()} "
            f"| {tally.ends['whole']} | {tally.ends['guest']} | {tally.broken} | {tally.finals} | {tally.wrong} "
            f"| {p95:.2f} |",
            flush=True,
        )
        tally.delays.clear()
    for end, count in tally.ends.items():
        if end not in ("whole", "guest"):
            print(f"{count} × {end}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=CLIPS)
    parser.add_argument("--split", default=None)
    parser.add_argument("--recordings", type=int, default=12, help="different ones")
    parser.add_argument("--seconds", type=float, default=60, help="length of a recording")
    parser.add_argument("--sessions", type=int, nargs="+", default=[8, 16, 32, 48, 64], metavar="N")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="instead: the first N, coming and going, so long")
    parser.add_argument("options", nargs="*", help="of asr serve, behind --")
    args = parser.parse_args()
    random.seed(1)
    int8 = False if "--no-int8" in args.options else None
    sounds = recordings(args.manifest, args.split, args.recordings, args.seconds, int8)
    server = Process(args.options, args.cores)
    try:
        if args.soak:
            asyncio.run(soak(server, sounds, args.sessions[0], args.soak))
        else:
            table(server, sounds, args.sessions)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
