"""Text to learn from, and KenLM's programs that learn from it."""
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.text.normalize import normalize
from asr.training import kenlm_tools


def lmplz() -> bool:
    return all(shutil.which(name) or shutil.which(name, path=kenlm_tools.cache()) for name in kenlm_tools.PROGRAMS)


def needs_lmplz(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that runs KenLM's programs."""
    skip = pytest.mark.skipif(not lmplz(), reason="KenLM's programs are not here: asr lm --build-tools")
    return pytest.mark.e2e(skip(test))


def verses(folder: Path) -> Path:
    """A text of 2 000 lines in which a word says much of the next."""
    path = folder / "verses.txt"
    animals, places = ["cat", "dog", "old owl", "horse"], ["mat", "log", "roof", "hill"]
    lines = [f"the {animals[i % 4]} number {normalize(str(i % 97))} sat on the {places[i % 4]}" for i in range(1999)]
    path.write_text("\n".join(lines) + "\nan aardvark\n")
    return path
