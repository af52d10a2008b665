"""The n-gram language model that the search asks: a bit-packed trie in a memory-mapped file.

N-grams lie with their last word at the root: "the old cat" hangs at cat, old, the. So one walk down finds the longest
n-gram that the model has, and everything that backing off needs lies on it. Nodes are numbered level by level, the
children of each sorted by word, and the shape of the trie is two bits a node (LOUDS: Jacobson 1989, "Space-efficient
static trees and graphs"): for each node a one for each child, then a zero. Children, and parents too, are found by
counting. A node takes its word's bits, 8 bits of probability and, below the highest order, 8 bits of back-off.

    base               (N + 1,) int64: first node of each order; the root is 0, word w is node w + 1
    unigrams           (V, 2) float32: log10 probability and back-off of the words
    probabilities      uint8, of the other nodes, and
    back_offs          uint8, of those below order N, as indices into
    probability_table, back_off_table   (N - 1, 256) float32: log10; back-off 0 is that of a node where nothing goes on
    words              bit-packed in uint64, of the nodes of order 2 and more
    first              (V + 2,) uint32: first child of word w at first[w + 1], since words have many
    shape              the ones and zeros of orders 2 to N - 1 in uint64, and the places of every 64th
    zeros, ones        uint32
    vocabulary         uint8: the words in UTF-8, a line each
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from asr.decoding import layout, storage
from asr.decoding.compiling import library
from asr.errors import CheckpointError, LanguageModelError

FILE = "ngram.safetensors"
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
LINES = 1 << 17  # of an ARPA file that are read at once
ARRAYS: dict[str, type[np.generic]] = {
    "base": np.int64,
    "unigrams": np.float32,
    "probabilities": np.uint8,
    "back_offs": np.uint8,
    "probability_table": np.float32,
    "back_off_table": np.float32,
    "words": np.uint64,
    "first": np.uint32,
    "shape": np.uint64,
    "zeros": np.uint32,
    "ones": np.uint32,
    "vocabulary": np.uint8,
}
Table = tuple[np.ndarray, np.ndarray, np.ndarray]  # of an order: words (n, order), log10 probabilities, back-offs (n,)


class NGram:
    """A packed n-gram model: `arrays` are what the search takes."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        arrays = storage.frozen(arrays)
        self.words = storage.Words(arrays["vocabulary"])
        self.arrays = layout.NGram(**{name: arrays[name] for name in layout.NGram._fields})
        if len(self.words) != len(self.arrays.unigrams):
            raise ValueError("its words are not those of its n-grams")
        words = list(self.words)
        self.begin = words.index(BEGIN) + 1  # the state before the first word
        self.end, self.unknown = words.index(END), words.index(UNKNOWN)

    @cached_property
    def index(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @property
    def order(self) -> int:
        return len(self.arrays.base) - 1

    def __len__(self) -> int:
        """How many n-grams of all orders."""
        return int(self.arrays.base[-1]) - 1

    def numbers(self, words: Sequence[str]) -> np.ndarray:
        """The model's numbers of words, (n,) int32."""
        return np.array([self.index.get(word, self.unknown) for word in words], np.int32)

    def scores(self, numbers: np.ndarray) -> list[float]:
        """log10 probability of each word of a sentence, given as numbers, and of the sentence's end."""
        sentence = layout.Sentence.of(numbers, len(self.arrays.base))
        library().score_sentence(layout.table(self.arrays), layout.table(sentence), self.begin, self.end)
        return [float(p) for p in sentence.scores]


def read(path: Path) -> NGram:
    """Raises CheckpointError where the file is missing, damaged or none of these."""
    arrays, _ = storage.read(path, "ngram", ARRAYS)
    try:
        _check(arrays)
        return NGram(arrays)
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is no usable n-gram model ({error}): copy the checkpoint again.") from error


def _check(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError where the search could reach beyond an array."""
    base = arrays["base"]
    order, size, inner = len(base) - 1, int(base[1]) - 1, int(base[-2] - base[1]) if len(base) > 2 else 0
    bits = int(base[-1] - base[1]) * max(1, (size - 1).bit_length())
    shapes = {
        "unigrams": (size, 2),
        "first": (size + 2,),
        "words": (-(-bits // 64) + 1,),
        "probabilities": (base[-1] - base[1],),
        "probability_table": (order - 1, 256),
        "back_offs": (inner,),
        "back_off_table": (order - 1, 256),
    }
    if (
        base[0] != 1
        or size < 1
        or (np.diff(base) < 0).any()
        or any(arrays[k].shape != v for k, v in shapes.items())
        or not len(arrays["zeros"])
        or not len(arrays["ones"])
        or (inner and not len(arrays["shape"]))
    ):
        raise ValueError("its arrays do not belong together")


def pack(arpa: Path, path: Path) -> None:
    """Turn an ARPA file, as KenLM's lmplz writes it, into the packed file. Raises LanguageModelError.

    Needs about 60 bytes of memory for each n-gram.
    """
    try:
        vocabulary, tables = read_arpa(arpa)
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise LanguageModelError(f"{arpa} is not a whole ARPA file ({error!r:.100}): estimate it again.") from error
    storage.write(path, "ngram", arrays_of(vocabulary, tables))


def read_arpa(path: Path) -> tuple[list[str], list[Table]]:
    """The vocabulary, and a table for each order."""
    with path.open(encoding="utf-8") as lines:
        counts: list[int] = []
        for line in lines:
            if line.startswith("ngram "):
                counts.append(int(line.partition("=")[2]))
            elif line.startswith("\\1-grams"):
                break
        index: dict[str, int] = {}
        tables = []
        for order, count in enumerate(counts, 1):
            while order > 1 and not next(lines).startswith(f"\\{order}-grams"):
                pass
            words, values = np.empty((count, order), np.int32), np.zeros((count, 2), np.float32)
            done = 0
            for fields in _fields(lines, count, order):
                if order == 1:
                    index |= {word: done + i for i, word in enumerate(fields[1])}
                size = len(fields[0])
                for k in range(order):
                    words[done : done + size, k] = [index[word] for word in fields[k + 1]]
                for k, column in enumerate((fields[0], fields[order + 1])):
                    values[done : done + size, k] = list(map(float, column))
                done += size
            if done != count:
                raise ValueError(f"{done} of {count} n-grams of order {order}")
            tables.append((words, values[:, 0], values[:, 1]))
    return list(index), tables


def _fields(lines: Iterator[str], count: int, order: int) -> Iterator[list[list[str]]]:
    """Columns of the next `count` lines, in parts: probabilities, words, back-offs ("0" where a line has none)."""
    for first in range(0, count, LINES):
        part = list(islice(lines, min(LINES, count - first)))
        fields = " ".join(part).split()
        if len(fields) != (order + 2) * len(part):  # some or all lines have no back-off
            rows = [line.split() for line in part]
            fields = [field for row in rows for field in (*row, "0")[: order + 2]]
        if len(fields) != (order + 2) * len(part):
            raise ValueError(f"a line of order {order} that is none")
        yield [fields[k :: order + 2] for k in range(order + 2)]


def arrays_of(vocabulary: Sequence[str], tables: Sequence[Table]) -> dict[str, np.ndarray]:
    """The trie of the n-grams. Raises LanguageModelError where an n-gram's own last or first words are missing."""
    order, size = len(tables), len(vocabulary)
    width = max(1, (size - 1).bit_length())
    base = np.cumsum([1, *(len(words) for words, _, _ in tables)])
    shift = np.uint64(32)
    keys: list[np.ndarray] = []  # of orders 2, 3, …: parent, counted within its order, and word; ascending
    tables = list(tables)

    def find(words: np.ndarray) -> np.ndarray:
        """Rows of words (n, k) → their nodes, counted within order k."""
        found = words[:, -1].astype(np.uint64)
        for k in range(1, words.shape[1]):
            key = (found << shift) | words[:, -1 - k].astype(np.uint64)
            place = np.minimum(np.searchsorted(keys[k - 1], key), len(keys[k - 1]) - 1)
            if not len(keys[k - 1]) or (keys[k - 1][place] != key).any():
                raise LanguageModelError(
                    f"An n-gram of order {k + 2} is there without its beginning or its end of "
                    f"order {k + 1}: estimate the model with KenLM's lmplz."
                )
            found = place.astype(np.uint64)
        return found

    codes: list[tuple[np.ndarray, np.ndarray]] = []
    children = []
    probability_table, back_off_table = np.zeros((2, order - 1, 256), np.float32)
    packed = [np.zeros(0, np.int32)]
    for k in range(1, order):
        words, probabilities, back_offs = tables[k]
        parents = find(words[:, 1:])
        key = (parents << shift) | words[:, 0].astype(np.uint64)
        sort = np.argsort(key, kind="stable")
        keys.append(key[sort])
        children.append(np.bincount(parents.astype(np.int64), minlength=len(tables[k - 1][0])))
        tables[k] = words, probabilities, back_offs = words[sort], probabilities[sort], back_offs[sort]
        packed.append(words[:, 0])
    for k in range(1, order):
        words, probabilities, back_offs = tables[k]
        probability_table[k - 1], code = quantize(probabilities, 256)
        goes_on = np.zeros(len(words), bool)
        back_off_code = np.zeros(0, np.uint8)
        if k + 1 < order:
            goes_on[find(tables[k + 1][0][:, :-1]).astype(np.int64)] = True
            back_off_table[k - 1, 1:], chosen = quantize(back_offs[goes_on], 255)
            back_off_code = np.zeros(len(words), np.uint8)
            back_off_code[goes_on] = chosen + 1
        codes.append((code, back_off_code))
    empty = [np.zeros(0, np.uint8)]
    counts = np.concatenate([np.zeros(0, np.int64), *children[1:]])
    bits = np.ones(counts.sum() + len(counts), np.uint8)
    bits[np.cumsum(counts) + np.arange(len(counts))] = 0  # after each node's ones
    first = base[1] + np.concatenate([[0, 0], np.cumsum(children[0] if children else np.zeros(size, np.int64))])
    return {
        "base": base.astype(np.int64),
        "unigrams": np.stack(tables[0][1:], axis=1).astype(np.float32),
        "probabilities": np.concatenate([code for code, _ in codes] + empty),
        "back_offs": np.concatenate([code for _, code in codes] + empty),
        "probability_table": probability_table,
        "back_off_table": back_off_table,
        "words": pack_bits(np.concatenate(packed), width),
        "first": first.astype(np.uint32),
        "shape": pack_bits(bits, 1),
        "zeros": _every(bits == 0),
        "ones": _every(bits == 1),
        "vocabulary": np.frombuffer("\n".join(vocabulary).encode(), np.uint8),
    }


def _every(chosen: np.ndarray) -> np.ndarray:
    """Places of every `SAMPLED`-th chosen bit, and at least one."""
    return np.append(np.flatnonzero(chosen)[:: layout.SAMPLED], len(chosen)).astype(np.uint32)


def quantize(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) → a table (bins,) and the number of each value in it (n,) uint8: bins of equal numbers of values, refined so
    that each value goes to the nearest mean (Lloyd 1982, "Least squares quantization in PCM")."""
    if not len(values):
        return np.zeros(bins, np.float32), np.zeros(0, np.uint8)
    ordered = np.sort(values.astype(np.float64))
    few = ordered[np.flatnonzero(np.diff(ordered, prepend=-np.inf))]  # each value once
    if len(few) <= bins:
        table = np.pad(few, (0, bins - len(few)), mode="edge").astype(np.float32)
        return table, np.searchsorted(few.astype(np.float32), values).astype(np.uint8)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    means = ordered[(np.arange(bins) * len(values) + len(values) // 2) // bins]
    for _ in range(20):
        edges = np.concatenate([[0], np.searchsorted(ordered, (means[1:] + means[:-1]) / 2), [len(values)]])
        counts = np.diff(edges)
        means = np.sort(np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), means))
    return means.astype(np.float32), np.searchsorted((means[1:] + means[:-1]) / 2, values).astype(np.uint8)


def pack_bits(values: np.ndarray, width: int) -> np.ndarray:
    """Numbers (n,) below 2^width → uint64, one after the other from the lowest bit, and 64 bits more."""
    parts = []
    places = np.arange(width)
    for first in range(0, len(values), 1 << 18):  # a multiple of 64 numbers fills whole words
        bits = ((values[first : first + (1 << 18), None] >> places) & 1).astype(np.uint8).ravel()
        parts.append(np.packbits(np.pad(bits, (0, -len(bits) % 64)), bitorder="little").view(np.uint64))
    return np.concatenate([*parts, np.zeros(1, np.uint64)])
