"""Where an utterance ends: rules over the frames that have speech for the model (as in Kaldi's online2 and WeNet).

A frame is *active* where blank and word boundary together hold less than half of the undivided posterior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr.model.tokens import TokenSet

CUT_WINDOW_S = 5.0  # the cut of a too long utterance lies in so many of its last seconds
SECOND_PASS_LEAD_S = 0.12  # so long before the end of an utterance its second pass begins, and sooner for each second
SECOND_PASS_LEAD_RATIO = 0.02  # of the utterance: the time that the pass takes on a busy machine
CALM_S = 0.2  # a silence of this length often goes on, so it is checked again; less speech than this is a short word
LEADING_SILENCE_KEPT_S = 0.5  # in front of an utterance, so that its first sound is whole


@dataclass(frozen=True)
class EndpointRules:
    """When an utterance ends. All values are in seconds.

    recognizer.stream(rules=EndpointRules(min_trailing_silence=0.5))     # shorter pauses, earlier finals
    """

    max_leading_silence: float = 5.0  # an utterance without a word is dropped after so long
    min_trailing_silence: float = 0.8  # silence after words that ends an utterance
    max_utterance: float = 20.0  # an utterance is cut here at the latest
    long_utterance: float = 8.0  # from so much speech on, a shorter pause ends it:
    min_pause: float = 0.3


@dataclass(frozen=True)
class Cut:
    """The utterance ends before frame `frame`; `spoken` says whether it has words. So many frames of `silence` at least
    follow them; None where the audio ends, and nobody knows."""

    frame: int
    spoken: bool
    silence: int | None = None


def active(emissions: np.ndarray, tokens: TokenSet) -> np.ndarray:
    """(F, V) log-probabilities → (F,) bool."""
    silent = np.exp(emissions[:, tokens.blank_index]) + np.exp(emissions[:, tokens.boundary_index])
    return silent < 0.5


def last_active(activity: np.ndarray) -> int | None:
    """The last active frame of (F,) bool, if there is one."""
    back = int(activity[::-1].argmax()) if len(activity) else 0
    return len(activity) - 1 - back if len(activity) and activity[-1 - back] else None


def silences(activity: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The silent runs of (F,) bool from frame `first` on: where each begins, and the frame after its end."""
    edges = first + np.flatnonzero(np.diff(np.concatenate([[1], activity[first:], [1]]).astype(int)))
    return edges[::2], edges[1::2]


class Endpointer:
    """Applies the rules to an utterance's activity, (F,) bool of all its frames so far, provisional ones included.

    It keeps nothing between calls, so utterances end at the same frames however busy the computer is.
    """

    def __init__(self, rules: EndpointRules, seconds_per_frame: float) -> None:
        self.min_trailing_silence = round(rules.min_trailing_silence / seconds_per_frame)
        self.max_leading_silence = round(rules.max_leading_silence / seconds_per_frame)
        self.long_utterance = round(rules.long_utterance / seconds_per_frame)
        self.min_pause = min(self.min_trailing_silence, round(rules.min_pause / seconds_per_frame))
        self.max_utterance = round(rules.max_utterance / seconds_per_frame)
        self.cut_window = round(CUT_WINDOW_S / seconds_per_frame)
        self.lead = SECOND_PASS_LEAD_S / seconds_per_frame
        self.calm = max(1, round(CALM_S / seconds_per_frame))
        self.kept = round(LEADING_SILENCE_KEPT_S / seconds_per_frame)

    def beginning(self, activity: np.ndarray) -> int:
        """The first frame that is worth a second pass; 0 where nothing is active."""
        return max(0, int(activity.argmax()) - self.kept) if len(activity) else 0

    def likely_end(self, activity: np.ndarray) -> int | None:
        """The frame before which the utterance ends if the silence goes on; None while that is not likely."""
        last = last_active(activity)
        if last is not None and len(activity) - 1 - last >= self._likely(activity, last):
            return last + 1 + self._ending(activity, last) // 2
        return None

    def _likely(self, activity: np.ndarray, last: int) -> int:
        """Frames of silence after which speech seldom resumes, so that the second pass is worth its work."""
        lead, ending = round(self.lead + SECOND_PASS_LEAD_RATIO * last), self._ending(activity, last)
        return ending - min(ending // 2, lead)

    def _ending(self, activity: np.ndarray, last: int) -> int:
        """Frames of silence after frame `last` that end the utterance."""
        return self.min_pause if last + 1 >= self._long_from(activity) else self.min_trailing_silence

    def _long_from(self, activity: np.ndarray) -> int:
        """The frame from which a short pause ends an utterance in which something is active."""
        return int(activity.argmax()) + self.long_utterance

    def decide(self, activity: np.ndarray) -> Cut | None:
        """The end of the utterance, if it has come."""
        last, frames = last_active(activity), len(activity)
        if last is None:
            return Cut(max(1, frames - self.kept), False) if frames >= self.max_leading_silence else None
        pause = self._first_pause(activity)
        if pause is not None:
            return Cut(pause + self.min_pause // 2, True, self.min_pause)
        if frames - 1 - last >= self.min_trailing_silence:
            return Cut(last + 1 + self.min_trailing_silence // 2, True, self.min_trailing_silence)
        if frames >= self.max_utterance:
            return self._in_longest_silence(activity)
        return None

    def next_decision(self, activity: np.ndarray) -> int:
        """The number of frames with which `decide` must be asked again, after a decision on these that was no cut.

        Nothing can end sooner, except an utterance that begins with less than `CALM_S` of speech and has no more, and
        a long one at a short pause, which is still found later. A silence that has begun is checked once more when it
        has become a likely end.
        """
        last, frames = last_active(activity), len(activity)
        if last is None:
            return min(self.max_leading_silence, frames + self.calm + self.min_trailing_silence)
        silent, likely = frames - 1 - last, self._likely(activity, last)
        wait = likely if self.calm <= silent < likely else self.min_trailing_silence
        if silent >= min(self.calm, self.min_pause):
            wait = min(wait, self._ending(activity, last))
        return min(self.max_utterance, last + 1 + wait)

    def _first_pause(self, activity: np.ndarray) -> int | None:
        """Where the first pause begins that ends a long utterance; the same frame however much later this is asked."""
        first = self._long_from(activity) - 1  # a silence that has begun before that frame does not count
        starts, ends = silences(activity, max(0, first))
        pauses = starts[(starts > first) & (ends - starts >= self.min_pause)]
        return int(pauses[0]) if len(pauses) else None

    def _in_longest_silence(self, activity: np.ndarray) -> Cut:
        """In the middle of the longest silence in the last seconds; at the end, where there is none."""
        first = max(1, len(activity) - self.cut_window)
        starts, ends = silences(activity, first)
        if not len(starts):
            return Cut(len(activity), True, 0)
        longest = int(np.argmax(ends - starts))
        return Cut(int(starts[longest] + ends[longest] + 1) // 2, True, int(ends[longest] - starts[longest]))
