import pytest

from asr.decoding.lexicon import Lexicon
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


@pytest.mark.parametrize(
    "line", ["two T UW", "two\t", "\tT UW", "", "two\tT UX", "two\tT |", "two\tT - UW", "two\tt uw"]
)
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
