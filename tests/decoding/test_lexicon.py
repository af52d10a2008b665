import pytest

from asr.decoding.lexicon import WORDS_PER_SPELLING, Lexicon, build_trie
from asr.errors import CheckpointError
from asr.model.tokens import TokenSet

PHONEMES = TokenSet(("-", "|", "T", "UW", "R", "EH", "IY", "D"), "-", "|", (0.125,) * 8)
LETTERS = TokenSet(("-", " ", "'", "a", "d", "e", "o", "r", "t", "w"), "-", " ", (0.1,) * 10)
T, UW, R, EH, IY, D = range(2, 8)
READ = [("two", "T UW"), ("too", "T UW"), ("read", "R IY D"), ("to", "T UW"), ("read", "R EH D"), ("déjà", "D EH")]


def lexicon() -> Lexicon:
    return Lexicon([(word, spelling.split()) for word, spelling in READ], PHONEMES)


def write(tmp_path, text: str):
    path = tmp_path / "lexicon.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_words_keep_their_order_and_all_their_spellings(tmp_path):
    read = Lexicon.read(write(tmp_path, "".join(f"{word}\t{spelling}\n" for word, spelling in READ)), PHONEMES)
    assert read.words == ["two", "too", "read", "to", "déjà"]
    assert read.index == {word: i for i, word in enumerate(read.words)}
    assert read.of("read") == [(R, IY, D, 1), (R, EH, D, 1)]  # 1: every spelling ends with the boundary
    assert read.of("unheard") == []
    assert read.spellings == lexicon().spellings


@pytest.mark.parametrize("line", ["two T UW", "two\t", "\tT UW", "", "two\tT UX", "two\tT |", "two\tT - UW",
                                  "two\tt uw"])
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    path = write(tmp_path, f"too\tT UW\n{line}\nread\tR IY D\n")
    with pytest.raises(CheckpointError, match=r"lexicon.txt, line 2: "):
        Lexicon.read(path, PHONEMES)


def test_a_lexicon_without_words(tmp_path):
    with pytest.raises(CheckpointError, match="no words"):
        Lexicon.read(write(tmp_path, ""), PHONEMES)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "lexicon.txt").write_bytes(b"\xff\xfe\x00\x01\n\x80" * 10)
    with pytest.raises(CheckpointError, match="line 1"):
        Lexicon.read(tmp_path / "lexicon.txt", PHONEMES)


def test_spelled_in_letters():
    letters = lexicon().spelled_in_letters(LETTERS)
    assert letters.words == ["two", "too", "read", "to"]  # no é in these letters
    assert letters.of("two") == [(8, 9, 6, 1)]
    assert len(letters.spellings) == 4  # one a word, however it may be pronounced


def labels(trie, *spelling: int) -> list[int]:
    node = trie.search(list(spelling))
    return [] if node is None else list(node.labels)


def test_the_tree_knows_each_spelling_and_the_best_score_below():
    trie = build_trie(lexicon(), [-9.0, -8.0, -3.0, -0.5, -4.0], {})
    assert sorted(labels(trie, T, UW, 1)) == [0, 1, 3]
    assert labels(trie, R, IY, D, 1) == labels(trie, R, EH, D, 1) == [2]
    assert labels(trie, T, UW) == []
    assert trie.search([T, D]) is None
    assert trie.search([T]).max_score == pytest.approx(-0.5, abs=1e-2)  # flashlight adds homophones' scores up
    assert trie.search([R]).max_score == pytest.approx(-3.0)


def test_more_homophones_than_there_is_room_for(capfd):
    """flashlight drops the seventh with a line on stderr; here the commonest stay, quietly, and hot words go first."""
    words = [f"too{i}" for i in range(10)]
    many = Lexicon([(word, ("T", "UW")) for word in words], PHONEMES)
    scores = [-1.0] * len(words)
    assert labels(build_trie(many, scores, {}), T, UW, 1) == list(range(WORDS_PER_SPELLING))
    trie = build_trie(many, scores, {8: ([(T, UW, 1)], 2.0), 77: ([(T, UW, 1), (T, EH, 1)], 3.0)})
    assert labels(trie, T, UW, 1) == [8, 77, 0, 1, 2, 3]
    assert labels(trie, T, EH, 1) == [77]
    assert trie.search([T, EH]).max_score == pytest.approx(3.0)
    build_trie(many, scores, {i: ([(T, UW, 1)], 0.0) for i in range(20, 30)})
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_hot_word_replaces_its_lexicon_entry():
    trie = build_trie(lexicon(), [-1.0, -2.0, -3.0, -0.5, -4.0], {2: ([(R, EH, D, 1)], 1.0)})
    assert labels(trie, R, EH, D, 1) == [2] and labels(trie, R, IY, D, 1) == []
    assert trie.search([R]).max_score == pytest.approx(1.0)
