"""KenLM's programs `lmplz` and `build_binary`: where they are, how they are built, how they are called.

Their source is inside the `kenlm` sdist on PyPI (LGPL); CMake builds it with Boost. What is built goes into the user's
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

PROGRAMS = ("lmplz", "build_binary")
SOURCE = "kenlm>=0.2,<1"
NEEDED = ("a C++ compiler, CMake and Boost (Debian, Ubuntu: apt-get install build-essential cmake "
          "libboost-program-options-dev libboost-system-dev libboost-thread-dev libboost-test-dev)")
ERROR_CHARACTERS = 300  # of what a program said, that are shown

Say = Callable[[str], None]


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rill" / "kenlm"


def find(program: str) -> str:
    """The program's path. Raises LanguageModelError that says how to get it."""
    found = shutil.which(program) or shutil.which(program, path=cache())
    if not found:
        raise LanguageModelError(f"KenLM's {program} is not here: `asr lm --build-tools` builds it, with {NEEDED}; "
                                 f"or put it on PATH.")
    return found


def call(program: str, *arguments: object) -> None:
    """Run one of KenLM's programs to its end. Raises LanguageModelError with its last words."""
    _run([find(program), *map(str, arguments)], f"KenLM's {program} failed")


def build(say: Say = lambda line: None) -> None:
    """Download KenLM's source with pip and build its programs into the cache. Raises LanguageModelError."""
    if not shutil.which("cmake"):
        raise LanguageModelError(f"CMake is not here: building KenLM needs {NEEDED}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("Downloading KenLM's source.")
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "kenlm", "--dest", folder,
              SOURCE], "KenLM's source cannot be downloaded")
        archive, = folder.glob("kenlm-*.tar.gz")
        _run(["cmake", "-E", "tar", "xzf", archive], "KenLM's source cannot be unpacked", folder)
        say("Building it: a minute or two.")
        source = folder / archive.name.removesuffix(".tar.gz")
        _run(["cmake", "-S", source, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release"],
             f"KenLM cannot be built; it needs {NEEDED}")
        _run(["cmake", "--build", folder / "build", "--parallel", str(os.cpu_count() or 1), "--target", *PROGRAMS],
             "KenLM cannot be built")
        for program in PROGRAMS:
            with replacing(cache() / program) as part:
                shutil.copy2(folder / "build" / "bin" / program, part)
    say(f"{' and '.join(PROGRAMS)} are in {cache()}.")


def _run(command: list[str | Path], failure: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise LanguageModelError(f"{failure}: …{said[-ERROR_CHARACTERS:] or f'status {done.returncode}'}")
