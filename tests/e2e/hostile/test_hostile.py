"""Each attack for some seconds; `scripts/hostile` goes on for as long as one likes."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from tests.e2e.hostile.clients import attack_serving
from tests.e2e.hostile.corpus import ENCODINGS, PLAYLISTS, bombs, damaged, whole
from tests.e2e.hostile.faults import TROUBLES, attack_commands
from tests.e2e.hostile.figures import Budget, Figures, table
from tests.e2e.hostile.files import HANG_S, Victim, attack_checkpoints, attack_reading, count
from tests.e2e.hostile.live import attack_listening
from tests.e2e.hostile.victim import read

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
GROWTH_MIB = 40  # that an allocator may keep


def harmless(figures: Figures, peak_mib: float) -> None:
    assert figures.harm == 0, "\n".join(figures.notes)
    assert figures.growth_mib < GROWTH_MIB and figures.peak_mib < peak_mib, table([figures])


def test_recordings(tmp_path: Path) -> None:
    figures = attack_reading(random.Random(1), tmp_path, Budget(3 * len(list(bombs()))))
    harmless(figures, peak_mib=300)
    assert 0.2 < figures.taken / figures.inputs < 0.9  # damage that all is refused for is no test of what comes after
    assert not list(tmp_path.iterdir())


def test_checkpoints(tmp_path: Path) -> None:
    harmless(attack_checkpoints(random.Random(1), tmp_path, Budget(24)), peak_mib=600)


def test_clients_of_a_server(tmp_path: Path) -> None:
    figures = attack_serving(random.Random(1), tmp_path, Budget(12))
    harmless(figures, peak_mib=1200)
    assert figures.taken > figures.inputs / 5


def test_commands_in_trouble(tmp_path: Path) -> None:
    harmless(attack_commands(random.Random(1), tmp_path, Budget(len(TROUBLES))), peak_mib=1)


def test_live_audio(tmp_path: Path) -> None:
    harmless(attack_listening(random.Random(1), tmp_path, Budget(4)), peak_mib=600)


def test_harm_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies, one that says nothing, and one that raises are counted, and the next input finds another."""
    figures = Figures("x")
    victim = Victim("recordings")
    victim.process.kill()
    victim.process.wait()
    count(figures, victim.take(tmp_path / "a"), "a")
    monkeypatch.setattr("tests.e2e.hostile.files.HANG_S", 0.0)
    count(figures, victim.take(tmp_path / "b"), "b")
    monkeypatch.setattr("tests.e2e.hostile.files.HANG_S", HANG_S)
    count(figures, victim.take(tmp_path / "c"), "c")
    count(figures, {"kind": "traceback", "said": "Traceback"}, "d")
    count(figures, {"kind": "refused", "said": "not a\nsentence", "mib": 1, "peak": 1}, "e")
    victim.close()
    assert (figures.inputs, figures.crashes, figures.hangs, figures.tracebacks, figures.wrong) == (5, 1, 1, 1, 1)
    assert figures.notes[:2] == ["x, crashes: a: status -9", "x, hangs: b: nothing for 0 s"]


def test_the_corpus_is_sound_before_it_is_damaged_and_the_same_for_a_seed(tmp_path: Path) -> None:
    for number in range(len(ENCODINGS) + 1):
        (tmp_path / "whole").write_bytes(whole(number))
        read(tmp_path / "whole")
    first, second = ([damaged(random.Random(seed)) for seed in range(20)] for _ in range(2))
    assert first == second and len({name for name, _ in first}) > 5
    assert len(PLAYLISTS) < len(list(bombs()))
