"""The lexicon's prefix tree: built, kept in a file, and built again where the lexicon has changed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import layout
from asr.decoding.lexicon import Lexicon
from asr.decoding.tree import LexiconTree, load, prefix_tree
from asr.errors import CheckpointError
from asr.model.tokens import TokenSet
from tests.support.language import bigram_model

PHONEMES = TokenSet(("-", "|", "T", "UW", "R", "EH", "IY", "D"), "-", "|", (0.125,) * 8)
T, UW, R, EH, IY, D = range(2, 8)
READ = [("two", "T UW"), ("too", "T UW"), ("read", "R IY D"), ("to", "T UW"), ("read", "R EH D"), ("déjà", "D EH")]
SCORES = {"two": -9.0, "too": -8.0, "read": -3.0, "to": -0.5, "déjà": -4.0}


def find(tree: layout.Tree, spelling) -> int | None:
    node = layout.ROOT
    for token in spelling:
        children = range(tree.first[node], tree.first[node + 1])
        node = next((child for child in children if tree.token[child] == token), None)
        if node is None:
            return None
    return node


def labels(tree: layout.Tree, *spelling: int) -> list[int]:
    node = find(tree, spelling)
    return [] if node is None else tree.labels[tree.ends[node] : tree.ends[node + 1]].tolist()


def lexicon() -> Lexicon:
    return Lexicon([(word, spelling.split()) for word, spelling in READ], PHONEMES)


def scored(scores) -> layout.Tree:
    return prefix_tree([(number, spelling, scores[number]) for number, spelling in lexicon().spellings])


def test_the_tree_knows_each_spelling_and_the_best_score_below():
    tree = scored(list(SCORES[word] for word in lexicon().words))
    assert sorted(labels(tree, T, UW)) == [0, 1, 3]
    assert labels(tree, R, IY, D) == labels(tree, R, EH, D) == [2]
    assert labels(tree, T) == []
    assert find(tree, [T, D]) is None
    assert tree.ahead[find(tree, [T])] == pytest.approx(-0.5)
    assert tree.ahead[find(tree, [R])] == pytest.approx(-3.0)
    assert tree.ahead[layout.ROOT] == 0.0


def test_all_homophones_are_there(capfd):
    tree = prefix_tree([(i, (T, UW, 1), -1.0 * i) for i in range(10)])
    assert labels(tree, T, UW) == list(range(10))
    assert tree.ahead[find(tree, [T])] == 0.0


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=4), max_size=12))
def test_every_spelling_is_found_and_nothing_else(spellings):
    entries = [(i, (*spelling, 1), -float(i)) for i, spelling in enumerate(spellings)]
    tree = prefix_tree(entries)
    for length in range(1, 5):
        for spelling in itertools.product(range(2, 6), repeat=length):
            assert labels(tree, *spelling) == [i for i, each in enumerate(spellings) if tuple(each) == spelling]
            below = [-i for i, each in enumerate(spellings) if tuple(each[:length]) == spelling]
            node = find(tree, spelling)
            assert (node is None) == (not below) and (node is None or tree.ahead[node] == max(below))
    assert len(tree.labels) == len(spellings) and tree.first[-1] == len(tree.token)


@pytest.fixture
def files(tmp_path):
    source = tmp_path / "lexicon.txt"
    source.write_text("".join(f"{word}\t{spelling}\n" for word, spelling in READ), encoding="utf-8")
    model = bigram_model(list(SCORES), {}, -1.0)
    load(source, None, model, PHONEMES).write(tmp_path / "lexicon.safetensors", source)
    return source, tmp_path / "lexicon.safetensors", model


def test_a_file_holds_the_same_tree(files):
    source, path, model = files
    built, mapped = load(source, None, model, PHONEMES), LexiconTree.read(path, source, model, PHONEMES)
    assert list(mapped.words) == list(built.words) == lexicon().words
    for one, other in zip(built.arrays, mapped.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    for word in [*SCORES, "unheard"]:
        assert sorted(mapped.of(word)) == sorted(lexicon().of(word))
    np.testing.assert_array_equal(mapped.numbers, [model.index[word] for word in mapped.words])


def test_a_changed_lexicon_is_read_anew(files):
    source, path, model = files
    with source.open("a", encoding="utf-8") as file:
        file.write("deed\tD IY D\n")
    assert LexiconTree.read(path, source, model, PHONEMES) is None
    assert load(source, path, model, PHONEMES).of("deed") == [(D, IY, D, 1)]


def test_a_damaged_tree_is_a_sentence(files):
    source, path, model = files
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"lexicon\.safetensors is damaged"):
        load(source, path, model, PHONEMES)


def test_a_tree_of_another_model_is_a_sentence(files):
    source, path, _ = files
    with pytest.raises(CheckpointError, match=r"lexicon\.safetensors is no usable lexicon.*delete it"):
        load(source, path, bigram_model(["one"], {}, -1.0), PHONEMES)
