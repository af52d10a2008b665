import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.segmenter import MAX_SEGMENT_S, MIN_SEGMENT_S, Segmenter

HOP, RATE, WINDOW = 160, 16_000, 512
FRAMES = RATE // HOP  # mel frames a second
rng = np.random.default_rng(3)


def noise(seconds: float) -> np.ndarray:
    return 0.1 * rng.standard_normal(round(seconds * RATE)).astype(np.float32)


def segments(samples: np.ndarray, cuts: list[int] = ()) -> list[list[int]]:
    """The numbers of the mel frames in each segment, for samples that come in pieces."""
    segmenter, out, heard, made = Segmenter(HOP, RATE), [], 0, 0
    for piece in np.split(samples, cuts):
        heard += len(piece)
        total = max(0, (heard - WINDOW) // HOP + 1)
        out += segmenter.push(piece, np.arange(made, total)[:, None])
        made = total
        assert segmenter.frames <= MAX_SEGMENT_S * FRAMES
        assert len(segmenter.levels) <= segmenter.frames + WINDOW // HOP + 1
    out += segmenter.flush()
    assert segmenter.flush() == []
    return [segment[:, 0].tolist() for segment in out]


LONG = noise(55)


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, len(LONG)), max_size=6))
def test_every_mel_frame_is_in_one_segment_whatever_the_split(cuts):
    whole = segments(LONG, np.arange(RATE, len(LONG), RATE))
    assert [frame for segment in whole for frame in segment] == list(range((len(LONG) - WINDOW) // HOP + 1))
    cuts = sorted({*cuts, *range(10 * RATE, len(LONG), 10 * RATE)})
    assert segments(LONG, cuts) == whole


@given(seconds=st.floats(0, 70))
@settings(max_examples=15)
def test_lengths(seconds):
    samples = noise(seconds)
    lengths = [len(s) for s in segments(samples, np.arange(10 * RATE, len(samples), 10 * RATE))]
    assert all(MIN_SEGMENT_S * FRAMES <= n <= MAX_SEGMENT_S * FRAMES for n in lengths[:-1])
    assert all(0 < n < MAX_SEGMENT_S * FRAMES for n in lengths[-1:])
    assert sum(lengths) == max(0, (len(samples) - WINDOW) // HOP + 1)


def test_cuts_lie_in_pauses():
    """Of several pauses the quietest wins, and the cut lies within it."""
    samples = noise(50)
    for start, level in ((9, 0.05), (14, 0.001), (26, 0.1), (32, 0.0), (47, 0.0)):
        samples[round(start * RATE) : round((start + 0.5) * RATE)] *= level
    ends = [segment[-1] / FRAMES for segment in segments(samples, np.arange(RATE, len(samples), RATE))]
    assert len(ends) == 3
    assert 14 < ends[0] < 14.5 and 32 < ends[1] < 32.5


def test_less_than_a_frame_makes_no_segment():
    assert segments(np.zeros(0, np.float32)) == segments(noise(511 / RATE)) == []


def test_digital_silence_is_cut_too():
    lengths = [len(s) for s in segments(np.zeros(45 * RATE, np.float32))]
    assert len(lengths) >= 3 and all(n <= MAX_SEGMENT_S * FRAMES for n in lengths)


def test_a_segment_keeps_no_more_than_itself():
    segmenter = Segmenter(HOP, RATE)
    found = segmenter.push(noise(45), np.zeros((45 * FRAMES, 2)))
    assert found and all(segment.base is None for segment in (*found, *segmenter.mel))
