"""Text to learn from, and KenLM's program that learns from it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.text.normalize import normalize
from asr.training import kenlm_tools


def lmplz() -> bool:
    return bool(shutil.which(kenlm_tools.PROGRAM) or shutil.which(kenlm_tools.PROGRAM, path=kenlm_tools.cache()))


def needs_lmplz(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that runs KenLM's lmplz."""
    skip = pytest.mark.skipif(not lmplz(), reason="KenLM's lmplz is not here: asr lm --build-tools")
    return pytest.mark.e2e(skip(test))


def verses(folder: Path) -> Path:
    """A text of 2 000 lines in which a word says much of the next."""
    path = folder / "verses.txt"
    animals, places = ["cat", "dog", "old owl", "horse"], ["mat", "log", "roof", "hill"]
    lines = [f"the {animals[i % 4]} number {normalize(str(i % 97))} sat on the {places[i % 4]}" for i in range(1999)]
    path.write_text("\n".join(lines) + "\nan aardvark\n")
    return path
