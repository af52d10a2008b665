"""Beam search with a lexicon, an n-gram language model and hot words.

flashlight's lexicon decoder (Collobert et al. 2016, arXiv 1609.03193; the one torchaudio wraps) runs on the phoneme
head where there is one, with the label priors divided out. Everything costly (prefix tree, language model, word list)
is built once and shared; a session is one utterance's own, small state.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from flashlight.lib.text.decoder import LM, CriterionType, DecodeResult, LexiconDecoder, LexiconDecoderOptions, Trie
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from asr.decoding.confidence import Confidence, Evidence
from asr.decoding.decoder import Clock, Emissions, Session, parted, shift
from asr.decoding.hotwords import Hotword, HotwordLM, PhraseAutomaton
from asr.decoding.lexicon import UNKNOWN, Lexicon, Spelling, build_trie
from asr.decoding.neural_lm import FILE as NEURAL
from asr.decoding.neural_lm import NeuralLM
from asr.decoding.rescoring import Neural, Rescorer
from asr.decoding.unlocked import decode_step
from asr.errors import CheckpointError, HotwordError
from asr.model.checkpoint import Checkpoint
from asr.model.tokens import CHARACTERS, PHONEMES, TokenSet
from asr.text.results import Word

RESERVED = 1000  # word indices kept for hot words that the lexicon does not have
OUT_OF_VOCABULARY = -6.0  # log10 score at which such a word starts, about that of a rare word
DRAFT_BEAM = 50  # of live text that a second pass replaces
PREVIEW_BEAM = 25  # of the text right of the last complete word, which the next chunk replaces anyway
HOPELESS = 3.0  # natural log: how far behind the best a sentence is not worth the neural model's judgment
Known = dict[tuple[int, int, int, float, float], Word]  # label, first and last frame, language model scores


class LanguageModel:
    """A checkpoint's lexicon and n-gram model, loaded once, whatever hot words come later; and its neural model, if it
    has one."""

    neural: Neural | None = None

    def __init__(self, checkpoint: Checkpoint) -> None:
        tokens = checkpoint.config.tokens
        lexicon_path, model_path = checkpoint.optional("lexicon.txt"), checkpoint.optional("lm.bin")
        if lexicon_path is None or model_path is None:
            raise CheckpointError(f"{checkpoint.path} has no lm.bin with a lexicon.txt: transcribe without (--no-lm).")
        self.head = PHONEMES if PHONEMES in tokens else CHARACTERS
        self.tokens = tokens[self.head]
        lexicon = Lexicon.read(lexicon_path, tokens.get(PHONEMES, self.tokens))
        self.lexicon = lexicon if self.head == PHONEMES else lexicon.spelled_in_letters(self.tokens)
        entries = [*self.lexicon.words, *(f"{UNKNOWN}{i}" for i in range(RESERVED))]
        try:
            self.ngram = KenLM(str(model_path), Dictionary(entries))
        except RuntimeError as error:
            raise CheckpointError(f"{model_path} is not a KenLM binary: copy it again ({error}).") from error
        empty = self.ngram.start(False)
        self.unigrams = [self.ngram.score(empty, i)[1] for i in range(len(self.lexicon.words))]
        if path := checkpoint.optional(NEURAL):
            self.neural = NeuralLM.load(path)

    @cached_property
    def trie(self) -> Trie:
        """The prefix tree without hot words, which no setting of the search changes."""
        return build_trie(self.lexicon, self.unigrams, {})

    def scores(self, words: Sequence[int]) -> list[float]:
        """log10 probability of each word index after those before it, and of the sentence's end."""
        state, scores = self.ngram.start(False), []
        for word in words:
            state, score = self.ngram.score(state, word)
            scores.append(score)
        return [*scores, self.ngram.finish(state)[1]]


class BeamDecoder:
    """Lexicon, n-gram language model and hot words over the prior-divided emissions of one head.

    `spell` gives the pronunciations of a word of the hot words. Raises HotwordError where there are too many.
    """

    def __init__(self, checkpoint: Checkpoint, language_model: LanguageModel, hotwords: Sequence[Hotword] = (),
                 spell: Callable[[str], list[Spelling]] = lambda word: []) -> None:
        self.config = config = checkpoint.config.decoding
        self.language_model, self.head = language_model, language_model.head
        self.tokens: TokenSet = language_model.tokens
        self.clock = Clock(checkpoint.seconds_per_frame, config.start_offset, config.end_offset)
        self.confidence = Confidence(self.tokens, config.lm_confidence)
        self.divided = config.prior_scale * self.tokens.log_priors
        lexicon = language_model.lexicon
        self.words = list(lexicon.words)
        index: dict[str, int] = {}
        for hotword in hotwords:
            for word in hotword.phrase:
                index[word] = lexicon.index.get(word, len(self.words))
                if index[word] == len(self.words):
                    self.words.append(word)
        if len(self.words) - len(lexicon.words) > RESERVED:
            raise HotwordError(f"More than {RESERVED} hot words are not in the lexicon: give fewer at a time.")
        phrases = []
        spellings = {word: spell(word) for word in index}
        first: dict[int, tuple[list[Spelling], float]] = {}
        for hotword in hotwords:
            bonus = config.hotword_bonus if hotword.bonus is None else hotword.bonus
            phrases.append((tuple(index[word] for word in hotword.phrase), bonus / config.lm_weight))
            for word in hotword.phrase:
                number, share = index[word], bonus / config.lm_weight / len(hotword.phrase)
                score = OUT_OF_VOCABULARY if number >= len(lexicon.words) else language_model.unigrams[number]
                first[number] = (spellings[word], max(score + share, first.get(number, ([], -99.0))[1]))
        self.automaton = PhraseAutomaton(phrases) if phrases else None
        self.trie = build_trie(lexicon, language_model.unigrams, first) if first else language_model.trie
        self.rescorer = None
        if language_model.neural and config.neural_weight:
            self.rescorer = Rescorer(language_model, language_model.neural, self.words, config.lm_weight,
                                     config.neural_weight, set(index.values()))

    def search(self, beam: int) -> Search:
        """A search of its own over the shared tree and models."""
        model = self.language_model.ngram
        if self.automaton:
            model = HotwordLM(model, self.automaton, len(self.language_model.lexicon.words), OUT_OF_VOCABULARY)
        c = self.config
        options = LexiconDecoderOptions(beam, c.beam_tokens, c.beam_threshold, c.lm_weight, c.word_score, -np.inf, 0.0,
                                        False, CriterionType.CTC)
        return Search(LexiconDecoder(options, self.trie, model, self.tokens.boundary_index, self.tokens.blank_index, -1,
                                     [], False), model, self.divided,
                      (self.tokens.blank_index, self.tokens.boundary_index))

    def decode(self, emissions: Emissions) -> list[Word]:
        scores = emissions[self.head]
        if not len(scores):
            return []
        search = self.search(self.config.beam)
        search.accept(scores)
        return self.final(search, scores, {})

    def preview(self, emissions: np.ndarray) -> tuple[list[Word], float]:
        """Words of emissions (F, V) that are soon replaced, and how far they beat silence."""
        if not len(emissions):
            return [], 0.0
        search = self.search(PREVIEW_BEAM)
        search.accept(emissions)
        path, = search.finish()
        return self.read(path.words, path.tokens, emissions, {})[0], search.evidence(path)

    def final(self, search: Search, emissions: np.ndarray, known: Known) -> list[Word]:
        """Words of a search that has heard all its emissions, after the neural model's judgment if there is one."""
        best = search.finish(self.config.nbest if self.rescorer else 1)
        best = [path for path in best if path.score >= best[0].score - HOPELESS]
        if not self.spoken(search.evidence(best[0]), sum(label >= 0 for label in best[0].words)):
            return []
        if self.rescorer and len(best) > 1:
            sentences = [[label for label in path.words if label >= 0] for path in best]
            scores = self.rescorer.scores(sentences, [path.score for path in best])
            best = [best[int(np.argmax(scores))]]
        return parted(self.read(best[0].words, best[0].tokens, emissions, known)[0])

    def spoken(self, evidence: float, words: int) -> bool:
        """A likelihood-ratio test of words against silence: the search finds the best sentence in noise too."""
        return evidence >= self.config.margin * words

    def read(self, labels: Sequence[int], path: Sequence[int], emissions: np.ndarray,
             known: Known) -> tuple[list[Word], int]:
        """A hypothesis as words, and the frame after the last complete one; `known` words are not worked out again.

        flashlight's arrays start one place before the first frame; a word's label stands at its boundary token.
        """
        frames = np.asarray(path)[1:len(emissions) + 1]
        spoken = np.flatnonzero((frames != self.tokens.blank_index) & (frames != self.tokens.boundary_index)).tolist()
        ends = [place for place, label in enumerate(labels) if label >= 0]
        firsts = [bisect_left(spoken, end) for end in [0, *ends]]  # of each word among the spoken frames
        spans = [(labels[end], spoken[first], spoken[after - 1])
                 for end, (first, after) in zip(ends, pairwise(firsts), strict=True)]
        scores = [*self.language_model.scores([label for label, _, _ in spans])[:-1], 0.0]
        words = []
        for i, (label, first, last) in enumerate(spans):
            key = label, first, last, scores[i], scores[i + 1]
            if key not in known:
                sure = self.confidence(Evidence(emissions, frames, first, last, (scores[i], scores[i + 1])))
                known[key] = Word(self.words[label], *self.clock.times(first, last), sure)
            words.append(known[key])
        return words, ends[-1] if ends else 0

    def session(self, draft: bool = False) -> Session:
        return BeamSession(self, min(self.config.beam, DRAFT_BEAM) if draft else self.config.beam)


class Search:
    """flashlight's search over one utterance: emissions in, the best path out."""

    def __init__(self, decoder: LexiconDecoder, model: LM, divided: np.ndarray, silent: tuple[int, int]) -> None:
        self.decoder, self.divided, self.silent = decoder, divided, silent
        self.model = model  # flashlight keeps the model's C++ half alive, not the Python half of a HotwordLM
        self.silence = 0.0  # score of the path without a word
        decoder.decode_begin()

    def accept(self, emissions: np.ndarray) -> None:
        scores = np.ascontiguousarray(emissions - self.divided, dtype=np.float32)
        self.silence += float(scores[:, self.silent].max(axis=1).sum())
        decode_step(self.decoder, self.model, scores)

    def best(self) -> DecodeResult:
        """The best path so far, up to its last complete word."""
        return self.decoder.get_best_hypothesis(0)

    def evidence(self, path: DecodeResult) -> float:
        """How far a path beats silence, natural log."""
        return float(path.score) - self.silence

    def finish(self, n: int = 1) -> list[DecodeResult]:
        """The best complete paths, best first, at most `n`; no two have the same words: the search merges them."""
        self.decoder.decode_end()
        return sorted(self.decoder.get_all_final_hypothesis(), key=lambda path: -path.score)[:n]


class BeamSession:
    """Committed frames go through one search; the text right of its last complete word is searched afresh."""

    def __init__(self, decoder: BeamDecoder, beam: int) -> None:
        self.decoder = decoder
        self.search = decoder.search(beam)
        self.heard = FrameBuffer(len(decoder.tokens))
        self.known: Known = {}

    def accept(self, emissions: Emissions) -> None:
        self.search.accept(emissions[self.decoder.head])
        self.heard.append(emissions[self.decoder.head])

    def words(self, preview: Emissions | None) -> list[Word]:
        words: list[Word] = []
        frame, evidence = 0, 0.0
        if len(self.heard.frames):
            path = self.search.best()
            words, frame = self.decoder.read(path.words, path.tokens, self.heard.frames, self.known)
            evidence = self.search.evidence(path) if words else 0.0  # the next word's beginning, too, if there is one
        rest = [self.heard.frames[frame:]] + ([preview[self.decoder.head]] if preview is not None else [])
        last, more = self.decoder.preview(np.concatenate(rest))
        words = parted(words + shift(last, frame * self.decoder.clock.seconds_per_frame))
        return words if self.decoder.spoken(evidence + more, len(words)) else []

    def finish(self) -> list[Word]:
        return self.decoder.final(self.search, self.heard.frames, self.known)


class FrameBuffer:
    """Rows that are appended in constant amortised time and read without a copy."""

    def __init__(self, width: int) -> None:
        self.rows = np.empty((64, width), dtype=np.float32)
        self.count = 0

    @property
    def frames(self) -> np.ndarray:
        return self.rows[:self.count]

    def append(self, rows: np.ndarray) -> None:
        needed = self.count + len(rows)
        if needed > len(self.rows):
            larger = np.empty((2 * needed, self.rows.shape[1]), dtype=np.float32)
            larger[:self.count] = self.frames
            self.rows = larger
        self.rows[self.count:needed] = rows
        self.count = needed
