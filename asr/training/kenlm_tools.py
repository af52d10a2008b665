"""KenLM's program `lmplz`: where it is, how it is built, how it is called.

Its source is inside the `kenlm` sdist on PyPI (LGPL); CMake builds it with Boost. What is built goes into the user's
cache; programs on PATH come first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from asr.atomic import replacing
from asr.errors import LanguageModelError

PROGRAM = "lmplz"
SOURCE = "kenlm>=0.2,<1"
NEEDED = (
    "a C++ compiler, CMake and Boost (Debian, Ubuntu: apt-get install build-essential cmake "
    "libboost-program-options-dev libboost-system-dev libboost-thread-dev libboost-test-dev)"
)
ERROR_CHARACTERS = 300  # of what a program said, that are shown

Say = Callable[[str], None]


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rill" / "kenlm"


def find() -> str:
    """The program's path. Raises LanguageModelError that says how to get it."""
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=cache())
    if not found:
        raise LanguageModelError(
            f"KenLM's {PROGRAM} is not here: `asr lm --build-tools` builds it, with {NEEDED}; or put it on PATH."
        )
    return found


def call(*arguments: object) -> None:
    """Run the program to its end. Raises LanguageModelError with its last words."""
    _run([find(), *map(str, arguments)], f"KenLM's {PROGRAM} failed")


def build(say: Say = lambda line: None) -> None:
    """Download KenLM's source with pip and build the program into the cache. Raises LanguageModelError."""
    if not shutil.which("cmake"):
        raise LanguageModelError(f"CMake is not here: building KenLM needs {NEEDED}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("Downloading KenLM's source.")
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                "kenlm",
                "--dest",
                folder,
                SOURCE,
            ],
            "KenLM's source cannot be downloaded",
        )
        (archive,) = folder.glob("kenlm-*.tar.gz")
        _run(["cmake", "-E", "tar", "xzf", archive], "KenLM's source cannot be unpacked", folder)
        say("Building it: a minute or two.")
        source = folder / archive.name.removesuffix(".tar.gz")
        _run(
            ["cmake", "-S", source, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release"],
            f"KenLM cannot be built; it needs {NEEDED}",
        )
        _run(
            ["cmake", "--build", folder / "build", "--parallel", str(os.cpu_count() or 1), "--target", PROGRAM],
            "KenLM cannot be built",
        )
        with replacing(cache() / PROGRAM) as part:
            shutil.copy2(folder / "build" / "bin" / PROGRAM, part)
    say(f"{PROGRAM} is in {cache()}.")


def _run(command: list[str | Path], failure: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise LanguageModelError(f"{failure}: …{said[-ERROR_CHARACTERS:] or f'status {done.returncode}'}")
