import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.inference.endpoint import Cut, Endpointer, EndpointRules, active
from asr.model.tokens import TokenSet

FRAME = 0.04
ENDPOINTER = Endpointer(EndpointRules(), FRAME)
PAUSE, NOTHING, LONGEST, RECENT, OPENING = 20, 125, 500, 125, 12  # frames
LONG, SHORT = 200, 8
TOKENS = TokenSet(("-", "|", "A", "B"), "-", "|", (0.25,) * 4)


def frames(*runs: tuple[int, int]) -> np.ndarray:
    """Activity from (active or not, how many frames) runs."""
    return np.concatenate([np.full(count, bool(value)) for value, count in runs])


def activities(longest: int):
    """Speech-like activity: runs of either kind."""
    return st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=20).map(
        lambda runs: frames(*runs)[:longest]
    )


@pytest.mark.parametrize(
    "posterior, expected",
    [
        ((0.9, 0.05, 0.03, 0.02), False),
        ((0.05, 0.9, 0.03, 0.02), False),  # a word boundary is silence too
        ((0.3, 0.3, 0.2, 0.2), False),  # both together hold most of it
        ((0.1, 0.1, 0.7, 0.1), True),
        ((0.45, 0.0, 0.3, 0.25), True),  # blank is the likeliest token, but not most of the posterior
    ],
)
def test_active(posterior, expected):
    with np.errstate(divide="ignore"):
        assert active(np.log(np.array([posterior])), TOKENS).tolist() == [expected]


def test_active_of_no_frames():
    assert active(np.zeros((0, 4)), TOKENS).shape == (0,)


def test_words_and_then_a_pause_end_an_utterance():
    said = [(0, 10), (1, 30)]
    assert ENDPOINTER.decide(frames(*said, (0, PAUSE - 1))) is None
    assert ENDPOINTER.decide(frames(*said, (0, PAUSE))) == Cut(40 + PAUSE // 2, True, PAUSE)


def test_a_short_pause_does_not_end_it():
    assert ENDPOINTER.decide(frames((1, 30), (0, PAUSE - 1), (1, 1), (0, PAUSE - 1))) is None


def test_nothing_said_is_dropped_but_for_the_opening():
    assert ENDPOINTER.decide(frames((0, NOTHING - 1))) is None
    assert ENDPOINTER.decide(frames((0, NOTHING))) == Cut(NOTHING - OPENING, False)


def test_a_late_first_word_is_not_dropped():
    assert ENDPOINTER.decide(frames((0, NOTHING - 1), (1, 1))) is None
    assert ENDPOINTER.decide(frames((0, NOTHING - 1), (1, 1), (0, 10))) is None


def test_an_endless_utterance_is_cut_in_its_longest_recent_silence():
    activity = frames((1, 100), (0, 19), (1, 290), (0, 3), (1, 46), (0, 7), (1, 35))
    assert len(activity) == LONGEST
    assert ENDPOINTER.decide(activity[:-1]) is None
    cut = ENDPOINTER.decide(activity)
    assert cut.spoken and 458 + 3 <= cut.frame <= 458 + 4  # not the longer one further back
    assert cut.silence == 7


def test_a_long_utterance_is_cut_in_its_first_short_pause():
    said = [(0, 30), (1, 100), (0, SHORT), (1, LONG - 100 - SHORT), (0, SHORT - 1), (1, 30)]
    assert ENDPOINTER.decide(frames(*said)) is None  # before it was long, and too short
    spoken = 30 + LONG + SHORT - 1 + 30
    for later in [], [(1, 20)], [(1, 20), (0, SHORT + 3), (1, 9)]:  # the same cut, whenever it is asked for
        assert ENDPOINTER.decide(frames(*said, (0, SHORT), *later)) == Cut(spoken + SHORT // 2, True, SHORT)


def test_a_pause_that_has_begun_before_an_utterance_is_long_ends_it_only_as_a_long_one():
    said = [(1, LONG - 2)]
    assert ENDPOINTER.decide(frames(*said, (0, PAUSE - 1))) is None
    assert ENDPOINTER.decide(frames(*said, (0, PAUSE))) == Cut(LONG - 2 + PAUSE // 2, True, PAUSE)


def test_an_utterance_without_any_silence_is_cut_at_its_end():
    assert ENDPOINTER.decide(frames((1, LONGEST))) == Cut(LONGEST, True, 0)


def short_pause(activity: np.ndarray) -> int | None:
    """Where the first run of `SHORT` silent frames begins, `LONG` frames or more after the first active one."""
    if not activity.any():
        return None
    spoken = np.flatnonzero(activity).tolist()
    ends = [last + 1 for last in spoken if last + 1 >= spoken[0] + LONG]
    pauses = [end for end in ends if len(activity) >= end + SHORT and not activity[end : end + SHORT].any()]
    return pauses[0] if pauses else None


@given(activity=activities(700))
def test_decisions_follow_the_rules(activity):
    cut = ENDPOINTER.decide(activity)
    spoken = np.flatnonzero(activity)
    trailing = len(activity) - 1 - spoken[-1] if len(spoken) else len(activity)
    short = short_pause(activity)
    due = (len(spoken) and (trailing >= PAUSE or short is not None or len(activity) >= LONGEST)) or (
        not len(spoken) and trailing >= NOTHING
    )
    assert (cut is not None) == bool(due)
    if cut is None:
        return
    assert 0 < cut.frame <= len(activity)  # always goes on, never beyond what was heard
    assert cut.spoken == bool(len(spoken))
    if short is not None:
        assert cut == Cut(short + SHORT // 2, True, SHORT)
    elif cut.spoken and trailing >= PAUSE:
        assert not activity[cut.frame :].any() and not activity[spoken[-1] + 1 : cut.frame].any()
    elif cut.spoken:
        recent = activity[-RECENT:]
        assert cut.frame >= len(activity) - RECENT
        if not recent.all():
            runs = "".join("x" if a else "." for a in recent).split("x")
            assert not activity[cut.frame - 1] or not activity[min(cut.frame, len(activity) - 1)]
            left, right = cut.frame, cut.frame
            while left > len(activity) - RECENT and not activity[left - 1]:
                left -= 1
            while right < len(activity) and not activity[right]:
                right += 1
            assert right - left == cut.silence == max(map(len, runs))


@pytest.mark.parametrize(
    "runs, beginning",
    [
        ([], 0),
        ([(0, 60)], 0),
        ([(1, 3)], 0),
        ([(0, OPENING), (1, 3), (0, 9)], 0),
        ([(0, OPENING + 1), (1, 3)], 1),
        ([(0, 90), (1, 3), (0, 15), (1, 40)], 90 - OPENING),
    ],
)
def test_an_utterance_begins_a_bit_before_its_first_sound(runs, beginning):
    assert ENDPOINTER.beginning(frames((0, 0), *runs)) == beginning


@given(activity=activities(400))
def test_a_likely_end_is_the_end_if_the_silence_goes_on(activity):
    spoken = np.flatnonzero(activity)
    if short_pause(activity) is not None:
        return
    end = ENDPOINTER.likely_end(activity)
    trailing = len(activity) - 1 - spoken[-1] if len(spoken) else 0
    lead = round(0.12 / FRAME + 0.02 * spoken[-1]) if len(spoken) else 0
    pause = SHORT if len(spoken) and spoken[-1] + 1 >= spoken[0] + LONG else PAUSE
    assert (end is not None) == (len(spoken) > 0 and trailing >= pause - min(pause // 2, lead))
    if end is not None:
        assert end <= len(activity)
        first = int(spoken[-1]) + 1 + pause
        assert ENDPOINTER.decide(np.concatenate([activity, np.zeros(PAUSE, bool)])[:first]) == Cut(end, True, pause)


@pytest.mark.parametrize("seconds, silence", [(1, 0.68), (4, 0.6), (7.9, 0.52)])
def test_the_second_pass_of_a_long_utterance_begins_sooner(seconds, silence):
    said, needed = round(seconds / FRAME), round(silence / FRAME)
    assert ENDPOINTER.likely_end(frames((1, said), (0, needed - 1))) is None
    assert ENDPOINTER.likely_end(frames((1, said), (0, needed))) == said + PAUSE // 2


def test_rules_are_in_seconds_whatever_the_frame():
    rules = EndpointRules(max_leading_silence=3, min_trailing_silence=0.6, max_utterance=10)
    for frame in (0.03, 0.04):
        endpointer = Endpointer(rules, frame)
        assert endpointer.decide(frames((0, round(3 / frame)))) is not None
        assert endpointer.decide(frames((1, 5), (0, round(0.6 / frame)))) is not None
        assert endpointer.decide(frames((1, round(10 / frame)))) is not None
        assert endpointer.decide(frames((1, round(10 / frame) - 1))) is None


@given(activities(700), st.integers(1, 30))
def test_whoever_decides_only_at_the_next_decision_misses_nothing(activity, chunk):
    """Decisions come with chunks, too. Likely ends are not missed where some silence was known."""
    seen, decisions, due = 0, 0, ENDPOINTER.next_decision(activity[:0])
    for heard in range(1, len(activity) + 1):
        now = activity[:heard]
        if heard == due or heard % chunk == 0:
            seen, due = heard, ENDPOINTER.next_decision(now)
            decisions += heard % chunk > 0
            if ENDPOINTER.decide(now):
                break
            assert due > heard
        else:
            short = not activity[:seen].any() and heard < seen + 5 + PAUSE  # a sound of 0.2 s may end a bit later
            late = short_pause(now)  # is found with the next chunk, if not before
            assert short or ENDPOINTER.decide(now) in (None, late and Cut(late + SHORT // 2, True, SHORT))
            if ENDPOINTER.likely_end(now) and np.flatnonzero(now)[-1] < LONG:
                assert ENDPOINTER.likely_end(activity[:seen]) or activity[max(0, seen - 5) : seen].any() or seen < 5
    if chunk <= PAUSE and activity[:heard].all():
        assert decisions <= 1  # while somebody speaks, chunks suffice; only the longest utterance ends in between


def test_a_silence_that_has_begun_is_checked_when_it_has_become_a_likely_end():
    said = 50
    likely = next(n for n in range(PAUSE) if ENDPOINTER.likely_end(frames((1, said), (0, n))))
    begun = 5  # frames: 0.2 s
    assert ENDPOINTER.next_decision(frames((1, said))) == said + PAUSE
    assert ENDPOINTER.next_decision(frames((1, said), (0, begun - 1))) == said + PAUSE
    assert ENDPOINTER.next_decision(frames((1, said), (0, begun))) == said + likely
    assert ENDPOINTER.next_decision(frames((1, said), (0, likely))) == said + PAUSE
