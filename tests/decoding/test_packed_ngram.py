"""The packed n-gram trie against backing off by the book, and its file against damage."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import ngram, storage
from asr.decoding.ngram import BEGIN, END, UNKNOWN, NGram, pack, pack_bits, quantize, read
from asr.errors import CheckpointError, LanguageModelError
from tests.support.language import Grams, ngram_of

WORDS = [UNKNOWN, BEGIN, END, "a", "b", "c"]


@st.composite
def models(draw) -> Grams:
    """Any n-gram whose parts are there too, with scores of a few values, so that 8 bits lose nothing."""
    order = draw(st.integers(1, 4))
    longest = draw(st.lists(st.lists(st.sampled_from(WORDS), min_size=order, max_size=order), max_size=12))
    grams = {(word,) for word in WORDS}
    for words in longest:
        grams |= {tuple(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    goes_on = {gram[:-1] for gram in grams}
    value = st.integers(-12, -1).map(lambda i: i / 4)
    return {gram: (draw(value), draw(value) if gram in goes_on else 0.0) for gram in sorted(grams)}


def by_the_book(grams: Grams, context: tuple[str, ...], word: str) -> float:
    if (*context, word) in grams or not context:
        return grams[(*context, word)][0]
    return grams.get(context, (0.0, 0.0))[1] + by_the_book(grams, context[1:], word)


@settings(max_examples=150)
@given(models(), st.lists(st.sampled_from(WORDS), max_size=8))
def test_scores_are_those_of_backing_off(grams: Grams, sentence: list[str]) -> None:
    model = ngram_of(grams)
    assert len(model) == len(grams) and model.order == max(map(len, grams))
    history, expected = (BEGIN, *sentence, END), []
    for i in range(1, len(history)):
        expected.append(by_the_book(grams, history[max(0, i - model.order + 1) : i], history[i]))
    assert model.scores(model.numbers(sentence)) == pytest.approx(expected, abs=1e-5)


def test_words_that_it_does_not_know() -> None:
    model = ngram_of({(word,): (-1.0 - i, 0.0) for i, word in enumerate(WORDS)})
    assert model.scores(model.numbers(["never", "a"])) == pytest.approx([-1.0, -4.0, -3.0])


def test_an_ngram_whose_part_is_missing() -> None:
    for parts in ([("a", "b")], [("b", "c")]):
        grams = {(word,): (-1.0, 0.0) for word in WORDS} | {gram: (-1.0, 0.0) for gram in [*parts, ("a", "b", "c")]}
        with pytest.raises(LanguageModelError, match="of order 3 is there without"):
            ngram_of(grams)


@given(st.lists(st.integers(0, 2**17 - 1), max_size=200))
def test_bits_are_packed_one_after_the_other(values: list[int]) -> None:
    packed = pack_bits(np.array(values, np.int64), 17)
    whole = sum(int(word) << (64 * i) for i, word in enumerate(packed))
    assert [(whole >> (17 * i)) & (2**17 - 1) for i in range(len(values))] == values


def test_eight_bits_are_near_any_value() -> None:
    values = np.random.default_rng(0).gamma(2.0, 1.0, 20_000).astype(np.float32)
    table, codes = quantize(values, 256)
    assert np.abs(table[codes] - values).mean() < 0.01 and (np.diff(table) >= 0).all()
    few = np.array([1.0, 2.0, 2.0, 7.0], np.float32)
    table, codes = quantize(few, 256)
    np.testing.assert_array_equal(table[codes], few)


ARPA = """
\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-2\t<unk>\t0
0\t<s>\t-0.5
-1\t</s>
-0.4\tcat\t-0.25
-0.6\tdog\t-0.125

\\2-grams:
-0.1\t<s> cat\t-0.75
-0.3\tcat dog\t0
-0.2\tcat </s>

\\3-grams:
-0.05\t<s> cat dog

\\end\\
"""


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA)
    pack(tmp_path / "lm.arpa", tmp_path / ngram.FILE)
    return tmp_path / ngram.FILE


def test_from_arpa_to_a_file_and_back(packed) -> None:
    model = read(packed)
    assert list(model.words) == [UNKNOWN, BEGIN, END, "cat", "dog"]
    assert model.scores(model.numbers(["cat", "dog"])) == pytest.approx([-0.1, -0.05, -0.125 - 1])
    assert model.scores(model.numbers(["cat", "cat"])) == pytest.approx([-0.1, -0.75 - 0.25 - 0.4, -0.2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: text.index("\\2-grams") + 30],
        lambda text: text.replace("-0.3\tcat dog\t0", "-0.3\tcat cow\t0"),
        lambda text: text.replace("-0.3\tcat dog\t0", "x\tcat dog\t0"),
        lambda text: text.replace("ngram 2=3", "ngram 2=4"),
        lambda text: text.replace("-0.6\tdog\t-0.125", "-0.6"),
    ],
)
def test_what_is_no_whole_arpa_file(tmp_path, damage) -> None:
    (tmp_path / "lm.arpa").write_text(damage(ARPA))
    with pytest.raises(LanguageModelError, match=r"lm\.arpa is not a whole ARPA file"):
        pack(tmp_path / "lm.arpa", tmp_path / ngram.FILE)
    assert not (tmp_path / ngram.FILE).exists()


def test_an_ngram_takes_less_than_five_and_a_half_bytes() -> None:
    chance = np.random.default_rng(1)
    size, pairs = 20_000, 100_000
    words = [UNKNOWN, BEGIN, END, *map(str, range(size - 3))]
    keys = np.unique(chance.integers(0, size, (pairs, 2)), axis=0).astype(np.int32)
    tables = [
        (np.arange(size, dtype=np.int32)[:, None], *np.zeros((2, size), np.float32)),
        (keys, *np.zeros((2, len(keys)), np.float32)),
    ]
    arrays = ngram.arrays_of(words, tables)
    taken = sum(array.nbytes for name, array in arrays.items() if name not in ("unigrams", "first", "vocabulary"))
    assert taken / len(keys) < 3.2  # 15 bits of word, 8 of probability


def damaged(data: bytes, chance: np.random.Generator) -> bytes:
    kind = chance.integers(4)
    place = int(chance.integers(len(data)))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data + bytes(int(chance.integers(1, 100)))
    if kind == 2:
        return data[:place] + bytes([data[place] ^ (1 << int(chance.integers(8)))]) + data[place + 1 :]
    return data[:place] + chance.bytes(int(chance.integers(1, 64))) + data[place:]


def test_any_damage_to_the_file_is_a_sentence(packed) -> None:
    chance, whole = np.random.default_rng(2), packed.read_bytes()
    for _ in range(400):
        data = damaged(whole, chance)
        packed.write_bytes(data)
        if data != whole:
            with pytest.raises(CheckpointError, match=r"ngram\.safetensors is"):
                read(packed)


def test_damage_that_the_checksum_hides_stays_inside(packed, tmp_path) -> None:
    """Any content of arrays of the right sizes may score as it likes, but reads nothing that is not there."""
    chance = np.random.default_rng(3)
    arrays, _ = storage.read(packed, "ngram", ngram.ARRAYS)
    for _ in range(150):
        broken = {name: array.copy() for name, array in arrays.items()}
        for name in ("shape", "zeros", "ones", "first", "words", "back_offs", "probabilities"):
            if chance.random() < 0.5 and broken[name].nbytes:
                data = broken[name].view(np.uint8)
                data[:] = np.frombuffer(chance.bytes(data.size), np.uint8).reshape(data.shape)
        storage.write(tmp_path / "broken", "ngram", broken)
        try:
            model = read(tmp_path / "broken")
        except CheckpointError:
            continue
        assert len(model.scores(chance.integers(0, len(model.words), 50).astype(np.int32))) == 51


def test_files_are_safetensors(packed) -> None:
    from safetensors.numpy import load_file

    arrays = load_file(packed)
    assert set(arrays) == set(ngram.ARRAYS) and arrays["base"].tolist() == [1, 6, 9, 10]


def test_a_file_of_another_kind_or_format(packed, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="it holds ngram"):
        storage.read(packed, "lexicon", ngram.ARRAYS)
    data = packed.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["format"] = "2"
    text = json.dumps(header).encode()
    packed.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    with pytest.raises(CheckpointError, match="format 2"):
        read(packed)
    with pytest.raises(CheckpointError, match="gone"):
        read(tmp_path / "gone")


def test_mapped_arrays_are_not_copied_and_not_writable(packed) -> None:
    model = read(packed)
    assert isinstance(model, NGram)
    for array in model.arrays:
        assert not array.flags.owndata and not array.flags.writeable
