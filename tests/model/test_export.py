"""The ONNX graphs compute what the PyTorch model computes, in each of its three ways of running."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import asr
from asr.errors import CheckpointError, RillError
from asr.inference import engine
from asr.model import checkpoint, export, graph_weights, onnx_runtime
from asr.model.acoustic import AcousticModel
from asr.model.latency import Latency
from asr.model.onnx_runtime import OnnxModel
from asr.model.streaming import ModelConfig
from asr.model.torch_runtime import TorchModel
from asr.text.results import Final
from tests.support.acoustic import (
    BANDS,
    HEADS,
    LATENCIES,
    assert_differs,
    assert_same,
    chunked,
    every_kind,
    full,
    mel_frames,
    settings,
    small_checkpoint,
    small_model,
    small_runtime,
    stream,
)

TOLERANCE = 1e-3
NODES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}


@pytest.fixture(scope="module")
def onnx_tiny():
    made: dict[tuple, OnnxModel] = {}

    def get(*kind) -> OnnxModel:
        if kind not in made:
            made[kind] = OnnxModel(small_checkpoint(small_model(*kind)))
        return made[kind]

    return get


def test_long_utterances_go_through_the_stem_one_by_one(onnx_tiny, monkeypatch):
    model = onnx_tiny("lstm", 4)
    mel = mel_frames(3, 60)
    whole = model.stem(mel)
    sizes = []
    run = model.stem_session.run

    class Session:
        def run(self, outputs, inputs):
            sizes.append(len(inputs["mel"]))
            return run(outputs, inputs)

    monkeypatch.setattr(model, "stem_session", Session())
    monkeypatch.setattr(onnx_runtime, "STEM_FRAMES", 120)
    np.testing.assert_allclose(model.stem(mel), whole, atol=1e-6)
    assert sizes == [2, 1]


@every_kind
@settings(max_examples=15)
@given(data=st.data())
def test_streaming_equals_pytorch(onnx_tiny, cell, subsampling, data):
    """Any chunk, look-ahead, length (so any short last chunk) and cut of the input."""
    mel = mel_frames(data.draw(st.integers(1, 120)))
    latency = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 9))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(mel)), max_size=6)))
    got = stream(onnx_tiny(cell, subsampling), mel, cuts, *latency)
    assert_same(got, stream(small_runtime(cell, subsampling), mel, cuts, *latency), TOLERANCE)


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_other_numbers_of_layers(onnx_tiny, cell, subsampling, layers):
    kind, mel = (cell, subsampling, layers), mel_frames(70)
    expected = stream(small_runtime(*kind), mel, [5, 40], 4, 2)
    assert_same(stream(onnx_tiny(*kind), mel, [5, 40], 4, 2), expected, TOLERANCE)


@every_kind
@pytest.mark.parametrize("latency", [None, *LATENCIES])
def test_batches_equal_pytorch_and_padding_is_never_seen(onnx_tiny, cell, subsampling, latency):
    lengths = np.array([70, 1, 33, 48, 69, 4])
    batch = mel_frames(len(lengths), 70)
    for row, length in enumerate(lengths):
        batch[row, length:] = (float("nan"), 1e4, 0.0)[row % 3]
    model = onnx_tiny(cell, subsampling)
    out, frames = model.forward(batch, lengths) if latency is None else model.forward_chunked(batch, lengths, *latency)
    for row, length in enumerate(lengths):
        alone = batch[row, :length]
        expected = (
            full(small_runtime(cell, subsampling), alone)
            if latency is None
            else chunked(small_runtime(cell, subsampling), alone, *latency)
        )
        assert_same({name: values[row, : frames[row]] for name, values in out.items()}, expected, TOLERANCE)


@every_kind
def test_streams_that_advance_together_stay_apart(onnx_tiny, cell, subsampling):
    """A batch of windows with lengths and states of their own, as a server steps its streams."""
    model, ours = small_runtime(cell, subsampling), onnx_tiny(cell, subsampling)
    windows = np.random.default_rng(1).standard_normal((3, 3, 6, 8)).astype(np.float32)
    states = expected_states = None
    for window, commit, lengths in zip(windows, (4, 6, 1), (None, None, [6, 1, 3]), strict=True):
        real = lengths and np.array(lengths)
        got, states = ours.advance(window, states, commit, real)
        expected, expected_states = model.advance(window, expected_states, commit, real)
        for row, length in enumerate(lengths or [6] * 3):
            assert_same(
                *({name: values[row, :length] for name, values in out.items()} for out in (got, expected)), TOLERANCE
            )
        for new, old in zip(states, expected_states, strict=True):
            np.testing.assert_allclose(new, old, rtol=0, atol=TOLERANCE)
    fresh, _ = ours.advance(windows[2], None, 1)
    assert_differs(got, fresh)  # the state matters


@every_kind
def test_nothing_is_unrolled(cell, subsampling):
    """Three nodes a layer: committed frames, look-ahead, back. No loop, and no size but the model's own."""
    loaded = small_checkpoint(small_model(cell, subsampling))
    graph = export.encoder(loaded.config, graph_weights.encoder_weights(loaded.weights(), cell))
    onnx.checker.check_model(graph, full_check=True)
    stem = export.stem(loaded.config, graph_weights.stem_weights(loaded.weights()), BANDS)
    onnx.checker.check_model(stem, full_check=True)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds[NODES[cell]] == 3 * 3 and not kinds.keys() & {"Loop", "Scan", "If"}
    assert sum(kinds.values()) < 30 * 3
    shapes = {
        value.name: [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in [*graph.graph.input, *graph.graph.output]
    }
    assert shapes["frames"] == ["batch", "frames", 8] and shapes["phonemes"] == ["batch", "frames", HEADS["phonemes"]]
    assert shapes["h"] == shapes["h_after"] == [3, "batch", 8]
    assert ("c" in shapes) == (cell == "lstm")


def test_it_computes_on_the_calling_thread_alone(onnx_tiny):
    options = onnx_tiny("lstm", 4).session.get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1


def run_files(folder, mel: np.ndarray, chunk: int, look_ahead: int) -> dict[str, np.ndarray]:
    """A live pass with nothing but the exported files: what another program would write. (T, bands) → emissions."""
    stem = onnxruntime.InferenceSession(folder / "stem.onnx")
    encoder = onnxruntime.InferenceSession(folder / "encoder.onnx")
    facts = {key: json.loads(value) for key, value in encoder.get_modelmeta().custom_metadata_map.items()}
    mel = (mel - np.array(facts["mel_mean"])) / np.array(facts["mel_std"])
    mel = np.pad(mel, ((facts["context"], facts["context"]), (0, 0)))[None].astype(np.float32)
    (frames,) = stem.run(None, {"mel": mel})
    config = facts["config"]["model"]
    state = {name: np.zeros((config["layers"], 1, config["hidden"]), np.float32) for name in ("h", "c")}
    parts: dict[str, list[np.ndarray]] = {head: [] for head in facts["config"]["tokens"]}
    for start in range(0, frames.shape[1], chunk):
        window = frames[:, start : start + chunk + look_ahead]
        commit = min(chunk, frames.shape[1] - start)
        out = dict(
            zip(
                [each.name for each in encoder.get_outputs()],
                encoder.run(
                    None,
                    {
                        "frames": window,
                        "lengths": np.array([window.shape[1]], np.int32),
                        "commit": np.array([commit], np.int64),
                        **state,
                    },
                ),
                strict=True,
            )
        )
        state = {name: out[f"{name}_after"] for name in state}
        for head in parts:
            parts[head].append(out[head][0, :commit])
    return {head: np.concatenate(each) for head, each in parts.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export.write(checkpoint.load("en-small"), folder)
    return folder


@pytest.mark.model
@pytest.mark.parametrize("latency", [(16, 8), (8, 4), (1000, 0)])
def test_the_files_of_the_shipped_checkpoint_on_real_speech(exported, clips, latency):
    loaded = checkpoint.load("en-small")
    mel = loaded.frontend(clips[0].samples)
    expected = chunked(TorchModel(loaded.torch_model()), mel, *latency)
    got = run_files(exported, mel, *latency)
    assert set(got) == set(expected)
    for head, values in expected.items():
        np.testing.assert_allclose(got[head], values, rtol=0, atol=TOLERANCE)
    assert sorted(path.name for path in exported.iterdir()) == ["encoder.onnx", "stem.onnx"]


@pytest.mark.e2e
def test_the_command(tmp_path):
    """Float weights take 4 bytes, 8-bit ones little more than 1."""
    for arguments, low, high in (([], 28, 34), (["--int8"], 7, 10)):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "asr.cli",
                "export",
                "en-small",
                "--to",
                "onnx",
                "--output",
                str(tmp_path / "out"),
                *arguments,
            ],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert str(tmp_path / "out" / "encoder.onnx") in done.stdout
        assert low < (tmp_path / "out" / "encoder.onnx").stat().st_size / 1e6 < high


@pytest.fixture(scope="module")
def pytorch():
    return asr.load(device="cpu", engine="torch")


@pytest.mark.model
@pytest.mark.parametrize("int8", [False, True])
def test_engines_hear_the_same(pytorch, clips, int8):
    """Recordings and live streams, words and their times; with 8-bit weights nearly the same."""
    other = asr.load(device="cpu", engine="onnx", int8=int8)
    assert isinstance(other.engine.model, OnnxModel)
    assert isinstance(pytorch.engine.model, TorchModel)
    wrong = words = 0
    for clip in [clip for clip in clips if clip.path.stem.startswith(("ljspeech", "kathleen"))]:
        for hear in (heard_whole, heard_live):
            expected, got = hear(pytorch, clip.samples), hear(other, clip.samples)
            if not int8:
                assert got == expected
            words += len(expected)
            wrong += len(set(expected) ^ set(got))
    assert words > 80 and wrong / words < 0.1


def heard_whole(recognizer, samples):
    return [(word.text, round(word.start, 1)) for word in recognizer.transcribe(samples, sample_rate=16_000).words]


def heard_live(recognizer, samples):
    live = recognizer.stream(two_pass=False)
    events = [
        event for i in range(0, len(samples), 2560) for event in live.accept(samples[i : i + 2560])
    ] + live.finish()
    return [(word.text, round(word.start, 1)) for event in events if isinstance(event, Final) for word in event.words]


def test_8_bit_weights_change_little():
    torch.manual_seed(3)
    model = AcousticModel(ModelConfig(hidden=64, layers=2, stem_channels=8), BANDS, HEADS).eval().requires_grad_(False)
    mel = mel_frames(200)
    exact = full(TorchModel(model), mel)
    close = full(OnnxModel(small_checkpoint(model), int8=True), mel)
    differences = [np.abs(close[name] - exact[name]).max() for name in HEADS]
    assert min(differences) > 1e-4 and max(differences) < 0.1
    loaded = small_checkpoint(model)
    weights = graph_weights.encoder_weights(loaded.weights(), "lstm", int8=True)
    kinds = Counter(node.op_type for node in export.encoder(loaded.config, weights, int8=True).graph.node)
    assert kinds["DynamicQuantizeLSTM"] == 6 and not kinds.keys() & {"LSTM", "MatMul"}


@given(data=st.data())
@settings(max_examples=15)
def test_8_bit_weights_give_the_same_streamed_or_in_any_batch(int8_tiny, data):
    """Loud neighbors in a batch included: scales are fixed, so that nobody's depends on another's."""
    mel = mel_frames(data.draw(st.integers(1, 120)))
    latency = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 9))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(mel)), max_size=6)))
    expected = chunked(int8_tiny, mel, *latency)
    assert_same(stream(int8_tiny, mel, cuts, *latency), expected, 1e-5)
    loud = np.stack([mel, 50 * mel, -20 * mel])
    lengths = np.array([len(mel)] * 3)
    for out, one in (
        (int8_tiny.forward_chunked(loud, lengths, *latency)[0], expected),
        (int8_tiny.forward(loud, lengths)[0], full(int8_tiny, mel)),
    ):
        assert_same({name: values[0] for name, values in out.items()}, one, 1e-5)


@pytest.fixture(scope="module")
def int8_tiny():
    return OnnxModel(small_checkpoint(small_model("lstm", 4)), int8=True)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_cells_without_8_bit_weights_are_named(cell):
    with pytest.raises(CheckpointError, match=f"'{cell}'.*--int8"):
        OnnxModel(small_checkpoint(small_model(cell, 4)), int8=True)


@pytest.mark.model
def test_engines_that_cannot_be_had(monkeypatch):
    with pytest.raises(RillError, match=r"no engine 'tpu'.*torch.*onnx"):
        asr.load(engine="tpu", device="cpu", lm=False)
    with pytest.raises(RillError, match=r"'torch' has no 8-bit weights: .*'onnx'.*--int8"):
        asr.load(engine="torch", device="cpu", lm=False, int8=True)
    with pytest.raises(RillError, match=r"the device 'cpu'.*the engine 'torch'"):
        engine._model(small_checkpoint(small_model("lstm", 4)), "onnx", "cuda", False)
    monkeypatch.setitem(sys.modules, "asr.model.torch_runtime", None)
    with pytest.raises(RillError, match=r"'torch'.*'cuda' need PyTorch.*pip install 'rill-asr\[train\]'"):
        engine._model(small_checkpoint(small_model("lstm", 4)), "torch", "cpu", False)
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    monkeypatch.setattr(engine, "has_gpu", lambda: False)
    with pytest.raises(RillError, match="need PyTorch"):
        asr.load(device="cuda", lm=False)


@pytest.mark.model
def test_auto_is_the_faster_one():
    assert isinstance(asr.load(device="cpu", lm=False).engine.model, OnnxModel)
    assert (engine.fastest("cpu"), engine.fastest("cuda")) == ("onnx", "torch")


@pytest.mark.model
def test_8_bit_weights_are_chosen_where_they_are_exact():
    def emissions(**options):
        recognizer = asr.load(device="cpu", lm=False, **options)
        mel = np.random.default_rng(0).normal(-5, 2, (90, 80)).astype(np.float32)
        return recognizer.engine.emissions([mel], Latency.parse("offline"))[0]["characters"]

    exact, chosen = emissions(), emissions(int8=None)
    assert np.array_equal(chosen, emissions(int8=True)) and not np.allclose(chosen, exact, atol=1e-3)
    assert np.allclose(emissions(int8=None, engine="torch"), exact, atol=1e-3)


@pytest.mark.parametrize("int8", [False, True])
def test_no_graph_is_older_than_its_weights(tmp_path, monkeypatch, int8):
    """The files have no weights, and other weights give what other weights give; neither onnx nor PyTorch is needed."""
    small = small_checkpoint(small_model("lstm", 4))
    export.save_checkpoint(tmp_path, small.config, small.weights())
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "asr.model.export")
    monkeypatch.delattr(asr.model, "export")
    mel = mel_frames(60)
    first = full(OnnxModel(checkpoint.load(tmp_path), int8), mel)
    kept = {file.name: file.read_bytes() for file in tmp_path.glob("*.onnx")}
    assert len(kept) == 3 and max(map(len, kept.values())) < 30_000
    weights = load_file(tmp_path / "model.safetensors")
    weights["layers.0.forward_rnn.weight_hh_l0"] *= 2
    save_file(weights, tmp_path / "model.safetensors")
    checkpoint.record(tmp_path, "model.safetensors")
    assert_differs(full(OnnxModel(checkpoint.load(tmp_path), int8), mel), first)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.onnx")} == kept


def test_graphs_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    small = small_checkpoint(small_model("gru", 4))
    export.save_checkpoint(tmp_path, small.config, small.weights())
    good = (tmp_path / "encoder.onnx").read_bytes()
    other = small_checkpoint(small_model("gru", 3))  # the same shapes, but other strides
    export.save_checkpoint(tmp_path / "other", other.config, other.weights())
    for bad in (b"", good[:1000], (tmp_path / "other" / "encoder.onnx").read_bytes()):
        (tmp_path / "encoder.onnx").write_bytes(bad)
        checkpoint.record(tmp_path, "encoder.onnx")
        assert checkpoint.load(tmp_path).graph("encoder.onnx") == bad
        with pytest.raises(CheckpointError, match=r"encoder\.onnx does not fit.*copy the whole checkpoint folder"):
            OnnxModel(checkpoint.load(tmp_path))
    (tmp_path / "encoder.onnx").unlink()
    OnnxModel(checkpoint.load(tmp_path))  # is made in memory
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "asr.model.export")
    monkeypatch.delattr(asr.model, "export")
    with pytest.raises(CheckpointError, match=r"has no encoder\.onnx.*pip install onnx"):
        OnnxModel(checkpoint.load(tmp_path))


def test_a_checkpoints_own_graphs_are_not_replaced(tmp_path):
    small = small_checkpoint(small_model("gru", 4))
    export.save_checkpoint(tmp_path, small.config, small.weights())
    with pytest.raises(CheckpointError, match="is a checkpoint, which has graphs of these names"):
        export.write(checkpoint.load(tmp_path), tmp_path)
    checkpoint.load(tmp_path)
