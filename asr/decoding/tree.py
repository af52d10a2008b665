"""The lexicon as the search walks it: a prefix tree of spellings, with the best score of a word below each node.

The tree is derived from `lexicon.txt` and the n-gram model. `asr lm` keeps it as a memory-mapped file beside them;
where that is missing, or `lexicon.txt` has changed since, it is built again on loading.

    token    (nodes,) uint8: token that leads to a node; node 0 is the root, children are neighbors, level by level
    first    (nodes + 1,) int32: the children of node i are first[i] … first[i + 1] - 1
    ahead    (nodes,) float32: log10 probability, on its own, of the likeliest word below ("look-ahead": Ortmanns & Ney
             2000, "Look-ahead techniques for fast beam search"); 0 at the root
    ends     (nodes + 1,) int32: the words that sound like the path to node i are labels[ends[i]:ends[i + 1]]
    labels   (spellings,) int32: word numbers
    numbers  (words,) int32: the n-gram model's number of each word
    words    uint8: the words in UTF-8, a line each
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from asr.decoding import layout, storage
from asr.decoding.lexicon import Lexicon, Spelling
from asr.decoding.ngram import NGram
from asr.errors import CheckpointError
from asr.model.tokens import TokenSet

FILE = "lexicon.safetensors"
ARRAYS: dict[str, type[np.generic]] = {
    "token": np.uint8,
    "first": np.int32,
    "ahead": np.float32,
    "ends": np.int32,
    "labels": np.int32,
    "numbers": np.int32,
    "words": np.uint8,
}


class LexiconTree:
    """`words[i]` is the word of number i; `arrays` are what the search takes."""

    def __init__(self, arrays: dict[str, np.ndarray], boundary: int) -> None:
        arrays = storage.frozen(arrays)
        self.words = storage.Words(arrays["words"])
        self.numbers, self.boundary = arrays["numbers"], boundary
        self.arrays = layout.Tree(**{name: arrays[name] for name in layout.Tree._fields})
        token, ahead, first, ends, labels = self.arrays
        if not (
            len(token) == len(ahead) == len(first) - 1 == len(ends) - 1
            and first[0] == 1
            and first[-1] == len(token)
            and ends[0] == 0
            and ends[-1] == len(labels)
            and (np.diff(first) >= 0).all()
            and (np.diff(ends) >= 0).all()
            and len(self.words) == len(self.numbers)
            and len(labels)
            and labels.min() >= 0
            and labels.max() < len(self.words)
        ):
            raise ValueError("its arrays do not belong together")

    @classmethod
    def build(cls, lexicon: Lexicon, ngram: NGram) -> LexiconTree:
        numbers = ngram.numbers(lexicon.words)
        unigrams = ngram.arrays.unigrams[numbers, 0]
        arrays = prefix_tree([(number, spelling, float(unigrams[number])) for number, spelling in lexicon.spellings])
        words = np.frombuffer("\n".join(lexicon.words).encode(), np.uint8)
        return cls({**arrays._asdict(), "numbers": numbers, "words": words}, lexicon.tokens.boundary_index)

    def write(self, path: Path, source: Path) -> None:
        """Beside the `lexicon.txt` that it was built from."""
        arrays = {**self.arrays._asdict(), "numbers": self.numbers, "words": self.words.text}
        storage.write(path, "lexicon", arrays, {"source": _stamp(source)})

    @classmethod
    def read(cls, path: Path, source: Path, ngram: NGram, tokens: TokenSet) -> LexiconTree | None:
        """None where `source`, the `lexicon.txt`, is no longer what the tree was built from. Raises CheckpointError."""
        arrays, facts = storage.read(path, "lexicon", ARRAYS)
        try:
            if facts["source"] != _stamp(source):
                return None
            tree = cls(arrays, tokens.boundary_index)
            numbers = tree.numbers
            if numbers.min() < 0 or numbers.max() >= len(ngram.words) or tree.arrays.token.max() >= len(tokens):
                raise ValueError("it is of another model")
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} is no usable lexicon ({error}): delete it, and it is built from {source.name}."
            ) from error
        return tree

    @cached_property
    def index(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def of(self, word: str) -> list[Spelling]:
        """All spellings of a word, none where it is not in the lexicon."""
        number = self.index.get(word, -1)
        nodes = np.searchsorted(self.arrays.ends, np.flatnonzero(self.arrays.labels == number), side="right") - 1
        return [self._path(int(node)) for node in nodes]

    def part(self, words: Collection[str], ngram: NGram) -> layout.Tree:
        """The tree of some words alone; those that are not in the lexicon are left out."""
        numbers = sorted(self.index[word] for word in words if word in self.index)
        scores = ngram.arrays.unigrams[self.numbers[numbers], 0].tolist()
        return prefix_tree(
            [
                (number, spelling, score)
                for number, score in zip(numbers, scores, strict=True)
                for spelling in self.of(self.words[number])
            ]
        )

    def _path(self, node: int) -> Spelling:
        path = [self.boundary]
        while node:
            path.append(int(self.arrays.token[node]))
            node = int(np.searchsorted(self.arrays.first, node, side="right")) - 1
        return tuple(reversed(path))


def load(source: Path, path: Path | None, ngram: NGram, tokens: TokenSet) -> LexiconTree:
    """The tree of a checkpoint: from its file, or built of `source` where that has none, or is newer.

    Raises CheckpointError.
    """
    if path and (tree := LexiconTree.read(path, source, ngram, tokens)):
        return tree
    return LexiconTree.build(Lexicon.read(source, tokens), ngram)


def prefix_tree(entries: Sequence[tuple[int, Spelling, float]]) -> layout.Tree:
    """From word numbers, spellings that end with the boundary, and log10 scores."""
    lengths = np.array([len(spelling) - 1 for _, spelling, _ in entries], np.int64)
    table = np.full((len(entries), int(lengths.max(initial=0))), -1, np.int16)
    for row, (_, spelling, _) in zip(table, entries, strict=True):
        row[: len(spelling) - 1] = spelling[:-1]
    sort = np.lexsort(table.T[::-1]) if table.size else np.arange(len(entries))
    table, lengths = table[sort], lengths[sort]
    labels = np.array([number for number, _, _ in entries], np.int32)[sort]
    scores = np.array([score for _, _, score in entries], np.float32)[sort]
    node = np.zeros(len(entries), np.int64)  # of the path so far, of each spelling
    new = np.zeros(len(entries), bool)  # whether the path differs from that of the spelling before
    new[:1] = True
    count, ending = 1, np.zeros(len(entries), np.int64)
    token, ahead, parents = [np.zeros(1, np.uint8)], [np.zeros(1, np.float32)], []
    for depth in range(table.shape[1]):
        new[1:] |= table[1:, depth] != table[:-1, depth]
        inside = lengths > depth  # the spellings of a path are neighbors, and the path itself comes first
        begins = np.flatnonzero(new & inside)
        token.append(table[begins, depth].astype(np.uint8))
        parents.append(node[begins])
        runs = np.flatnonzero(new[inside])
        ahead.append(np.maximum.reduceat(scores[inside], runs))
        node[inside] = count + np.cumsum(new[inside]) - 1
        count += len(begins)
        ending[lengths == depth + 1] = node[lengths == depth + 1]
    children = np.bincount(np.concatenate([np.zeros(0, np.int64), *parents]), minlength=count)
    by_node = np.argsort(ending, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(ending, minlength=count))])
    arrays: dict[str, np.ndarray] = {
        "token": np.concatenate(token),
        "ahead": np.concatenate(ahead),
        "labels": labels[by_node],
        "first": np.concatenate([[1], 1 + np.cumsum(children)]).astype(np.int32),
        "ends": ends.astype(np.int32),
    }
    return layout.Tree(**storage.frozen(arrays))


def _stamp(source: Path) -> str:
    data = source.read_bytes()
    return f"{len(data)}-{zlib.crc32(data):08x}"
