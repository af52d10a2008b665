from pathlib import Path

import pytest

from asr.decoding.g2p import FILE, G2P
from asr.decoding.lexicon import Lexicon
from asr.model.tokens import TokenSet
from asr.training import dictionary
from asr.training.dictionary import Dictionary, cmudict, spell, train_network
from tests.support.checkpoints import only_config, wrong

PHONES = TokenSet(("-", "|", "AE", "K", "T", "S", "EY", "F"), "-", "|", (0.125,) * 8)
LETTERS = TokenSet(("-", " ", "a", "c", "t", "s"), "-", " ", (0.1,) * 6)
TOKENS = {"characters": LETTERS, "phonemes": PHONES}
LISTED = {
    "cat": [("K", "AE", "T"), ("K", "EY", "T"), ("S", "AE", "T"), ("F", "AE", "T")],
    "cafe": [("K", "AE", "F", "EY")],
    "cut": [("K", "AH", "T")],
}


class Network:
    """Says every letter of a word of a, c, s and t; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pronounce_all(self, words, n, least):  # type: ignore[no-untyped-def]
        assert n == dictionary.MAX_PRONUNCIATIONS and least == dictionary.MIN_VARIANT_PROBABILITY
        self.asked += words
        sounds = {"a": "AE", "c": "K", "s": "S", "t": "T"}
        return [[tuple(sounds[letter] for letter in word)] if set(word) <= set(sounds) else [] for word in words]


def test_each_word_comes_from_the_first_source_that_has_it() -> None:
    network = Network()
    made = spell(["scat", "cat", "mp3", "scat", "cats"], TOKENS, LISTED, network)
    assert made.entries == [
        ("scat", ("S", "K", "AE", "T")),
        ("cat", ("K", "AE", "T")),
        ("cat", ("K", "EY", "T")),
        ("cat", ("S", "AE", "T")),
        ("cats", ("K", "AE", "T", "S")),
    ]  # three of cat, none of mp3
    assert made.sources == {"from CMUdict": 1, "from letter-to-sound": 2}
    assert made.unspelled == ["mp3"]
    assert network.asked == ["scat", "mp3", "cats"]


def test_accents_do_not_count() -> None:
    made = spell(["café", "çát", "šca"], TOKENS, LISTED, Network())
    assert made.entries == [
        ("café", ("K", "AE", "F", "EY")),
        ("çát", ("K", "AE", "T")),
        ("çát", ("K", "EY", "T")),
        ("çát", ("S", "AE", "T")),
        ("šca", ("S", "K", "AE")),
    ]


def test_a_word_without_usable_pronunciation_is_told_of() -> None:
    made = spell(["cut", "tact"], TOKENS, LISTED, None)  # no AH in these tokens, and no network
    assert made.entries == [] and made.unspelled == ["cut", "tact"]


def test_without_phonemes_words_are_spelled_in_letters() -> None:
    made = spell(["cat", "cats", "cuts"], {"characters": LETTERS}, {}, None)
    assert made.entries == [("cat", tuple("cat")), ("cats", tuple("cats"))]
    assert made.sources == {"from their letters": 2} and made.unspelled == ["cuts"]


def test_what_is_written_is_what_a_recognizer_reads(tmp_path: Path) -> None:
    spell(["scat", "café", "cat"], TOKENS, LISTED, Network()).write(tmp_path / "lexicon.txt")
    read = Lexicon.read(tmp_path / "lexicon.txt", PHONES)
    assert read.words == ["scat", "café", "cat"]
    assert read.of("cat") == [(3, 2, 4, 1), (3, 6, 4, 1), (5, 2, 4, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["lexicon.txt"]


def test_the_report_counts_every_word() -> None:
    few = Dictionary([("cat", ("K",))] * 7, {"from CMUdict": 2, "from letter-to-sound": 3}, ["x1", "x2"])
    assert few.report() == (
        "Lexicon: 7 words, 7 spellings: 2 from CMUdict, 3 from letter-to-sound, 2 from none.\n"
        "Without a spelling, so never recognized: x1, x2."
    )
    many = Dictionary([], {}, [f"x{i}" for i in range(25)])
    assert many.report().endswith("x18, x19 and 5 more.")


def test_cmudict_without_stress_and_doubles() -> None:
    listed = cmudict()
    assert listed["live"] == [("L", "AY", "V"), ("L", "IH", "V")]
    assert len(listed) == 126_052 and listed["a.m."] == [("EY", "EH", "M")]
    assert listed["record"][0] == ("R", "AH", "K", "AO", "R", "D")
    assert all(len(set(each)) == len(each) for each in listed.values())
    assert len({phoneme for each in listed.values() for spelling in each for phoneme in spelling}) == 39


def test_a_trained_network_is_kept_with_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {a + b + c: [(a.upper(), b.upper(), c.upper())] for a in "abcd" for b in "efg" for c in "hijk"}
    monkeypatch.setattr(dictionary, "cmudict", lambda: words | {"a.b.": [("A", "B")]})
    said: list[str] = []
    folder = only_config(tmp_path / "new")
    train_network(folder, said.append)
    assert {path.name for path in folder.iterdir()} == {FILE, "config.json"} and FILE not in wrong(folder)
    network = G2P.load(folder / FILE)
    assert network.config.letters == "abcdefghijk"  # no full stop: such words are not learned from
    assert network.held_out is not None and network.held_out.words == 2  # 5 % of 48
    assert str(network.held_out) in said[-1]
