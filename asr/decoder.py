"""Emissions to words: greedy on the characters, or beam search with a lexicon and a language model.

Beam search is flashlight's lexicon decoder (Collobert et al. 2016, arXiv 1609.03193; the one torchaudio wraps) on the
phoneme head where there is one, with the label priors divided out. Everything costly (prefix tree, language model, word
list) is built once and shared; a `Session` is one utterance's own, small state.

Emissions are natural-log probabilities, one array (frames, tokens) a head, as float32 NumPy arrays.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from flashlight.lib.text.decoder import CriterionType, KenLM, LexiconDecoder, LexiconDecoderOptions, Trie
from flashlight.lib.text.dictionary import Dictionary

from asr.checkpoint import Checkpoint
from asr.confidence import Confidence, Evidence
from asr.errors import CheckpointError, HotwordError
from asr.hotwords import Hotword, HotwordLM, PhraseAutomaton
from asr.lexicon import UNKNOWN, Lexicon, Spelling, build_trie
from asr.results import Word
from asr.tokens import TokenSet

Emissions = Mapping[str, np.ndarray]
Known = dict[tuple[int, int, int, float, float], Word]  # label, first and last frame, language model scores
CHARACTERS, PHONEMES = "characters", "phonemes"
RESERVED = 1000  # word indices kept for hot words that the lexicon does not have
OUT_OF_VOCABULARY = -6.0  # log10 score at which such a word starts, about that of a rare word
PREVIEW_BEAM = 25  # of the text right of the last complete word, which the next chunk replaces anyway


class Decoder(Protocol):
    """What `Recognizer` asks of a decoder: whole utterances, and sessions for live ones."""

    def decode(self, emissions: Emissions) -> list[Word]:
        """Words of a whole utterance; times in seconds from its first frame."""

    def session(self) -> Session:
        """An empty session for one live utterance."""


class Session(Protocol):
    def accept(self, emissions: Emissions) -> None:
        """Take committed frames."""

    def words(self, preview: Emissions | None) -> list[Word]:
        """The words so far, those of frames that may still change included."""


@dataclass(frozen=True)
class Clock:
    """From a word's tokens in frames to its times in seconds."""

    seconds_per_frame: float
    start_offset: float
    end_offset: float

    def times(self, first: int, last: int) -> tuple[float, float]:
        start = max(0.0, first * self.seconds_per_frame + self.start_offset)
        return start, max(start + 0.02, (last + 1) * self.seconds_per_frame + self.end_offset)


def concatenate(parts: Sequence[Emissions]) -> dict[str, np.ndarray]:
    return {head: np.concatenate([part[head] for part in parts]) for head in parts[0]}


def tail(emissions: Emissions, first: int) -> dict[str, np.ndarray]:
    return {head: values[first:] for head, values in emissions.items()}


def shift(words: Sequence[Word], seconds: float) -> list[Word]:
    """The same words, so many seconds later."""
    return [Word(w.text, w.start + seconds, w.end + seconds, w.confidence) for w in words]


class GreedyDecoder:
    """The best token of every frame, repeats merged (Graves et al. 2006). Any word, no dictionary."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config.decoding
        self.tokens = checkpoint.config.tokens[CHARACTERS]
        self.clock = Clock(checkpoint.seconds_per_frame, config.start_offset, config.end_offset)
        self.confidence = Confidence(self.tokens, config.greedy_confidence)

    def decode(self, emissions: Emissions) -> list[Word]:
        return self.spell(emissions)[0]

    def spell(self, emissions: Emissions) -> tuple[list[Word], int]:
        """The words, and the frame after the boundary that ends the last complete one."""
        path = emissions[CHARACTERS].argmax(axis=1)
        spans, complete = [], 0
        letters: list[str] = []
        first = last = 0
        previous = self.tokens.blank_index
        for frame, token in enumerate([*path.tolist(), self.tokens.boundary_index]):
            if token == self.tokens.boundary_index:
                if letters:
                    spans.append(("".join(letters), first, last))
                    letters = []
                complete = frame + 1 if frame < len(path) else complete
            elif token != self.tokens.blank_index:
                if token != previous:
                    first = first if letters else frame
                    letters.append(self.tokens.symbols[token])
                last = frame
            previous = token
        words = [Word(text, *self.clock.times(a, b), self.confidence(Evidence(emissions[CHARACTERS], path, a, b)))
                 for text, a, b in spans]
        return words, complete

    def session(self) -> Session:
        return GreedySession(self)


class GreedySession:
    """Words whose boundary is committed are kept; the frames after it are read again with each preview."""

    def __init__(self, decoder: GreedyDecoder) -> None:
        self.decoder = decoder
        self.done: list[Word] = []
        self.start = 0  # frame of the first pending emission
        self.pending: list[Emissions] = []

    def accept(self, emissions: Emissions) -> None:
        self.pending.append({CHARACTERS: emissions[CHARACTERS]})
        waiting = concatenate(self.pending)
        words, complete = self.decoder.spell(waiting)
        if complete:
            rest = tail(waiting, complete)
            ended = words[:-1] if self.decoder.decode(rest) else words
            self.done += shift(ended, self.start * self.decoder.clock.seconds_per_frame)
            self.start += complete
            self.pending = [rest]

    def words(self, preview: Emissions | None) -> list[Word]:
        parts = self.pending + ([preview] if preview is not None else [])
        if not parts:
            return list(self.done)
        heads = [{CHARACTERS: part[CHARACTERS]} for part in parts]
        rest = self.decoder.decode(concatenate(heads))
        return self.done + shift(rest, self.start * self.decoder.clock.seconds_per_frame)


class LanguageModel:
    """A checkpoint's lexicon and n-gram model, loaded once, whatever hot words come later."""

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

    @cached_property
    def trie(self) -> Trie:
        """The prefix tree without hot words, which no setting of the search changes."""
        return build_trie(self.lexicon, self.unigrams, {})

    def scores(self, words: Sequence[int]) -> list[float]:
        """log10 probability of each word index after those before it."""
        state, scores = self.ngram.start(False), []
        for word in words:
            state, score = self.ngram.score(state, word)
            scores.append(score)
        return scores


class BeamDecoder:
    """Lexicon, n-gram language model and hot words over the prior-divided emissions of one head.

    `spellings` gives the pronunciations of each word of the hot words. Raises HotwordError where there are too many.
    """

    def __init__(self, checkpoint: Checkpoint, language_model: LanguageModel, hotwords: Sequence[Hotword] = (),
                 spellings: Mapping[str, list[Spelling]] | None = None) -> None:
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
        first: dict[int, tuple[list[Spelling], float]] = {}
        for hotword in hotwords:
            bonus = config.hotword_bonus if hotword.bonus is None else hotword.bonus
            phrases.append((tuple(index[word] for word in hotword.phrase), bonus / config.lm_weight))
            for word in hotword.phrase:
                number, share = index[word], bonus / config.lm_weight / len(hotword.phrase)
                score = OUT_OF_VOCABULARY if number >= len(lexicon.words) else language_model.unigrams[number]
                first[number] = ((spellings or {})[word], max(score + share, first.get(number, ([], -99.0))[1]))
        self.automaton = PhraseAutomaton(phrases) if phrases else None
        self.trie = build_trie(lexicon, language_model.unigrams, first) if first else language_model.trie

    def search(self, beam: int) -> LexiconDecoder:
        """A search of its own over the shared tree and models."""
        model = self.language_model.ngram
        if self.automaton:
            model = HotwordLM(model, self.automaton, len(self.language_model.lexicon.words), OUT_OF_VOCABULARY)
        c = self.config
        options = LexiconDecoderOptions(beam, c.beam_tokens, c.beam_threshold, c.lm_weight, c.word_score, -np.inf, 0.0,
                                        False, CriterionType.CTC)
        search = LexiconDecoder(options, self.trie, model, self.tokens.boundary_index, self.tokens.blank_index, -1, [],
                                False)
        search.decode_begin()
        return search

    def feed(self, search: LexiconDecoder, emissions: Emissions) -> None:
        scores = np.ascontiguousarray(emissions[self.head] - self.divided, dtype=np.float32)
        search.decode_step(scores.ctypes.data, *scores.shape)

    def decode(self, emissions: Emissions, beam: int | None = None) -> list[Word]:
        if not len(emissions[self.head]):
            return []
        search = self.search(beam or self.config.beam)
        self.feed(search, emissions)
        search.decode_end()
        best = max(search.get_all_final_hypothesis(), key=lambda hypothesis: hypothesis.score)
        return self.read(best.words, best.tokens, emissions[self.head], {})[0]

    def read(self, labels: Sequence[int], path: Sequence[int], emissions: np.ndarray,
             known: Known) -> tuple[list[Word], int]:
        """A hypothesis as words, and the frame after the last complete one; `known` words are not worked out again.

        flashlight's arrays start one place before the first frame; a word's label stands at its boundary token.
        """
        frames = np.asarray(path)[1:len(emissions) + 1]
        spoken = (frames != self.tokens.blank_index) & (frames != self.tokens.boundary_index)
        ends = np.flatnonzero(np.asarray(labels) >= 0).tolist()
        spans = []
        for start, end in zip([0, *ends], ends, strict=False):
            inside = start + np.flatnonzero(spoken[start:end])
            spans.append((labels[end], int(inside[0]), int(inside[-1])))
        scores = [*self.language_model.scores([label for label, _, _ in spans]), 0.0]
        words = []
        for i, (label, first, last) in enumerate(spans):
            key = label, first, last, scores[i], scores[i + 1]
            if key not in known:
                sure = self.confidence(Evidence(emissions, frames, first, last, (scores[i], scores[i + 1])))
                known[key] = Word(self.words[label], *self.clock.times(first, last), sure)
            words.append(known[key])
        return words, ends[-1] if ends else 0

    def session(self) -> Session:
        return BeamSession(self)


class BeamSession:
    """Committed frames go through one search; the text right of its last complete word is searched afresh."""

    def __init__(self, decoder: BeamDecoder) -> None:
        self.decoder = decoder
        self.search = decoder.search(decoder.config.beam)
        self.heard = FrameBuffer(len(decoder.tokens))
        self.known: Known = {}

    def accept(self, emissions: Emissions) -> None:
        self.decoder.feed(self.search, emissions)
        self.heard.append(emissions[self.decoder.head])

    def words(self, preview: Emissions | None) -> list[Word]:
        words: list[Word] = []
        frame = 0
        if len(self.heard.frames):
            best = self.search.get_best_hypothesis(0)
            words, frame = self.decoder.read(best.words, best.tokens, self.heard.frames, self.known)
        rest = [self.heard.frames[frame:]] + ([preview[self.decoder.head]] if preview is not None else [])
        last = self.decoder.decode({self.decoder.head: np.concatenate(rest)}, PREVIEW_BEAM)
        return words + shift(last, frame * self.decoder.clock.seconds_per_frame)


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
