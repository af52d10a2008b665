"""Where an utterance ends, and what it says, depends on its audio alone: never on cuts, pace, preset or batching."""

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from asr.inference.batching import BatchRunner
from tests.support.streams import RATE, silence, timed_words

BLOCK = 4000  # samples: 0.25 s


@pytest.fixture(scope="module")
def samples(clips):
    """Two sentences with pauses that end them, and a short one that ends with the audio."""
    chosen = [
        next(clip.samples for clip in clips if clip.path.stem == name)
        for name in ("commonvoice-2", "kathleen-0", "kathleen-1")
    ]
    return np.concatenate([silence(0.7), chosen[0], silence(1.3), chosen[1], silence(1.1), chosen[2]])


@pytest.fixture(scope="module")
def expected(recognizer, samples):
    stream = recognizer.stream()
    found = timed_words(stream.accept(samples) + stream.finish())
    assert len(found) == 3
    return found


@pytest.fixture(scope="module")
def shared(recognizer):
    runner = BatchRunner(recognizer.engine, threads=2)
    yield recognizer.with_runner(runner)
    runner.close()


changes = st.fixed_dictionaries(
    {},
    optional={
        "latency": st.sampled_from(["fast", "balanced", "accurate"]),  # without look-ahead other frames seem active
        "preview_interval_steps": st.integers(1, 16),
    },
)


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    sizes=st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=60),
    settings_of=st.lists(changes, min_size=1, max_size=20),
    batched=st.booleans(),
)
@example(sizes=[RATE], settings_of=[{"preview_interval_steps": 16, "latency": "fast"}], batched=True)
def test_finals_depend_on_the_audio_alone(recognizer, shared, samples, expected, sizes, settings_of, batched):
    """`sizes` are those of the blocks, `settings_of` the settings that change before each, again and again."""
    stream = (shared if batched else recognizer).stream()
    companion = shared.stream(latency="fast")  # other audio at other moments, in the same batches
    events, position, block = [], 0, 0
    while position < len(samples):
        for name, value in settings_of[block % len(settings_of)].items():
            setattr(stream, name, value)
        size = sizes[block % len(sizes)] + BLOCK // 4
        events += stream.accept(samples[position : position + size])
        companion.accept(samples[-position - size : len(samples) - position])
        position, block = position + size, block + 1
    assert timed_words(events + stream.finish()) == expected
