"""The pronouncing dictionary of a language model's vocabulary: `lexicon.txt`.

Where a checkpoint has phonemes, CMUdict says how a word sounds, and the letter-to-sound network guesses for every word
that CMUdict lacks. Where it has none, a word is spelled in the checkpoint's characters.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from asr.atomic import replacing
from asr.decoding.g2p import FILE, G2P, Pronunciation
from asr.model.checkpoint import read_config, record
from asr.model.integrity import LEXICON
from asr.model.tokens import CHARACTERS, PHONEMES, TokenSet
from asr.training.g2p import train

CMUDICT = Path(__file__).with_name("cmudict.dict.gz")
MAX_PRONUNCIATIONS = 3  # of a word, at most
# A guess less probable than this, relative to the best, costs more errors than it mends.
MIN_VARIANT_PROBABILITY = 0.5
SHOWN_WORDS = 20  # of words without pronunciation that are shown

Listed = Mapping[str, Sequence[Pronunciation]]


@dataclass(frozen=True)
class Dictionary:
    """Spellings in a checkpoint's tokens, in the order of the vocabulary; how many words came from which source; and
    the words that no source can spell."""

    entries: list[tuple[str, Pronunciation]]
    sources: dict[str, int]
    unspelled: list[str]

    def write(self, path: Path) -> None:
        """Lines of `word TAB token token …`; the file appears whole or not at all."""
        with replacing(path) as part, part.open("w", encoding="utf-8") as file:
            file.writelines(f"{word}\t{' '.join(spelling)}\n" for word, spelling in self.entries)

    def report(self) -> str:
        """How many words came from where, and which are missing."""
        counts = ", ".join(f"{count} {source}" for source, count in self.sources.items())
        words = sum(self.sources.values()) + len(self.unspelled)
        lines = [f"Lexicon: {words} words, {len(self.entries)} spellings: {counts}, {len(self.unspelled)} from none."]
        if self.unspelled:
            more = len(self.unspelled) - SHOWN_WORDS
            lines.append(
                f"Without a spelling, so never recognized: {', '.join(self.unspelled[:SHOWN_WORDS])}"
                + (f" and {more} more." if more > 0 else ".")
            )
        return "\n".join(lines)


@cache
def cmudict() -> Listed:
    """CMUdict's pronunciations, without stress, in its order. The file is the data of cmudict 1.1.3, lines of
    `word(2) P R AH0 N # remark`; LICENSE has its license."""
    listed: dict[str, dict[Pronunciation, None]] = {}
    with gzip.open(CMUDICT, "rt", encoding="utf-8") as file:
        for line in file:
            word, *phonemes = line.partition("#")[0].split()
            known = listed.setdefault(re.sub(r"\(\d+\)$", "", word), {})
            known[tuple(phoneme.rstrip("012") for phoneme in phonemes)] = None
    return {word: list(known) for word, known in listed.items()}


def spell(vocabulary: Iterable[str], tokens: Mapping[str, TokenSet], listed: Listed, network: G2P | None) -> Dictionary:
    """Every word of the vocabulary in phonemes (as `listed`, else the network's guess), or in characters where the
    tokens have no phonemes. Accents do not count when a word is looked up or guessed.
    """
    words = list(dict.fromkeys(vocabulary))
    if PHONEMES not in tokens:
        return _combined(words, {"from their letters": {word: [tuple(word)] for word in words}}, tokens[CHARACTERS])
    plain = {word: _without_accents(word) for word in words}
    known = {word: (listed.get(word) or listed.get(plain[word]) or [])[:MAX_PRONUNCIATIONS] for word in words}
    rest = [word for word in words if not known[word]]
    guesses = (
        network.pronounce_all([plain[word] for word in rest], MAX_PRONUNCIATIONS, MIN_VARIANT_PROBABILITY)
        if network
        else []
    )
    return _combined(
        words, {"from CMUdict": known, "from letter-to-sound": dict(zip(rest, guesses, strict=False))}, tokens[PHONEMES]
    )


class Pronouncer:
    """What spells the words of a checkpoint's lexicon: CMUdict, and the letter-to-sound network of the folder that is
    written, else the checkpoint's."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder = folder
        self.tokens = read_config(checkpoint / "config.json").tokens
        self.listed: Listed = {}
        self.network: G2P | None = None
        if PHONEMES in self.tokens:
            self.listed = cmudict()
            networks = [place / FILE for place in (folder, checkpoint) if (place / FILE).is_file()]
            self.network = G2P.load(networks[0]) if networks else None

    def write(self, words: Iterable[str]) -> Dictionary:
        """`lexicon.txt` in the folder."""
        made = spell(words, self.tokens, self.listed, self.network)
        made.write(self.folder / LEXICON)
        record(self.folder, LEXICON)
        return made


def train_network(folder: Path, say: Callable[[str], None]) -> None:
    """Train a letter-to-sound network on CMUdict, a quarter of an hour on one core, and keep it in the folder."""
    lexicon = {word: listed for word, listed in cmudict().items() if re.fullmatch("[a-z']+", word)}
    say(f"Training the letter-to-sound network on {len(lexicon)} words: about a quarter of an hour.")
    network, rates = train(lexicon)
    network.save(folder / FILE)
    record(folder, FILE)
    say(f"Letter-to-sound: {rates}")


def _combined(words: list[str], sources: Mapping[str, Listed], tokens: TokenSet) -> Dictionary:
    """Each word's spellings from the first source that has any in these tokens."""
    usable = set(tokens.symbols) - {tokens.blank, tokens.boundary}
    entries: list[tuple[str, Pronunciation]] = []
    counts = dict.fromkeys(sources, 0)
    unspelled = []
    for word in words:
        for source, known in sources.items():
            if spellings := [each for each in known.get(word, ()) if usable.issuperset(each)]:
                entries += [(word, spelling) for spelling in spellings]
                counts[source] += 1
                break
        else:
            unspelled.append(word)
    return Dictionary(entries, counts, unspelled)


def _without_accents(word: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFD", word) if not unicodedata.combining(each))
