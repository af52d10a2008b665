"""Words and their spellings in a head's tokens, as `lexicon.txt` has them.

A word's spelling is its phonemes (or its letters, where a checkpoint has no phonemes) plus the word boundary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from asr.errors import CheckpointError
from asr.model.tokens import TokenSet

Spelling = tuple[int, ...]


def read_spellings(path: Path, known: Collection[str] | None = None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A word and its symbols for each line `word TAB symbol symbol …`.

    Raises OSError, and CheckpointError naming a line that is no such line, or has a symbol that is not in `known`.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            word, _, spelling = line.rstrip("\n").partition("\t")
            symbols = tuple(spelling.split())
            if not word or not symbols or (known is not None and not all(each in known for each in symbols)):
                raise CheckpointError(
                    f"{path}, line {number}: '{line.strip():.60}' is not a word, a tab and "
                    f"tokens that the checkpoint knows."
                )
            yield word, symbols


class Lexicon:
    """`words[i]` is the word of index i; `spellings` holds (word index, token indices), commonest words first."""

    def __init__(self, entries: Iterable[tuple[str, Iterable[str]]], tokens: TokenSet) -> None:
        index = {symbol: i for i, symbol in enumerate(tokens.symbols)}
        self.tokens = tokens
        self.index: dict[str, int] = {}
        self.spellings: list[tuple[int, Spelling]] = []
        for word, symbols in entries:
            number = self.index.setdefault(word, len(self.index))
            self.spellings.append((number, (*(index[symbol] for symbol in symbols), tokens.boundary_index)))
        self.words = list(self.index)

    @classmethod
    def read(cls, path: Path, tokens: TokenSet) -> Lexicon:
        """A file of `word TAB token token …` lines. Raises CheckpointError naming the line that is not one."""
        entries = list(read_spellings(path, set(tokens.symbols) - {tokens.blank, tokens.boundary}))
        if not entries:
            raise CheckpointError(f"{path} holds no words.")
        return cls(entries, tokens)

    def spelled_in_letters(self, tokens: TokenSet) -> Lexicon:
        """The same words, written in the characters of another token set; those it cannot write are left out."""
        known = set(tokens.symbols) - {tokens.blank, tokens.boundary}
        return Lexicon(((word, word) for word in self.words if known.issuperset(word)), tokens)

    def of(self, word: str) -> list[Spelling]:
        """All spellings of a word, none where it is not in the lexicon."""
        number = self.index.get(word)
        return [] if number is None else [spelling for other, spelling in self.spellings if other == number]
