"""Greedy decoding of the character head: the best token of every frame, repeats merged (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr.decoding.confidence import Confidence, Evidence
from asr.decoding.decoder import Clock, Emissions, Session, concatenate, parted, shift, tail
from asr.model.checkpoint import Checkpoint
from asr.model.tokens import CHARACTERS
from asr.text.results import Alternative, Word


class GreedyDecoder:
    """Any word, no dictionary, no language model."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config.decoding
        self.tokens = checkpoint.config.tokens[CHARACTERS]
        self.clock = Clock(checkpoint.seconds_per_frame, config.start_offset, config.end_offset)
        self.confidence = Confidence(self.tokens, config.greedy_confidence, scores=False)

    def decode(self, emissions: Emissions) -> list[Word]:
        return parted(self.spell(emissions)[0])

    def nbest(self, emissions: Emissions, n: int, firm: Sequence[str] = ()) -> list[Alternative]:
        words = self.decode(emissions)
        return [Alternative(tuple(words), 1.0)] if words else []

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
        words = [
            Word(text, *self.clock.times(a, b), self.confidence(Evidence(emissions[CHARACTERS], path, a, b)))
            for text, a, b in spans
        ]
        return words, complete

    def session(self, draft: bool = False) -> Session:
        return GreedySession(self)


class GreedySession:
    """Words whose boundary is committed are kept; the frames after it are read again with each preview."""

    def __init__(self, decoder: GreedyDecoder) -> None:
        self.decoder = decoder
        self.done: list[Word] = []
        self.start = 0  # frame of the first pending emission
        self.pending: list[Emissions] = []
        self.tokens = np.zeros(0, np.int64)  # of all frames

    def accept(self, emissions: Emissions) -> None:
        self.pending.append({CHARACTERS: emissions[CHARACTERS]})
        self.tokens = np.concatenate([self.tokens, emissions[CHARACTERS].argmax(axis=1)])
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
        return parted(self.done + shift(rest, self.start * self.decoder.clock.seconds_per_frame))

    def settled(self, end: int, preview: Emissions | None) -> list[Word]:
        boundaries = np.flatnonzero(self.tokens[: max(0, end)] == self.decoder.tokens.boundary_index)
        _, last = self.decoder.clock.times(0, int(boundaries[-1]) if len(boundaries) else 0)
        return [word for word in self.words(preview) if word.end <= last]

    def finish(self) -> list[Word]:
        return self.words(None)
