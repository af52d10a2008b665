"""Steps of many streams in one batch give what each gives alone: emissions, states, and what is still to come."""

import copy

import numpy as np
import pytest

from asr.inference.steps import StepRequest, run_steps
from asr.model.latency import Latency
from asr.model.onnx_runtime import OnnxModel
from asr.model.torch_runtime import TorchModel
from tests.support.acoustic import BANDS, HEADS, mel_frames, small_checkpoint, small_model, small_runtime

LATENCIES = [Latency(4, 2), Latency(8, 4), Latency(5, 0)]


def plan(seed: int, streams: int = 7, rounds: int = 9) -> list[list[tuple[int, StepRequest]]]:
    """Rounds of steps: some streams in each, with 0 to 24 mel frames, some of them without a preview; all end."""
    rng = np.random.default_rng(seed)
    latencies = [LATENCIES[rng.integers(len(LATENCIES))] for _ in range(streams)]

    def request(i: int, last: bool) -> tuple[int, StepRequest]:
        mel = rng.standard_normal((rng.integers(0, 25), BANDS)).astype(np.float32)
        return i, StepRequest(None, mel, latencies[i], last, bool(rng.random() < 0.6))

    active = [sorted(rng.choice(streams, rng.integers(1, streams + 1), replace=False)) for _ in range(rounds)]
    return [[request(i, False) for i in some] for some in active] + [[request(i, True) for i in range(streams)]]


def assert_same(got, alone):
    assert got.complete == alone.complete and len(got.committed) == len(alone.committed)
    assert (got.provisional is None) == (alone.provisional is None)
    pairs = list(zip(got.committed, alone.committed, strict=True))
    for a, b in pairs + ([(got.provisional, alone.provisional)] if got.provisional is not None else []):
        for head in HEADS:
            assert a[head].dtype == np.float32
            np.testing.assert_allclose(a[head], b[head], rtol=0, atol=1e-4)


ENGINES = {
    "torch": TorchModel,
    "onnx": lambda model: OnnxModel(small_checkpoint(model)),
    "onnx int8": lambda model: OnnxModel(small_checkpoint(model), int8=True),
}


@pytest.mark.parametrize(
    "cell, subsampling, engine",
    [
        *(
            (cell, subsampling, engine)
            for cell, subsampling in (("rnn", 4), ("gru", 4), ("lstm", 4), ("lstm", 3))
            for engine in ("torch", "onnx")
        ),
        ("lstm", 4, "onnx int8"),
        ("lstm", 3, "onnx int8"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_gives_what_each_stream_gives_alone(cell, subsampling, seed, engine):
    model = ENGINES[engine](small_model(cell, subsampling))
    together, alone = ([model.stream_state() for _ in range(7)] for _ in range(2))
    sizes = set()
    for requests in plan(seed):
        batch = [copy.copy(request) for _, request in requests]
        for (i, request), copied in zip(requests, batch, strict=True):
            request.state, copied.state = alone[i], together[i]
        sizes.add(len(batch))
        for result, (_, request) in zip(run_steps(model, batch), requests, strict=True):
            assert_same(result, run_steps(model, [request])[0])
    assert max(sizes) > 3
    for a, b in zip(together, alone, strict=True):
        assert a.ended and a.committed == b.committed > 0 and a.frames.shape[1] == b.frames.shape[1] == 0


def test_all_chunks_of_an_utterance_are_those_of_the_batched_pass():
    model, latency = small_runtime("lstm", 4), Latency(4, 2)
    mel = mel_frames(3, 93)
    states = [model.stream_state() for _ in mel]
    parts = [[] for _ in mel]
    for first in range(0, 93, 16):
        requests = [
            StepRequest(state, each[first : first + 16], latency, last=first + 16 >= 93)
            for state, each in zip(states, mel, strict=True)
        ]
        for found, result in zip(parts, run_steps(model, requests), strict=True):
            found += result.committed
    expected, _ = model.forward_chunked(mel, None, 4, 2)
    for i, found in enumerate(parts):
        for head in HEADS:
            got = np.concatenate([part[head] for part in found])
            np.testing.assert_allclose(got, expected[head][i], rtol=0, atol=1e-4)


def test_a_preview_covers_what_waits_and_leaves_the_state_alone():
    model, latency = small_runtime("lstm", 4), Latency(8, 4)
    state = model.stream_state()
    blind = run_steps(model, [StepRequest(state, mel_frames(32), latency, preview=False)])[0]
    assert not blind.committed and blind.provisional is None and not blind.complete
    before = copy.deepcopy(state)
    seen = run_steps(model, [StepRequest(state, mel_frames(0), latency)])[0]
    waiting = state.frames.shape[1]
    assert seen.complete and len(seen.provisional["phonemes"]) == waiting > 0 and not seen.committed
    assert np.array_equal(state.frames, before.frames) and state.committed == 0
    assert all(np.array_equal(new, old) for new, old in zip(state.rnn, before.rnn, strict=True))


def test_the_frames_of_a_commitment_count_as_previewed_where_nothing_else_waits():
    model, latency = small_runtime("lstm", 4), Latency(4, 2)
    state = model.stream_state()
    mel = mel_frames(27)  # makes six frames: the last needs mel frames up to 3 right of its center
    result = run_steps(model, [StepRequest(state, mel, latency, preview=False)])[0]
    assert [len(part["phonemes"]) for part in result.committed] == [4]
    assert len(result.provisional["phonemes"]) == 2 and result.complete


def test_nothing_of_a_batch_is_kept_by_its_results():
    """A stream that falls silent must not keep the emissions of all the others."""
    model, latency = small_runtime("lstm", 4), Latency(4, 2)
    states = [model.stream_state() for _ in range(5)]
    results = run_steps(model, [StepRequest(state, mel_frames(48), latency) for state in states])
    for one, state in zip(results, states, strict=True):
        for part in (*one.committed, one.provisional):
            for values in part.values():
                assert values.base is None or values.base.shape[0] <= 6
        assert all(part.base is None for part in (*state.rnn, state.frames, state.mel))
