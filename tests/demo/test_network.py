"""What is drawn is what the model does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import asr
from asr.demo import network
from asr.errors import RillError
from asr.model.latency import PRESETS, Latency

CLIP = Path(__file__).parents[1] / "clips" / "kathleen-1.flac"


@pytest.fixture(scope="module")
def recognizer() -> asr.Recognizer:
    return asr.load(device="cpu")


@pytest.mark.parametrize("latency", [PRESETS["offline"], PRESETS["balanced"], Latency(7, 3), Latency(8, 0)])
def test_traces_are_the_models_own_outputs(recognizer, latency):
    samples, _ = sf.read(CLIP, dtype="float32")
    recording, (trace,) = network.trace(recognizer, samples, [latency])
    (emissions,) = recognizer.engine.emissions([recording.mel], latency)
    assert np.allclose(trace.probabilities, np.exp(emissions[recognizer.engine.head]), atol=1e-4)
    frames, shape = len(trace.probabilities), recognizer.engine.model.config
    assert [x.shape for x in trace.forward + trace.backward] == [(frames, shape.hidden)] * 2 * shape.layers
    if not latency.live:
        expected = recognizer.decode_utterance(samples).words
        assert [(word.text, word.start) for word in trace.words] == [(word.text, word.start) for word in expected]


def test_live_differs_from_full_context_in_the_backward_direction(recognizer):
    samples, _ = sf.read(CLIP, dtype="float32")
    _, (full, live) = network.trace(recognizer, samples, [PRESETS["offline"], PRESETS["fast"]])
    assert np.allclose(full.forward[0], live.forward[0], atol=1e-4)
    assert not np.allclose(full.backward[0], live.backward[0], atol=1e-2)


@pytest.mark.parametrize("dark", [False, True])
def test_the_figure_has_one_time_axis_and_two_columns(recognizer, dark):
    samples, _ = sf.read(CLIP, dtype="float32")
    recording, traces = network.trace(recognizer, samples, [PRESETS["offline"], PRESETS["fast"]])
    figure = network.draw(recognizer, recording, traces, 0, dark)
    assert len(figure.axes) == 2 * len(network.ROW_HEIGHTS)
    assert {axis.get_xlim() for axis in figure.axes} == {(0, len(samples) / 16_000)}


def test_without_matplotlib_a_sentence_says_what_to_install(recognizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RillError, match=r"rill-asr\[pictures\]"):
        network.draw(recognizer, network.Recording(np.zeros(0), np.zeros((0, 0))), [], 0)
