"""What is drawn is what the model does."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

import asr
from asr.demo import network, picture
from asr.model.latency import PRESETS, Latency
from asr.text.results import Alternative, Word

CLIP = Path(__file__).parents[1] / "clips" / "kathleen-1.flac"
UNSURE = CLIP.with_name("kathleen-2.flac")  # has a name that no lexicon holds


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
        assert [word.text for word in trace.words] == [word.text for word in expected]
        assert np.allclose([word.start for word in trace.words], [word.start for word in expected], atol=1e-3)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("latency", [Latency(0, 0), Latency(4, 2), Latency(5, 0), Latency(1, 9), Latency(40, 3)])
@pytest.mark.parametrize("mels", [1, 45, 64])
def test_every_cell_and_every_cut_is_the_models(cell, latency, mels):
    pytest.importorskip("torch")
    from tests.support import acoustic

    model, mel = acoustic.small_runtime(cell, 4), acoustic.mel_frames(mels)
    written_out = network.Network(acoustic.small_checkpoint(acoustic.small_model(cell, 4)))
    _, _, out = written_out.unroll(model.embed(mel[None], None)[0], latency)
    expected = (
        acoustic.chunked(model, mel, latency.chunk, latency.look_ahead) if latency.live else acoustic.full(model, mel)
    )
    acoustic.assert_same(written_out.emissions(out), expected)


def test_live_differs_from_full_context_in_the_backward_direction(recognizer):
    samples, _ = sf.read(CLIP, dtype="float32")
    _, (full, live) = network.trace(recognizer, samples, [PRESETS["offline"], PRESETS["fast"]])
    assert np.allclose(full.forward[0], live.forward[0], atol=1e-4)
    assert not np.allclose(full.backward[0], live.backward[0], atol=1e-2)


def test_alternatives_are_the_recognizers_own(recognizer):
    samples, _ = sf.read(UNSURE, dtype="float32")
    _, (trace,) = network.trace(recognizer, samples, [PRESETS["offline"]])
    transcript = recognizer.transcribe(samples, sample_rate=16_000, alternatives=network.MOST_ALTERNATIVES)
    (segment,) = transcript.segments
    assert [one.text for one in trace.alternatives] == [one.text for one in segment.alternatives]
    assert len(trace.alternatives) > 1


def test_without_a_search_there_is_one_sentence(greedy):
    samples, _ = sf.read(CLIP, dtype="float32")
    _, (trace,) = network.trace(greedy, samples, [PRESETS["offline"]])
    assert trace.words and len(trace.alternatives) == 1
    tokens = greedy.engine.checkpoint.config.tokens[greedy.engine.head]
    assert "best sentences" not in picture.draw(
        *network.trace(greedy, samples, [PRESETS["offline"]]), tokens, "x", 0, 0.04
    )


def test_the_picture_has_a_column_for_each_pass_and_one_time_axis(recognizer):
    samples, _ = sf.read(CLIP, dtype="float32")
    recording, traces = network.trace(recognizer, samples, [PRESETS["offline"], PRESETS["fast"]])
    engine = recognizer.engine
    tokens = engine.checkpoint.config.tokens[engine.head]
    html = picture.draw(recording, traces, tokens, engine.head, 0, engine.seconds_per_frame)
    full, live = html.split("<section>")[1:]
    assert full.count("class='panel") == 6 and live.count("class='panel") == 7  # the distance, too
    assert "chunk" not in full and live.count("class='chunk'") == 3 * ((len(traces[1].probabilities) - 1) // 8)
    for column, trace in ((full, traces[0]), (live, traces[1])):
        positions = [float(left) for left in re.findall(r"class='(?:un)?sure' [^>]*left:([0-9.]+)%", column)]
        seconds = len(samples) / 16_000
        assert positions == pytest.approx([100 * word.start / seconds for word in trace.words], abs=0.01)
    (image,) = re.findall(r"mel bands</h4><div[^>]*><img alt='' src='data:image/png;base64,([^']+)'", full)
    assert Image.open(BytesIO(b64decode(image))).size == recording.mel.shape


def test_a_heat_map_has_the_values_as_opacity_and_their_sign_as_color():
    values = np.linspace(-1.2, 1.2, 60).reshape(20, 3)
    (image,) = re.findall("base64,([^']+)'", picture._heat(values))
    pixels = np.asarray(Image.open(BytesIO(b64decode(image))).convert("RGBA"))[::-1].swapaxes(0, 1)
    assert np.abs(pixels[..., 3] - 255 * np.minimum(np.abs(values), 1)).max() <= 2
    assert (pixels[values > 0.01, :3] == picture.POSITIVE).all() and (
        pixels[values < -0.01, :3] == picture.NEGATIVE
    ).all()


def test_what_the_search_found_is_marked_and_escaped():
    said = [tuple(Word(word, i, i + 1, 0.5) for i, word in enumerate(text.split())) for text in ("a <b> c", "a d c")]
    html = picture._alternatives([Alternative(said[0], 0.8125), Alternative(said[1], 0.1875)])
    assert "a &lt;b&gt; c" in html and "a <mark>d</mark> c" in html and ">18.8%<" in html
