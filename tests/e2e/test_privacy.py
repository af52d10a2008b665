"""Nothing leaves the computer: every entry point runs under strace with an empty home directory.

No process may connect to anything but this computer, look a name up, or write a file that nobody asked for; or import
packages that only training needs, which would take seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import asr.decoding
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, free_port, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace: apt install strace"),
]
ROOT = Path(__file__).parents[2]
CALLS = "connect,sendto,sendmsg,sendmmsg,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
LOOPBACK = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "::1"')
LOOK_UP = re.compile(r"sin6?_port=htons\(53\)|nscd|systemd/resolve")
COMPILED = Path(asr.decoding.__file__).parent / "__pycache__"  # what numba compiled, beside the package
WRITTEN = re.compile(r'openat\([^"]*"([^"]+)".*(?:O_CREAT|O_WRONLY|O_RDWR)|(?:creat|mkdir|rename)\w*\([^"]*"([^"]+)"')
IMPORTED = re.compile(r'/site-packages/(\w+)/(?:__init__\.py|__pycache__/__init__\.)[^"]*".* = \d')
TRAINING = {"torch", "torchaudio", "onnx", "lhotse", "tensorboard", "librosa"}
PAGES = {"gradio", "fastapi", "uvicorn", "pandas", "matplotlib"}


class Traced:
    """A command, with empty folders as its home, its working directory and its temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("home", "work", "tmp"):
            (folder / name).mkdir()

    @contextmanager
    def started(self, *arguments: str | Path) -> Iterator[subprocess.Popen]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")}
        environment = {
            **kept,
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-e",
            f"trace={CALLS}",
            "-e",
            "signal=none",
            "-o",
            str(self.folder / "trace"),
            sys.executable,
            *map(str, arguments),
        ]
        with subprocess.Popen(
            command,
            cwd=self.folder / "work",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def run(self, *arguments: str | Path) -> str:
        with self.started(*arguments) as process:
            out, err = process.communicate(timeout=5 * PATIENCE)
        assert process.returncode == 0, err
        return out

    @property
    def calls(self) -> list[str]:
        return (self.folder / "trace").read_text(errors="replace").splitlines()

    def connections(self) -> list[str]:
        """Calls that reach for another computer, or for a name."""
        return [
            line
            for line in self.calls
            if LOOK_UP.search(line) or ("sa_family=AF_INET" in line and not LOOPBACK.search(line))
        ]

    def files(self) -> list[str]:
        """What was written outside the temporary folder, relative to the working directory where it is there."""
        work, written = self.folder / "work", set()
        for line in self.calls:
            if " = -1 " in line or not (found := WRITTEN.search(line)):
                continue
            path = Path(os.path.normpath(work / (found[1] or found[2])))
            if not any(path.is_relative_to(folder) for folder in (self.folder / "tmp", "/dev", COMPILED)):
                written.add(str(path.relative_to(work)) if path.is_relative_to(work) else str(path))
        return sorted(written)

    def imported(self) -> set[str]:
        """Installed packages."""
        return {found[1] for line in self.calls if (found := IMPORTED.search(line))}

    def home(self) -> list[Path]:
        return list((self.folder / "home").rglob("*"))


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    return Traced(tmp_path)


def check(traced: Traced, *files: str) -> None:
    assert traced.calls
    assert traced.connections() == []
    assert [name for name in traced.files() if not name.startswith(files)] == []
    assert traced.home() == []
    assert "numpy" in traced.imported() and not traced.imported() & TRAINING


def test_it_would_be_seen(traced):
    """The trace shows a look-up and a file."""
    traced.run(
        "-c",
        "import os, socket\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.connect(('127.0.0.1', 53))\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.connect(('192.0.2.1', 80))\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.connect(('127.0.0.1', 80))\n"
        "open(os.path.expanduser('~/id'), 'w').close()",
    )
    assert len(traced.connections()) == 2 and traced.files() == [str(traced.folder / "home" / "id")]


def test_transcribe(traced):
    clips = [CLIPS / "kathleen-0.flac", CLIPS / "kathleen-1.flac"]
    traced.run("-m", "asr.cli", "transcribe", *clips, "--jobs", "2", "-o", "out/")
    check(traced, "out")
    assert not traced.imported() & PAGES


def test_listen(traced):
    assert "rock" in traced.run("-m", "asr.cli", "listen", "--input", CLIPS / "kathleen-0.flac", "--speed", "0")
    check(traced)
    assert not traced.imported() & PAGES


def test_serve(traced):
    with traced.started("-m", "asr.cli", "serve", "--port", "0") as process:
        line = process.stdout.readline()
        port = int(re.search(r"ws://127.0.0.1:(\d+)/ws", line)[1])
        with open(CLIPS / "kathleen-0.flac", "rb") as file:
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/audio/transcriptions",
                data={"model": "en-small"},
                files={"file": file},
                timeout=PATIENCE,
            )
        assert answer.json()["text"] == "There was nothing on the rock."
        assert httpx.get(f"http://127.0.0.1:{port}/demo/", timeout=PATIENCE).status_code == 200
        end(process)
    check(traced)


def test_demo(traced):
    port = free_port()
    with traced.started(ROOT / "app.py", "--port", str(port)) as process:
        until(lambda: answers(f"http://127.0.0.1:{port}/") or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        end(process)
    check(traced)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=PATIENCE).status_code == 200
    except httpx.TransportError:
        return False


def end(process: subprocess.Popen) -> None:
    """Ctrl-C for the program that strace runs."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGINT)
    process.communicate(timeout=PATIENCE)
