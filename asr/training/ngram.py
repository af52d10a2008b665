"""Text → an n-gram language model and its lexicon: `asr lm`.

Text (plain, .gz, .bz2 or .xz) → sentences as they are said → the most frequent words → KenLM's lmplz, which estimates
with modified Kneser-Ney smoothing on disk (Heafield et al. 2013, "Scalable modified Kneser-Ney language model
estimation", ACL) → a packed trie. Text is streamed; memory holds the counts of words, and while packing some 60 bytes
for each n-gram.

    ngram.safetensors     the model (asr.decoding.ngram)
    vocabulary.txt        its words, most frequent first
    lexicon.txt           their spellings in the checkpoint's tokens (asr.training.dictionary)
    lexicon.safetensors   the prefix tree of the spellings (asr.decoding.tree)
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from asr.atomic import replacing
from asr.audio.manifest import by_corpus, of_split
from asr.decoding.lexicon import Lexicon
from asr.decoding.ngram import FILE, NGram, pack, read
from asr.decoding.tree import FILE as TREE
from asr.decoding.tree import LexiconTree
from asr.errors import LanguageModelError
from asr.model.checkpoint import record
from asr.model.tokens import TokenSet
from asr.text.normalize import normalize
from asr.training import kenlm_tools

HELD_OUT = 100  # one of so many sentences is not learned from and measures the model
HELD_OUT_TEXT = "text held out"
IN_COMMON_WORDS = 8  # in a row, which show that two sentences are from the same place
MEMORY = "1G"  # of KenLM's sorting; more than that goes through the disk
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# A full stop after a title ends no sentence.
SENTENCE_END = re.compile(r"[.!?…](?<!\bMr.)(?<!\bMrs.)(?<!\bMs.)(?<!\bDr.)(?<!\bSt.)[\"'”’)\]]*\s+")

Say = Callable[[str], None]


def sentences(path: Path, language: str) -> Iterator[str]:
    """The normalized sentences of a UTF-8 text; the end of a line ends a sentence too. Raises LanguageModelError."""
    try:
        with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield from filter(None, (normalize(part, language) for part in SENTENCE_END.split(line)))
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise LanguageModelError(f"{path} cannot be read as text in UTF-8 ({error}): give another file.") from error


class Withheld:
    """Sentences that the model must not have seen: those of a test set, and what shares `IN_COMMON_WORDS` words with
    them."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.whole = set(sentences)
        self.runs = {run for sentence in self.whole for run in _runs(sentence)}

    def __contains__(self, sentence: str) -> bool:
        return sentence in self.whole or not self.runs.isdisjoint(_runs(sentence))


def _runs(sentence: str) -> Iterator[tuple[str, ...]]:
    words = sentence.split()
    return zip(*(islice(words, first, None) for first in range(IN_COMMON_WORDS)), strict=False)


@dataclass
class Corpus:
    """What was read: how often each word to be learned from occurs, and numbers of sentences by their use."""

    counts: Counter[str] = field(default_factory=Counter)
    learned: int = 0
    held_out: int = 0
    withheld: int = 0


def separate(paths: Sequence[Path], withheld: Withheld, language: str, learn: Path, hold: Path) -> Corpus:
    """Write the sentences to learn from, and those held out, a line each. Equal sentences are always on one side.

    Raises LanguageModelError for a text that cannot be read, and where nothing is left.
    """
    corpus = Corpus()
    with learn.open("w", encoding="utf-8") as learned, hold.open("w", encoding="utf-8") as held:
        for path in paths:
            for sentence in sentences(path, language):
                if sentence in withheld:
                    corpus.withheld += 1
                elif zlib.crc32(sentence.encode()) % HELD_OUT == 0:
                    corpus.held_out += 1
                    held.write(sentence + "\n")
                else:
                    corpus.learned += 1
                    corpus.counts.update(sentence.split())
                    learned.write(sentence + "\n")
    if not corpus.learned:
        raise LanguageModelError(f"{', '.join(map(str, paths))}: there is no text to learn from.")
    return corpus


def read_tests(manifests: Sequence[Path], split: str, language: str) -> dict[str, list[str]]:
    """The sentences of each corpus of the manifests, normalized. Raises ManifestError."""
    return {
        f"{manifest.stem}, {corpus}": [normalize(each.text, language) for each in members]
        for manifest in manifests
        for corpus, members in by_corpus(of_split(manifest, split)).items()
    }


def most_frequent(counts: Counter[str], size: int) -> list[str]:
    """The vocabulary; words as frequent as one another in alphabetical order."""
    return sorted(counts, key=lambda word: (-counts[word], word))[:size]


def read_vocabulary(path: Path) -> list[str]:
    """The first field of each line: a list of words, or a lexicon. Raises LanguageModelError where there is none."""
    try:
        words = list(
            dict.fromkeys(line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        )
    except (OSError, UnicodeDecodeError) as error:
        raise LanguageModelError(f"The vocabulary {path} cannot be read ({error}): give words, one a line.") from error
    if not words:
        raise LanguageModelError(f"The vocabulary {path} holds no words.")
    return words


def estimate(text: Path, vocabulary: Path, order: int, prune: Sequence[int], model: Path) -> None:
    """The n-gram model of a file of sentences, over a file of words. Raises LanguageModelError."""
    with tempfile.TemporaryDirectory(dir=model.parent) as name:
        arpa = Path(name) / "lm.arpa"
        kenlm_tools.call(
            "--order",
            order,
            "--prune",
            *prune,
            "--limit_vocab_file",
            vocabulary,
            "--discount_fallback",
            "--memory",
            MEMORY,
            "--temp_prefix",
            f"{name}/",
            "--text",
            text,
            "--arpa",
            arpa,
        )
        pack(arpa, model)


@dataclass
class Fit:
    """How well a model predicts text. Its perplexity is that of known words and ends of sentences."""

    sentences: int = 0
    words: int = 0
    unknown: int = 0
    log10: float = 0.0

    @property
    def perplexity(self) -> float:
        told = self.words - self.unknown + self.sentences
        return 10 ** (-self.log10 / told) if told else float("nan")

    @property
    def unknown_rate(self) -> float:
        return self.unknown / self.words if self.words else float("nan")


def fit(model: NGram, sentences: Iterable[str]) -> Fit:
    """How well a model predicts sentences."""
    found = Fit()
    for sentence in sentences:
        numbers = model.numbers(sentence.split())
        scores = np.array(model.scores(numbers))
        known = numbers != model.unknown
        found.sentences += 1
        found.words += len(numbers)
        found.unknown += int((~known).sum())
        found.log10 += float(scores[:-1][known].sum() + scores[-1])
    return found


@dataclass
class Built:
    """An n-gram model's vocabulary, most frequent words first, and how well it predicts each text that it has not
    seen."""

    vocabulary: list[str]
    fits: dict[str, Fit]


def build(
    texts: Sequence[Path],
    folder: Path,
    *,
    order: int,
    prune: Sequence[int],
    vocabulary: int | list[str],
    tests: Mapping[str, Sequence[str]],
    language: str,
    say: Say = lambda line: None,
) -> Built:
    """Write the model and `vocabulary.txt`; both appear when all is done.

    Args:
        order: words of the longest n-gram.
        prune: an n-gram seen no more often than its order's count is left out.
        vocabulary: how many words, or which.
        tests: sentences by name, which are withheld and measured, as is text held out.

    Raises LanguageModelError.
    """
    kenlm_tools.find()  # a missing one is reported before the text is read
    with (
        replacing(folder / FILE) as model,
        replacing(folder / "vocabulary.txt") as listed,
        tempfile.TemporaryDirectory(dir=folder) as name,
    ):
        learn, hold = Path(name) / "learn.txt", Path(name) / "hold.txt"
        withheld = Withheld(sentence for members in tests.values() for sentence in members)
        corpus = separate(texts, withheld, language, learn, hold)
        words = most_frequent(corpus.counts, vocabulary) if isinstance(vocabulary, int) else vocabulary
        listed.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        total = corpus.counts.total()
        covered = sum(corpus.counts[word] for word in words)
        say(
            f"Text: {corpus.learned} sentences, {total} words, {len(corpus.counts)} different; {corpus.held_out} "
            f"sentences held out, {corpus.withheld} withheld."
        )
        say(f"Vocabulary: {len(words)} words, {100 * covered / total:.2f} % of the text.")
        estimate(learn, listed, order, prune, model)
        say(f"Model: order {order}, pruned {' '.join(map(str, prune))}, {model.stat().st_size / 1e6:.1f} MB.")
        ngram = read(model)
        with hold.open(encoding="utf-8") as held:
            fits = {HELD_OUT_TEXT: fit(ngram, (line.rstrip("\n") for line in held))}
        fits |= {title: fit(ngram, members) for title, members in tests.items()}
    record(folder, FILE)
    return Built(words, fits)


def write_tree(folder: Path, tokens: TokenSet) -> None:
    """The prefix tree of a folder's `lexicon.txt`, where its model is there too. Raises CheckpointError."""
    source, model = folder / "lexicon.txt", folder / FILE
    if model.is_file():
        LexiconTree.build(Lexicon.read(source, tokens), read(model)).write(folder / TREE, source)
        record(folder, TREE)
