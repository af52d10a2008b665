"""Speed and memory on this machine, with real speech joined to long recordings.

    python benchmarks/speed.py data/speech --split dev

Offline: an hour of MP3 in this process, and three hours in a process of its own, whose memory is watched. Live: blocks
of 160 ms as fast as they go, on one core. Start-up: a 30-second file in a process of its own, files cached.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np

import asr
from asr.audio import manifest
from asr.evaluation.speed import live as measure_live

RATE = 16_000
PAUSE = np.zeros(RATE // 2, dtype=np.float32)
LIVE_SECONDS = 90


def speech(path: str, split: str | None, seconds: float) -> np.ndarray:
    """So many seconds of a manifest's utterances one after another, from the beginning again where they are too few."""
    utterances = manifest.read(Path(path), split)
    parts: list[np.ndarray] = []
    missing = int(seconds * RATE)
    while missing > 0:
        for utterance in utterances:
            parts += [manifest.load(utterance), PAUSE]
            missing -= len(parts[-2]) + len(PAUSE)
            if missing <= 0:
                break
    return np.concatenate(parts)[: int(seconds * RATE)]


def write_mp3(path: Path, samples: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        for first in range(0, len(samples), RATE):
            frame = av.AudioFrame.from_ndarray(samples[None, first : first + RATE], format="fltp", layout="mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def watch(command: list[str]) -> tuple[float, list[tuple[int, int]]]:
    """Run a command: wall-clock seconds, and every half second the megabytes that are resident, and those of them that
    no file backs: what another process would need once more."""
    start, sizes = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(OSError, IndexError):  # it may end at any moment
                status = Path(f"/proc/{process.pid}/status").read_text()
                resident, own = (int(status.split(f"{name}:")[1].split()[0]) // 1024 for name in ("VmRSS", "RssAnon"))
                sizes.append((resident, own))
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}.")
    return time.perf_counter() - start, sizes


def offline(mp3: Path, hours: float) -> None:
    print(f"\n{'offline, ' + str(os.cpu_count()) + ' cores':<30} {'seconds':>8} {'real-time factor':>17}")
    for name, options in MODELS.items():
        recognizer = asr.load(**options)
        start = time.perf_counter()
        recognizer.transcribe(mp3)
        spent = time.perf_counter() - start
        print(f"{name:<30} {spent:8.1f} {spent / hours / 3600:17.4f}", flush=True)


def live(samples: np.ndarray) -> None:
    print(f"\n{'live, 160 ms blocks':<30} {'share of a core':>16} {'p50 ms':>8} {'p95 ms':>8} {'max ms':>8}")
    for name, options in MODELS.items():
        recognizer = asr.load(**options, threads=1)
        for latency in ("fast", "balanced", "accurate"):
            speed = measure_live(recognizer, samples, latency)
            times = f"{speed.p50_ms:8.1f} {speed.p95_ms:8.1f} {speed.max_ms:8.1f}"
            print(f"{name + ', ' + latency:<30} {speed.share:16.1%} {times}", flush=True)


MODELS: dict[str, dict] = {
    "greedy": {"lm": False},
    "beam + LM": {},
    "greedy, int8": {"lm": False, "int8": True},
    "beam + LM, int8": {"int8": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--split", default=None)
    parser.add_argument("--hours", type=float, default=1.0, help="length of the recording that is transcribed in here")
    parser.add_argument("--long", type=float, default=3.0, help="hours of the one in its own process (0: none)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asr_command = [sys.executable, "-m", "asr.cli", "transcribe"]
        short = Path(folder) / "short.mp3"
        write_mp3(short, speech(args.manifest, args.split, 30))
        watch([*asr_command, str(short)])
        fastest = min(watch([*asr_command, str(short)])[0] for _ in range(3))
        print(f"30 s file, start to text: {fastest:.1f} s", flush=True)
        hour = speech(args.manifest, args.split, args.hours * 3600)
        path = Path(folder) / "hour.mp3"
        write_mp3(path, hour)
        offline(path, args.hours)
        if args.long:
            write_mp3(path, np.tile(hour, round(args.long / args.hours)))
            spent, sizes = watch([*asr_command, str(path)])
            print(
                f"\n{args.long:.0f} h of MP3 in its own process: {spent:.0f} s; resident memory "
                f"{max(sizes[:120])[0]} MB in the first minute, {max(sizes)[0]} MB at most, {sizes[-2][0]} MB at the "
                f"end; without mapped files {max(own for _, own in sizes)} MB at most",
                flush=True,
            )
        live(hour[: LIVE_SECONDS * RATE])


if __name__ == "__main__":
    main()
