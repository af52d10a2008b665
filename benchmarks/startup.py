"""How long whole processes take, from Enter to what a user waits for, files cached.

    python benchmarks/startup.py

Each is started three times, in turn with importing NumPy and ONNX Runtime alone; the best of each counts, and the ratio
to that import, which depends less on the machine.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile

HERE = Path(__file__).parents[1]
SAMPLE = HERE / "samples" / "sentences.flac"
ASR = [sys.executable, "-m", "asr.cli"]
POLL_S = 0.01
PATIENCE_S = 60.0


def until_end(command: list[str], status: int = 0) -> float:
    """Seconds until the process has ended, which must be with that status."""
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=HERE)
    seconds = time.perf_counter() - start
    if done.returncode != status:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr}")
    return seconds


def until_line(command: list[str], line: str) -> float:
    """Seconds until the process has written a line that begins so on standard error; then it is stopped."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=HERE) as process:
        assert process.stderr
        found = next((each for each in process.stderr if each.startswith(line)), None)
        seconds = time.perf_counter() - start
        process.kill()
    if found is None:
        raise SystemExit(f"{' '.join(command)} never wrote a line '{line}'.")
    return seconds


def until_served(command: list[str], path: str) -> float:
    """Seconds until a server answers at `path`; then it is stopped."""
    port = free_port()
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE
    ) as process:
        while process.poll() is None and time.perf_counter() - start < PATIENCE_S:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S):
                break
            time.sleep(POLL_S)
        else:
            raise SystemExit(f"{' '.join(command)} ended, or did not answer within {PATIENCE_S:.0f} s.")
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        speech, rate = soundfile.read(SAMPLE, dtype="int16")
        clips = {}
        for seconds in (12, 30):
            clips[seconds] = str(Path(folder) / f"{seconds}.wav")
            soundfile.write(clips[seconds], np.tile(speech, 2)[: seconds * rate], rate)
        measured: dict[str, Callable[[], float]] = {
            "import numpy, onnxruntime": lambda: until_end([sys.executable, "-c", "import numpy, onnxruntime"]),
            "import gradio": lambda: until_end([sys.executable, "-c", "import gradio"]),
            "asr transcribe, 12 s of speech": lambda: until_end([*ASR, "transcribe", clips[12]]),
            "asr transcribe, 30 s of speech": lambda: until_end([*ASR, "transcribe", clips[30]]),
            "asr transcribe, a file that is missing": lambda: until_end([*ASR, "transcribe", "missing.wav"], 1),
            "asr serve, a port that is taken": lambda: until_end([*ASR, "serve", "--port", port], 1),
            "asr listen, until it listens": lambda: until_line([*ASR, "listen", "--input", clips[30]], "Listening"),
            "asr serve, until it answers": lambda: until_served([*ASR, "serve"], "/health"),
            "app.py, until its page is there": lambda: until_served([sys.executable, "app.py"], "/"),
        }
        best = dict.fromkeys(measured, float("inf"))
        for _ in range(options.runs):
            for name, measure in measured.items():
                best[name] = min(best[name], measure())
    unit = best["import numpy, onnxruntime"]
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, best of {options.runs}\n")
    print(f"{'from Enter to the end':<42} {'seconds':>8} {'ratio':>7}")
    for name, seconds in best.items():
        print(f"{name:<42} {seconds:>8.2f} {seconds / unit:>7.1f}")


if __name__ == "__main__":
    main()
