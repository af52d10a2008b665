"""The search's object code: kept, found again, and never trusted when it is damaged."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asr.decoding import compiling, layout


@pytest.fixture
def fresh(monkeypatch, tmp_path) -> Path:
    """Whoever asks for the search now looks for its object code in this folder."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_loaded", compiling._loaded.__wrapped__)
    return tmp_path


@pytest.fixture(scope="module")
def code() -> bytes:
    """Object code of this processor, as an earlier process of these tests kept it."""
    compiling.library()
    kept = (path for folder in compiling._folders() for path in folder.glob("search-*.o"))
    newest = max(kept, key=lambda path: path.stat().st_mtime)
    found = compiling._read(newest)
    assert found
    return found


@pytest.fixture
def compilations(monkeypatch, code) -> list[bytes]:
    """Of this test; each takes no time."""
    made: list[bytes] = []

    def compiled() -> bytes:
        made.append(code)
        return code

    monkeypatch.setattr(compiling, "compiled", compiled)
    return made


def follow() -> float:
    """Something that only works where the functions do."""
    automaton = layout.Phrases(
        *(np.array(each, np.int32) for each in ([0, 1, 1], [7], [1], [0, 0])),
        *(np.array(each, np.float32) for each in ([0.0, 2.5], [0.0, 0.0])),
    )
    bonus = layout.Bonus(np.zeros(1, np.float32))
    assert compiling._loaded()[0].follow(layout.table(automaton), layout.table(bonus), 0, 7) == 1
    return float(bonus.earned[0])


def test_it_is_compiled_once_and_kept(fresh, compilations) -> None:
    assert compiling.compiled_anew() and len(list(fresh.glob("search-*.o"))) == 1
    assert follow() == 2.5 and not compiling.compiled_anew() and len(compilations) == 1


def test_damaged_code_is_never_run(fresh, compilations) -> None:
    follow()
    (kept,) = fresh.glob("search-*.o")
    whole = kept.read_bytes()
    for damaged in (whole[:-1], b"", whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        kept.write_bytes(damaged)
        del compilations[:]
        assert follow() == 2.5 and len(compilations) == 1
        assert kept.read_bytes() == whole


def test_it_works_where_nothing_can_be_kept(fresh, compilations, monkeypatch) -> None:
    (fresh / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(fresh / "file" / "folder"))
    assert follow() == 2.5 and follow() == 2.5 and len(compilations) == 2


def test_it_is_kept_in_the_users_cache_where_the_package_is_read_only(fresh, compilations, monkeypatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    (fresh / "package").touch()  # no folder: nothing can be written into it
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "cache"))
    _, users = compiling._folders()
    monkeypatch.setattr(compiling, "_folders", lambda: iter((fresh / "package" / "__pycache__", users)))
    assert follow() == 2.5
    assert len(list((fresh / "cache" / "rill").glob("search-*.o"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the linker's memory stays")
def test_the_linkers_memory_is_given_back_and_linking_works_again(fresh, compilations, monkeypatch) -> None:
    forget, left = compiling._forget_linker, []

    def measured() -> None:
        forget()
        left.append(linkers_kilobytes())  # at once: what runs later maps neighbors of what it touches again

    monkeypatch.setattr(compiling, "_forget_linker", measured)
    for _ in range(2):
        assert follow() == 2.5  # links anew
    assert len(left) == 2 and max(left) < 4000  # of 50 000 that linking takes


def linkers_kilobytes() -> int:
    """Resident memory of the linker's pages that were never written to."""
    pages, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, second = line.split()[:2]
        if not first.endswith(":"):
            ours = "/libllvmlite" in line
        elif ours and first in ("Rss:", "Anonymous:"):
            pages += int(second) if first == "Rss:" else -int(second)
    return pages


def test_long_compiling_is_announced(fresh, compilations, monkeypatch, caplog) -> None:
    class AtOnce:
        daemon = False

        def __init__(self, _: float, announce) -> None:
            self.announce = announce

        def start(self) -> None:
            self.announce()

        def cancel(self) -> None:
            pass

    monkeypatch.setattr(compiling, "Timer", AtOnce)
    follow()
    assert len(caplog.messages) == 1 and "once" in caplog.messages[0]
    follow()  # from the file
    assert len(caplog.messages) == 1


def test_an_array_of_another_kind_is_refused() -> None:
    numbers = np.arange(6, dtype=np.int32)
    layout.table(layout.Index(numbers))
    for wrong in (numbers.astype(np.int64), numbers.reshape(2, 3), numbers[::2]):
        with pytest.raises(TypeError, match="Index"):
            layout.table(layout.Index(wrong))


@pytest.mark.e2e
def test_a_second_process_does_without_the_compiler() -> None:
    code = (
        "import sys\nfrom asr.decoding.search import library\nlibrary()\n"
        "assert not {'numba', 'scipy', 'torch'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
