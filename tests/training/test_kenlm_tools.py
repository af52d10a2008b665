import os
import sys
from pathlib import Path

import pytest

from asr.errors import LanguageModelError
from asr.training import kenlm_tools

pytestmark = pytest.mark.e2e


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without KenLM and CMake: an empty cache, and a PATH to the shell's own programs only."""
    for name in ("sh", "touch", "mkdir"):
        (tmp_path / "path").mkdir(exist_ok=True)
        (tmp_path / "path" / name).symlink_to(
            next(Path(folder) / name for folder in os.environ["PATH"].split(":") if (Path(folder) / name).exists())
        )
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "path"


def test_a_missing_program_is_a_sentence_that_says_how_to_get_it(bare: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"lmplz is not here: `asr lm --build-tools`.*libboost-thread-dev"):
        kenlm_tools.find()


def test_the_path_comes_before_the_cache(bare: Path) -> None:
    built = program(kenlm_tools.cache(), "lmplz", "")
    assert kenlm_tools.find() == str(built)
    own = program(bare, "lmplz", "")
    assert kenlm_tools.find() == str(own)


def test_a_program_that_fails_has_the_last_word(bare: Path, tmp_path: Path) -> None:
    program(bare, "lmplz", f'touch "{tmp_path}/$1"; echo "{"so far " * 100} Too little text." >&2; exit 3')
    with pytest.raises(LanguageModelError, match=r"lmplz failed: .*Too little text\.") as raised:
        kenlm_tools.call(tmp_path.name)
    assert (tmp_path / tmp_path.name).exists()  # its arguments have come
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
    program(bare, "lmplz", "exit 3")
    with pytest.raises(LanguageModelError, match="status 3"):
        kenlm_tools.call()


def test_building_without_cmake(bare: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"CMake is not here.*apt-get install build-essential cmake"):
        kenlm_tools.build()


DOWNLOAD = 'while [ "$1" != --dest ]; do shift; done; touch "$2/kenlm-9.9.tar.gz"'
CMAKE = """
case "$1" in
    -E) mkdir kenlm-9.9 ;;
    -S) [ -d "$2" ] && [ -d "${4%/build}/kenlm-9.9" ] || exit 1; mkdir -p "$4/bin" ;;
    --build) touch "$2/bin/lmplz" ;;
esac"""


def test_built_programs_are_in_the_cache(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(program(bare, "python", DOWNLOAD)))
    program(bare, "cmake", CMAKE)
    said: list[str] = []
    kenlm_tools.build(said.append)
    assert sorted(path.name for path in kenlm_tools.cache().iterdir()) == ["lmplz"]
    assert str(kenlm_tools.cache()) in said[-1]


@pytest.mark.parametrize(
    ("download", "cmake", "sentence"),
    [
        ("echo No network. >&2; exit 1", CMAKE, r"source cannot be downloaded: .*No network\."),
        (
            DOWNLOAD,
            CMAKE.replace("mkdir -p", "echo Could NOT find Boost >&2; exit 1; :"),
            r"it needs a C\+\+ compiler, CMake and Boost .*libboost-test-dev.*Could NOT find Boost",
        ),
        (
            DOWNLOAD,
            CMAKE.replace('touch "$2/bin', 'echo A compiler error; exit 2; touch "$2/bin'),
            "cannot be built: .*A compiler error",
        ),
    ],
    ids=["pip", "boost", "compiler"],
)
def test_what_stops_the_build_is_said(
    bare: Path, monkeypatch: pytest.MonkeyPatch, download: str, cmake: str, sentence: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(program(bare, "python", download)))
    program(bare, "cmake", cmake)
    with pytest.raises(LanguageModelError, match=sentence):
        kenlm_tools.build()
    assert not kenlm_tools.cache().exists()
