"""Emissions to words through the beam search: with a lexicon, an n-gram language model and hot words.

The search (`asr.decoding.search`) runs on the phoneme head where there is one, with the label priors divided out.
Everything large is mapped once and shared; a session is one utterance's own, small state.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import numpy as np

from asr.decoding import ngram, tree
from asr.decoding.compiling import library
from asr.decoding.confidence import Confidence, Evidence
from asr.decoding.decoder import Clock, Emissions, Session, parted
from asr.decoding.hotwords import Hotword
from asr.decoding.insistence import keep
from asr.decoding.layout import Tree
from asr.decoding.lexicon import Spelling
from asr.decoding.neural_lm import FILE as NEURAL
from asr.decoding.neural_lm import NeuralLM
from asr.decoding.phrases import PhraseAutomaton
from asr.decoding.rescoring import Neural, Rescorer
from asr.decoding.search import Options, Path, Search, SearchGraph
from asr.errors import CheckpointError, HotwordError
from asr.model.checkpoint import Checkpoint
from asr.model.tokens import CHARACTERS, PHONEMES, TokenSet
from asr.text.results import Alternative, Word

MOST_UNKNOWN = 1000  # hot words that the lexicon does not have: the search has to follow them all
OUT_OF_VOCABULARY = -6.0  # log10 score at which such a word starts, about that of a rare word
SETTLED_NBEST = 5  # sentences that the neural model judges while words settle
DRAFT_BEAM = 50  # of live text that a second pass replaces, and of frames that the next chunk replaces anyway
UNLIKELY = 10.0  # natural log: how far behind it is not worth showing as an alternative
RIVALS_BEAM, RIVALS_NBEST = 300, 32  # of a search that knows few words
HOPELESS = 4.0  # natural log: how far behind the best a sentence is not worth the neural model's judgment
Ranked = tuple[Path, float]  # a sentence and its score (natural log)
Known = dict[tuple[int, int, int, float, float], Word]  # label, first and last frame, language model scores


class LanguageModel:
    """A checkpoint's lexicon and n-gram model, loaded once, whatever hot words come later; and its neural model, if it
    has one."""

    neural: Neural | None = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        tokens = checkpoint.config.tokens
        source, model_path = checkpoint.optional("lexicon.txt"), checkpoint.optional(ngram.FILE)
        if source is None or model_path is None:
            raise CheckpointError(
                f"{checkpoint.path} has no {ngram.FILE} with a lexicon.txt: transcribe without "
                f"(--no-lm), or make them with `asr lm`."
            )
        self.head = PHONEMES if PHONEMES in tokens else CHARACTERS
        self.tokens = tokens[self.head]
        self.ngram = ngram.read(model_path)
        self.lexicon = tree.load(source, checkpoint.optional(tree.FILE), self.ngram, self.tokens)
        if path := checkpoint.optional(NEURAL):
            self.neural = NeuralLM.load(path)
        library()

    @property
    def unigrams(self) -> np.ndarray:
        """log10 probability of each word on its own, (words,)."""
        return self.ngram.arrays.unigrams[self.lexicon.numbers, 0]

    def scores(self, words: Sequence[int]) -> list[float]:
        """log10 probability of each word index after those before it, and of the sentence's end."""
        known = self.lexicon.numbers
        return self.ngram.scores(
            np.array([known[word] if word < len(known) else self.ngram.unknown for word in words], np.int32)
        )


class BeamDecoder:
    """Lexicon, n-gram language model and hot words over the prior-divided emissions of one head.

    `spell` gives the pronunciations of a word of the hot words. Raises HotwordError where there are too many.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        language_model: LanguageModel,
        hotwords: Sequence[Hotword] = (),
        spell: Callable[[str], list[Spelling]] = lambda word: [],
    ) -> None:
        self.config = config = checkpoint.config.decoding
        self.language_model, self.head = language_model, language_model.head
        self.tokens: TokenSet = language_model.tokens
        self.clock = Clock(checkpoint.seconds_per_frame, config.start_offset, config.end_offset)
        self.confidence = Confidence(self.tokens, config.lm_confidence, scores=True)
        self.divided = config.prior_scale * self.tokens.log_priors
        lexicon = language_model.lexicon
        index: dict[str, int] = {}
        unknown: list[str] = []
        for word in (word for hotword in hotwords for word in hotword.phrase):
            if word not in index:
                index[word] = lexicon.index.get(word, len(lexicon.words) + len(unknown))
                if index[word] >= len(lexicon.words):
                    unknown.append(word)
        self.words: Sequence[str] = [*lexicon.words, *unknown] if unknown else lexicon.words
        if len(unknown) > MOST_UNKNOWN:
            raise HotwordError(f"More than {MOST_UNKNOWN} hot words are not in the lexicon: give fewer at a time.")
        spellings = {word: spell(word) for word in index}
        scores = {
            word: float(language_model.unigrams[number]) if number < len(lexicon.words) else OUT_OF_VOCABULARY
            for word, number in index.items()
        }
        phrases = []
        ahead: dict[str, float] = {}  # what the search may hope for on the way to a word
        for hotword in hotwords:
            bonus = (config.hotword_bonus if hotword.bonus is None else hotword.bonus) / config.lm_weight
            phrases.append((tuple(index[word] for word in hotword.phrase), bonus))
            for word in hotword.phrase:
                ahead[word] = max(scores[word] + bonus / len(hotword.phrase), ahead.get(word, -np.inf))
        hot = tree.prefix_tree([(index[word], spelling, ahead[word]) for word in index for spelling in spellings[word]])
        self.automaton = PhraseAutomaton(phrases)
        self.graph = SearchGraph(
            lexicon.arrays, hot, language_model.ngram.arrays, lexicon.numbers, self.automaton.arrays
        )
        self.rescorer = None
        if language_model.neural and config.neural_weight:
            self.rescorer = Rescorer(
                language_model,
                language_model.neural,
                self.words,
                config.lm_weight,
                config.neural_weight,
                set(index.values()),
            )

    def search(self, beam: int, draft: bool = False, margin: float = HOPELESS, lexicon: Tree | None = None) -> Search:
        """A search of its own over the shared graph, or with a smaller lexicon. Other sentences are found within the
        margin; those of a draft are not asked for."""
        c, ngram = self.config, self.language_model.ngram
        options = Options(
            beam,
            c.beam_tokens,
            c.beam_threshold,
            margin if (self.rescorer or margin > HOPELESS) and not draft else 0.0,
            c.lm_weight,
            c.word_score,
            OUT_OF_VOCABULARY,
            self.tokens.blank_index,
            self.tokens.boundary_index,
            ngram.unknown,
            ngram.end,
        )
        graph = self.graph if lexicon is None else self.graph._replace(tree=lexicon)
        return Search(graph, options, ngram.begin, self.divided)

    def decode(self, emissions: Emissions) -> list[Word]:
        found = self.nbest(emissions, 1)
        return list(found[0].words) if found else []

    def nbest(self, emissions: Emissions, n: int, firm: Sequence[str] = ()) -> list[Alternative]:
        scores = emissions[self.head]
        if not len(scores):
            return []
        search = self.search(self.config.beam, margin=UNLIKELY if n > 1 else HOPELESS)
        search.accept(scores)
        ranked = self.ranked(search, max(n, self.config.nbest))
        if ranked and firm:
            ranked = keep(firm, ranked, self.texts, lambda words: self.rivals(words, scores))
        return self.sentences(ranked[:n], scores, {})

    def sentences(self, ranked: Sequence[Ranked], emissions: np.ndarray, known: Known) -> list[Alternative]:
        """Sentences of a search that has heard all its emissions, the best first."""
        if not ranked:
            return []
        first = ranked[0][1]
        shares = np.exp([min(0.0, score - first) for _, score in ranked])
        return [
            Alternative(
                tuple(parted(self.read(path, emissions, {} if rank else known, len(emissions)))),
                float(shares[rank] / shares.sum()),
            )
            for rank, (path, _) in enumerate(ranked)
        ]

    def judged(self, search: Search, n: int) -> Path | None:
        """The best of `n` sentences; None where nothing is said."""
        ranked = self.ranked(search, n)
        return ranked[0][0] if ranked else None

    def rivals(self, words: Collection[str], emissions: np.ndarray) -> list[Ranked]:
        """Ranked sentences of these words alone."""
        lexicon = self.language_model.lexicon.part(words, self.language_model.ngram)
        search = self.search(RIVALS_BEAM, margin=UNLIKELY, lexicon=lexicon)
        search.accept(emissions)
        return self.ranked(search, RIVALS_NBEST)

    def texts(self, path: Path) -> list[str]:
        """The words of a path."""
        return [self.words[label] for label in path.labels[path.labels >= 0].tolist()]

    def ranked(self, search: Search, n: int) -> list[Ranked]:
        """The likeliest `n` sentences, the best first, with their scores (natural log), as the neural model judges, if
        there is one; none where nothing is said. The best is one that the search finds close."""
        paths = search.nbest(n)
        if not self.spoken(search.evidence(paths[0]), paths[0]):
            return []
        scores = np.array([path.score for path in paths])
        close = scores >= scores[0] - HOPELESS
        if self.rescorer and len(paths) > 1:
            sentences = [path.labels[path.labels >= 0].tolist() for path in paths]
            scores = np.array(self.rescorer.scores(sentences, scores.tolist()))
        best = int(np.argmax(np.where(close, scores, -np.inf)))
        order = [best, *(i for i in np.argsort(-scores, kind="stable").tolist() if i != best)]
        return [(paths[i], float(scores[i])) for i in order]

    def spoken(self, evidence: float, path: Path) -> bool:
        """A likelihood-ratio test of words against silence: the search finds the best sentence in noise too."""
        return evidence >= self.config.margin * int((path.labels >= 0).sum())

    def spans(self, path: Path) -> list[tuple[int, int, int]]:
        """Number, first and last frame of each word."""
        silent = (path.tokens == self.tokens.blank_index) | (path.tokens == self.tokens.boundary_index)
        spoken = np.flatnonzero(~silent).tolist()
        ends = np.flatnonzero(path.labels >= 0).tolist()
        firsts = [bisect_left(spoken, end) for end in [0, *ends]]  # of each word among the spoken frames
        return [
            (int(path.labels[end]), spoken[first], spoken[after - 1])
            for end, (first, after) in zip(ends, pairwise(firsts), strict=True)
        ]

    def read(self, path: Path, emissions: np.ndarray, known: Known, settled: int) -> list[Word]:
        """A hypothesis as words. Those of the first `settled` frames become `known`, and are not worked out again."""
        frames, spans = path.tokens, self.spans(path)
        scores = [*self.language_model.scores([label for label, _, _ in spans])[:-1], 0.0]
        words = []
        for i, (label, first, last) in enumerate(spans):
            key = label, first, last, scores[i], scores[i + 1]
            word = known.get(key) if last < settled else None
            if word is None:
                sure = self.confidence(Evidence(emissions, frames, first, last, (scores[i], scores[i + 1])))
                word = Word(self.words[label], *self.clock.times(first, last), sure)
            if last < settled:
                known[key] = word
            words.append(word)
        return words

    def session(self, draft: bool = False) -> Session:
        return BeamSession(self, draft)


class BeamSession:
    """Committed frames go through one search; those that may still change go through a copy of it."""

    def __init__(self, decoder: BeamDecoder, draft: bool) -> None:
        self.decoder = decoder
        beam = decoder.config.beam
        self.search = decoder.search(min(beam, DRAFT_BEAM) if draft else beam, draft)
        self.heard = FrameBuffer(len(decoder.tokens))
        self.known: Known = {}

    def accept(self, emissions: Emissions) -> None:
        self.search.accept(emissions[self.decoder.head])
        self.heard.append(emissions[self.decoder.head])

    def words(self, preview: Emissions | None) -> list[Word]:
        search, frames = self._continued(preview)
        path = search.best()
        if not self.decoder.spoken(search.evidence(path), path):
            return []
        return parted(self.decoder.read(path, frames, self.known, self.heard.count))

    def settled(self, end: int, preview: Emissions | None) -> list[Word]:
        search, frames = self._continued(preview)
        path = self.decoder.judged(search, SETTLED_NBEST)
        count = sum(last < end for _, _, last in self.decoder.spans(path)) if path else 0
        if not path or not count:
            return []
        return parted(self.decoder.read(path, frames, self.known, self.heard.count))[:count]

    def finish(self) -> list[Word]:
        ranked = self.decoder.ranked(self.search, self.decoder.config.nbest)
        found = self.decoder.sentences(ranked[:1], self.heard.frames, self.known)
        return list(found[0].words) if found else []

    def _continued(self, preview: Emissions | None) -> tuple[Search, np.ndarray]:
        """A search that has heard the preview, too, and all the frames that it has heard."""
        if preview is None or not len(preview[self.decoder.head]):
            return self.search, self.heard.frames
        search = self.search.copy(DRAFT_BEAM)
        search.accept(preview[self.decoder.head])
        return search, np.concatenate([self.heard.frames, preview[self.decoder.head]])


class FrameBuffer:
    """Rows that are appended in constant amortised time and read without a copy."""

    def __init__(self, width: int) -> None:
        self.rows = np.empty((64, width), dtype=np.float32)
        self.count = 0

    @property
    def frames(self) -> np.ndarray:
        return self.rows[: self.count]

    def append(self, rows: np.ndarray) -> None:
        needed = self.count + len(rows)
        if needed > len(self.rows):
            larger = np.empty((2 * needed, self.rows.shape[1]), dtype=np.float32)
            larger[: self.count] = self.frames
            self.rows = larger
        self.rows[self.count : needed] = rows
        self.count = needed
