"""Where an utterance ends: rules over the frames in which the model hears something (as in Kaldi's online2 and WeNet).

A frame is *active* where neither blank nor word boundary holds most of the undivided posterior.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr.model.tokens import TokenSet

RECENT = 5.0  # seconds in which the cut of an over-long utterance is looked for
LEAD = 0.12  # seconds before a pause ends its utterance at which the second pass begins, and so much more for each
LEAD_A_SECOND = 0.02  # second of the utterance: what the pass takes when the machine is busy
CALM = 0.2  # seconds: of known silence, which make a longer one likely enough to look for it; of sound, a short word
OPENING = 0.5  # seconds of silence that stay in front of an utterance, so that its first sound is whole


@dataclass(frozen=True)
class EndpointRules:
    """All in seconds."""

    nothing_said: float = 5.0  # an utterance without a word is dropped after this
    pause: float = 0.8  # silence after words that ends an utterance
    longest: float = 20.0  # an utterance is cut here at the latest


@dataclass(frozen=True)
class Cut:
    """The utterance ends before frame `frame`; `spoken` says whether anything was said in it."""

    frame: int
    spoken: bool


def active(emissions: np.ndarray, tokens: TokenSet) -> np.ndarray:
    """(F, V) log-probabilities → (F,) bool."""
    silent = np.exp(emissions[:, tokens.blank_index]) + np.exp(emissions[:, tokens.boundary_index])
    return silent < 0.5


def newest(activity: np.ndarray) -> int | None:
    """The last active frame of (F,) bool, if there is one."""
    back = int(activity[::-1].argmax()) if len(activity) else 0
    return len(activity) - 1 - back if len(activity) and activity[-1 - back] else None


class Endpointer:
    def __init__(self, rules: EndpointRules, seconds_per_frame: float) -> None:
        self.pause = round(rules.pause / seconds_per_frame)
        self.nothing_said = round(rules.nothing_said / seconds_per_frame)
        self.longest = round(rules.longest / seconds_per_frame)
        self.recent = round(RECENT / seconds_per_frame)
        self.lead = LEAD / seconds_per_frame
        self.calm = max(1, round(CALM / seconds_per_frame))
        self.opening = round(OPENING / seconds_per_frame)

    def beginning(self, activity: np.ndarray) -> int:
        """The frame from which on the utterance is worth a second pass; 0 where nothing is active."""
        return max(0, int(activity.argmax()) - self.opening) if len(activity) else 0

    def likely_end(self, activity: np.ndarray) -> int | None:
        """The frame before which the utterance will be cut if the silence goes on, once it is likely to."""
        last = newest(activity)
        if last is not None and len(activity) - 1 - last >= self._likely(last):
            return last + 1 + self.pause // 2
        return None

    def _likely(self, last: int) -> int:
        """Frames of silence after which speech seldom resumes, and the second pass is worth its work."""
        return self.pause - min(self.pause // 2, round(self.lead + LEAD_A_SECOND * last))

    def decide(self, activity: np.ndarray) -> Cut | None:
        """`activity` (F,) of all frames heard in this utterance, provisional ones included."""
        last, heard = newest(activity), len(activity)
        if last is None:
            return Cut(max(1, heard - self.opening), False) if heard >= self.nothing_said else None
        if heard - 1 - last >= self.pause:
            return Cut(last + 1 + self.pause // 2, True)
        if heard >= self.longest:
            return Cut(self._longest_silence(activity), True)
        return None

    def next_look(self, activity: np.ndarray) -> int:
        """How many frames must have been heard for the next decision, after one on these that was no cut: nothing can
        end sooner, but for an utterance that begins with less than `calm` frames of sound and has no more. A pause
        that has begun is looked at once more when it has become a likely end.

        It depends on nothing but `activity`, so that utterances end where they do however busy the computer is.
        """
        last, heard = newest(activity), len(activity)
        if last is None:
            return min(self.nothing_said, heard + self.calm + self.pause)
        silent, likely = heard - 1 - last, self._likely(last)
        return min(self.longest, last + 1 + (likely if self.calm <= silent < likely else self.pause))

    def _longest_silence(self, activity: np.ndarray) -> int:
        """The middle of the longest silent run of the last seconds; everything, where there is none."""
        first = max(1, len(activity) - self.recent)
        edges = np.flatnonzero(np.diff(np.concatenate([[1], activity[first:], [1]]).astype(int)))
        starts, ends = edges[::2], edges[1::2]
        if not len(starts):
            return len(activity)
        longest = int(np.argmax(ends - starts))
        return first + int(starts[longest] + ends[longest] + 1) // 2
