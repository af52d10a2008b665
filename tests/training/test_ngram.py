import bz2
import gzip
import lzma
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.ngram import FILE, pack, read
from asr.errors import LanguageModelError
from asr.training.ngram import Fit, Withheld, build, fit, most_frequent, read_vocabulary, sentences, separate
from tests.support.text import needs_lmplz, verses

VERSE = "the cat sat on the mat and the dog sat on the log"
ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-2\t<unk>
0\t<s>\t-0.5
-1\t</s>
-0.4\tcat\t-0.25
-0.6\tdog

\\2-grams:
-0.1\t<s> cat
-0.2\tcat </s>

\\end\\
"""


# --- text


def test_sentences_are_said_words_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Mr. Brown paid $3.50. “Why?” he asked…  \n***\n\nno full stop\nand a new line", encoding="utf-8")
    assert list(sentences(path, "en")) == [
        "mr brown paid three dollars fifty cents",
        "why",
        "he asked",
        "no full stop",
        "and a new line",
    ]


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_text_is_read_and_cut_off_text_is_an_error(tmp_path: Path, suffix, compress) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / f"a.txt{suffix}"
    packed = compress("\n".join(f"line {i}" for i in range(300)).encode())
    path.write_bytes(packed)
    assert len(list(sentences(path, "en"))) == 300
    path.write_bytes(packed[:-20])
    with pytest.raises(LanguageModelError, match=r"a\.txt"):
        list(sentences(path, "en"))


def test_what_is_no_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "no.xz").write_bytes(b"not compressed")
    for name in ("latin.txt", "no.xz", "gone.txt"):
        with pytest.raises(LanguageModelError, match=name):
            list(sentences(tmp_path / name, "en"))


# --- what is not learned from


def test_a_test_sentence_and_what_shares_eight_words_with_it_is_withheld() -> None:
    withheld, words = Withheld([VERSE, "yes"]), VERSE.split()
    assert VERSE in withheld and "yes" in withheld
    assert "yes sir" not in withheld
    assert "then " + " ".join(words[3:11]) + " again" in withheld
    assert "then " + " ".join(words[3:10]) + " again" not in withheld
    assert " ".join(words[3:10]) not in withheld  # seven words of it, and not a sentence of it
    assert "anything" not in Withheld([])


@given(st.lists(st.sampled_from("abc"), max_size=14), st.lists(st.sampled_from("abc"), max_size=14))
def test_runs_in_common_are_found_wherever_they_stand(first: list[str], second: list[str]) -> None:
    def runs(words: list[str]) -> set[str]:
        return {" ".join(words[i : i + 8]) for i in range(len(words) - 7)}

    assert (" ".join(second) in Withheld([" ".join(first)])) == (first == second or bool(runs(first) & runs(second)))


def test_text_is_learned_held_out_or_withheld(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    lines = [f"number {i}" for i in range(1000)] * 2 + ["a secret"] * 3
    text.write_text("\n".join(lines), encoding="utf-8")
    corpus = separate([text], Withheld(["a secret"]), "en", tmp_path / "learn", tmp_path / "hold")
    learned, held = ((tmp_path / name).read_text().splitlines() for name in ("learn", "hold"))
    assert (corpus.learned, corpus.held_out, corpus.withheld) == (len(learned), len(held), 3)
    assert len(learned) + len(held) == 2000 and 4 <= len(held) <= 60
    assert not set(learned) & set(held)  # each line comes twice, and both are on one side
    assert corpus.counts == Counter(word for line in learned for word in line.split())
    with pytest.raises(LanguageModelError, match=r"text\.txt: there is no text"):
        separate(
            [text],
            Withheld({"a secret", *(f"number {word}" for word in learned), *learned}),
            "en",
            tmp_path / "learn",
            tmp_path / "hold",
        )


# --- vocabulary


def test_frequent_words_come_first() -> None:
    assert most_frequent(Counter("bbbaaccd"), 3) == ["b", "a", "c"]
    assert most_frequent(Counter("cab"), 9) == ["a", "b", "c"]


def test_words_of_a_list_or_a_lexicon(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("the\nread\tR IY D\nread\tR EH D\n\nnaïve\n", encoding="utf-8")
    assert read_vocabulary(path) == ["the", "read", "naïve"]
    path.write_text("\n")
    with pytest.raises(LanguageModelError, match="holds no words"):
        read_vocabulary(path)
    with pytest.raises(LanguageModelError, match="gone"):
        read_vocabulary(tmp_path / "gone")


# --- how good a model is


def test_perplexity_is_that_of_known_words_and_ends(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(ARPA)
    pack(tmp_path / "lm.arpa", tmp_path / FILE)
    model = read(tmp_path / FILE)
    assert fit(model, ["cat"]) == Fit(1, 1, 0, pytest.approx(-0.1 - 0.2))
    assert fit(model, ["cat"]).perplexity == pytest.approx(10**0.15)
    both = fit(model, ["cat dog", "cow"])
    cat_dog, end_after_dog, end_after_unknown = -0.1 + (-0.25 - 0.6), -1.0, -1.0
    assert both == Fit(2, 3, 1, pytest.approx(cat_dog + end_after_dog + end_after_unknown))
    assert both.perplexity == pytest.approx(10 ** (2.95 / 4)) and both.unknown_rate == pytest.approx(1 / 3)
    assert fit(model, []).perplexity != fit(model, []).perplexity  # nan


# --- the whole


@needs_lmplz
def test_a_model_of_real_tools(tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "out"
    seen = "the dog number one sat on the log"
    built = build(
        [verses(tmp_path)],
        out,
        order=3,
        prune=[0],
        vocabulary=20,
        tests={"mine": [seen, "an aardvark"]},
        language="en",
        say=said.append,
    )
    words = built.vocabulary
    assert words[0] == "the" and len(words) == 20 and "aardvark" not in words
    assert (out / "vocabulary.txt").read_text().split() == words
    assert sorted(path.name for path in out.iterdir()) == [FILE, "vocabulary.txt"]
    model = read(out / FILE)
    assert fit(model, ["the cat sat on the mat"]).perplexity < 0.2 * fit(model, ["mat the on sat cat the"]).perplexity
    rare, never = (fit(model, [word]) for word in ("ninety", "walrus"))
    assert rare.log10 == never.log10 and "ninety" in verses(tmp_path).read_text()  # the model knows its vocabulary only
    assert "7 withheld" in said[0]  # the aardvark, and six of the seen
    assert set(built.fits) == {"text held out", "mine"}
    assert (built.fits["mine"].sentences, built.fits["mine"].words) == (2, 10)


@needs_lmplz
def test_pruning_makes_it_smaller(tmp_path: Path) -> None:
    text = verses(tmp_path)
    sizes = []
    for prune in ([0], [0, 100, 100]):
        build([text], tmp_path / "out", order=3, prune=prune, vocabulary=1000, tests={}, language="en")
        sizes.append((tmp_path / "out" / FILE).stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.fixture
def without_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "bin"


def test_missing_tools_are_told_of_before_the_text_is_read(tmp_path: Path, without_tools: Path) -> None:
    with pytest.raises(LanguageModelError, match="lmplz is not here"):
        build([tmp_path / "gone.txt"], tmp_path / "out", order=3, prune=[0], vocabulary=9, tests={}, language="en")
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_a_tool_that_fails_leaves_the_old_model(tmp_path: Path, without_tools: Path) -> None:
    (without_tools / "lmplz").write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked; echo No room. >&2; exit 1\n')
    (without_tools / "lmplz").chmod(0o755)
    out = tmp_path / "out"
    out.mkdir()
    (out / FILE).write_text("old")
    (out / "vocabulary.txt").write_text("old")
    with pytest.raises(LanguageModelError, match=r"lmplz failed: .*No room\."):
        build([verses(tmp_path)], out, order=4, prune=[0, 2], vocabulary=9, tests={}, language="en")
    assert {path.name: path.read_text() for path in out.iterdir()} == {FILE: "old", "vocabulary.txt": "old"}
    assert (tmp_path / "asked").read_text().startswith("--order 4 --prune 0 2 --limit_vocab_file")
