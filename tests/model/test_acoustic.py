"""The acoustic model's three ways of running agree with one another, with the definition, and with a golden file."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from asr.audio import manifest
from asr.model import checkpoint
from asr.model.acoustic import AcousticModel
from asr.model.streaming import ModelConfig
from asr.model.torch_runtime import TorchModel
from tests.conftest import SHARED
from tests.support.acoustic import (
    BANDS,
    HEADS,
    LATENCIES,
    assert_differs,
    assert_same,
    chunked,
    drain,
    every_kind,
    full,
    mel_frames,
    settings,
    small_model,
    small_runtime,
    stream,
)

# The definition, written down slowly: one frame, one chunk, one layer after another, in float64.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cell_step(cell, weights, x, state):
    """One step of one cell: (H,) input and state → state; a state is (h,) or (h, c)."""
    gates_in = weights["weight_ih_l0"] @ x + weights["bias_ih_l0"]
    gates_out = weights["weight_hh_l0"] @ state[0] + weights["bias_hh_l0"]
    if cell == "rnn":
        return (np.tanh(gates_in + gates_out),)
    if cell == "gru":
        (r, z, n), (rh, zh, nh) = np.split(gates_in, 3), np.split(gates_out, 3)
        new = np.tanh(n + sigmoid(r + rh) * nh)
        update = sigmoid(z + zh)
        return ((1 - update) * new + update * state[0],)
    i, f, g, o = np.split(gates_in + gates_out, 4)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def convolution(conv, x, stride):
    """(in, time, band) → (out, time, band): valid in time, one zero on either side of the bands."""
    weight, bias = conv["weight"], conv["bias"]
    x = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    times, bands = (x.shape[1] - 3) // stride[0] + 1, (x.shape[2] - 3) // stride[1] + 1
    out = np.empty((len(weight), times, bands))
    for t in range(times):
        for b in range(bands):
            patch = x[:, t * stride[0] : t * stride[0] + 3, b * stride[1] : b * stride[1] + 3]
            out[:, t, b] = np.einsum("oitb,itb->o", weight, patch) + bias
    return np.maximum(out, 0)


def layer_norm(weights, x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weights["weight"] + weights["bias"]


def linear(weights, x):
    return weights["weight"] @ x + weights["bias"]


def definition(model, mel, chunk, look_ahead):
    """Latency-controlled emissions of one utterance (T, bands), straight from the design's words."""
    cell, subsampling, count = model.config.cell, model.config.subsampling, model.config.layers
    tensors = {name: value.double().numpy() for name, value in model.model.state_dict().items()}

    def under(prefix):
        return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}

    zero = np.zeros(model.config.hidden)
    zeros = (zero, zero) if cell == "lstm" else (zero,)
    x = (mel.astype(float) - tensors["mel_mean"]) / tensors["mel_std"]
    first, second, context = ((2, 2), (2, 2), 3) if subsampling == 4 else ((1, 2), (3, 2), 2)
    x = np.pad(x, ((context, context), (0, 0)))
    x = convolution(under("stem.conv2"), convolution(under("stem.conv1"), x[None], first), second)
    embedded = [linear(under("stem.linear"), x[:, t].reshape(-1)) for t in range(x.shape[1])]

    carried = [zeros] * count  # each layer's forward state at the end of the last chunk
    out: dict[str, list[np.ndarray]] = {name: [] for name in HEADS}
    for start in range(0, len(embedded), chunk):
        window = embedded[start : start + chunk + look_ahead]
        committed = min(chunk, len(embedded) - start)
        for k in range(count):
            weights = under(f"layers.{k}")
            normed = [layer_norm(under(f"layers.{k}.norm"), frame) for frame in window]
            state, forward = carried[k], []
            for i, frame in enumerate(normed):
                state = cell_step(cell, under(f"layers.{k}.forward_rnn"), frame, state)
                forward.append(state[0])
                if i + 1 == committed:
                    carried[k] = state
            state, backward = zeros, []
            for frame in reversed(normed):
                state = cell_step(cell, under(f"layers.{k}.backward_rnn"), frame, state)
                backward.insert(0, state[0])
            window = [
                frame + weights["proj.weight"] @ np.concatenate([f, b]) + weights["proj.bias"]
                for frame, f, b in zip(window, forward, backward, strict=True)
            ]
        for name in HEADS:
            for frame in window[:committed]:
                logits = linear(under(f"heads.{name}"), layer_norm(under("norm"), frame))
                out[name].append(logits - np.log(np.exp(logits).sum()))
    return {name: np.array(frames) for name, frames in out.items()}


@every_kind
@pytest.mark.parametrize("mels, chunk, look_ahead", [(1, 4, 2), (23, 2, 1), (61, 4, 3), (50, 8, 4), (40, 3, 0)])
def test_forward_chunked_equals_the_definition(cell, subsampling, mels, chunk, look_ahead):
    model, mel = small_runtime(cell, subsampling), mel_frames(mels)
    assert_same(chunked(model, mel, chunk, look_ahead), definition(model, mel, chunk, look_ahead))


@every_kind
def test_forward_equals_the_definition(cell, subsampling):
    model, mel = small_runtime(cell, subsampling), mel_frames(45)
    assert_same(full(model, mel), definition(model, mel, 1000, 0))


@every_kind
@settings(max_examples=20)
@given(data=st.data())
def test_streaming_equals_forward_chunked_for_any_split(cell, subsampling, data):
    mels = data.draw(st.integers(1, 120))
    chunk, look_ahead = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 9))
    cuts = sorted(data.draw(st.lists(st.integers(0, mels), max_size=8)))
    model, mel = small_runtime(cell, subsampling), mel_frames(mels)
    assert_same(stream(model, mel, cuts, chunk, look_ahead), chunked(model, mel, chunk, look_ahead))


@every_kind
@pytest.mark.parametrize("chunk, look_ahead", LATENCIES)
def test_streaming_frame_by_frame(cell, subsampling, chunk, look_ahead):
    model, mel = small_runtime(cell, subsampling), mel_frames(90)
    assert_same(stream(model, mel, list(range(1, 90)), chunk, look_ahead), chunked(model, mel, chunk, look_ahead))


@every_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_streaming_with_fewer_layers(cell, subsampling, layers):
    model, mel = small_runtime(cell, subsampling, layers), mel_frames(70)
    assert_same(stream(model, mel, [5, 40], 4, 2), chunked(model, mel, 4, 2))
    assert_same(chunked(model, mel, 4, 2), definition(model, mel, 4, 2))


@every_kind
@pytest.mark.parametrize("look_ahead", [0, 1, 5, 40])
def test_a_chunk_of_the_whole_length_is_full_context(cell, subsampling, look_ahead):
    model, mel = small_runtime(cell, subsampling), mel_frames(66)
    frames = -(-66 // subsampling)
    for chunk in (frames, frames + 1, 3 * frames):
        assert_same(chunked(model, mel, chunk, look_ahead), full(model, mel), 1e-5)
        assert_same(stream(model, mel, [20, 21], chunk, look_ahead), full(model, mel), 1e-5)
    assert_differs(chunked(model, mel, frames // 4, 0), full(model, mel))  # latency does matter to this model


@every_kind
@pytest.mark.parametrize("latency", [None, *LATENCIES])
def test_padding_does_not_change_any_emission(cell, subsampling, latency):
    """Whatever stands behind a shorter utterance, NaN included, its emissions are those it has alone."""
    model = small_runtime(cell, subsampling)
    lengths = np.array([70, 1, 33, 48, 69, 4])
    batch = mel_frames(len(lengths), 70)
    for row, length in enumerate(lengths):
        batch[row, length:] = (float("nan"), 1e4, 0.0)[row % 3]
    out, frames = model.forward(batch, lengths) if latency is None else model.forward_chunked(batch, lengths, *latency)
    assert frames.tolist() == [-(-length // subsampling) for length in lengths.tolist()]
    for row, length in enumerate(lengths):
        alone = batch[row, :length]
        expected = full(model, alone) if latency is None else chunked(model, alone, *latency)
        assert_same({name: values[row, : frames[row]] for name, values in out.items()}, expected, 1e-5)


@every_kind
@pytest.mark.parametrize("chunk, look_ahead", [(4, 2), (2, 1), (3, 0)])
def test_the_look_ahead_is_all_of_the_future_that_is_seen(cell, subsampling, chunk, look_ahead):
    model, mel = small_runtime(cell, subsampling), mel_frames(80)
    before = chunked(model, mel, chunk, look_ahead)
    for k in range(3):
        last = (k + 1) * chunk + look_ahead - 1  # the last frame that chunk k may see
        unseen = last * subsampling + model.config.context + 1  # the first mel frame behind its right context
        changed = mel.copy()
        changed[unseen:] += 5
        committed = {name: values[: (k + 1) * chunk] for name, values in before.items()}
        after = chunked(model, changed, chunk, look_ahead)
        assert_same({name: values[: (k + 1) * chunk] for name, values in after.items()}, committed, 1e-6)
        changed[unseen - 1] += 20 * mel_frames(1)[0]
        after = chunked(model, changed, chunk, look_ahead)
        assert_differs(
            {name: values[k * chunk : (k + 1) * chunk] for name, values in after.items()},
            {name: values[k * chunk :] for name, values in committed.items()},
        )


@every_kind
def test_a_chunk_is_committed_as_soon_as_its_look_ahead_is_there(cell, subsampling):
    model, mel = small_runtime(cell, subsampling), mel_frames(100)
    needed = (4 + 2 - 1) * subsampling + model.config.context + 1
    state = model.stream_state()
    assert model.missing(state, 4 + 2) == needed
    model.push(state, mel[: needed - 1])
    assert model.step(state, 4, 2) is None and model.missing(state, 4 + 2) == 1
    model.push(state, mel[needed - 1 : needed])
    assert model.missing(state, 4 + 2) == 0
    committed, provisional = model.step(state, 4, 2)
    assert_same(committed, {name: values[:4] for name, values in chunked(model, mel, 4, 2).items()})
    assert_same(provisional, model.preview(state))  # the look-ahead, as if the utterance ended there
    assert model.step(state, 4, 2) is None


@every_kind
def test_state_and_work_stay_constant_over_a_long_stream(cell, subsampling):
    model = small_runtime(cell, subsampling)
    run: list[int] = []  # frames that went through the first forward RNN
    hook = model.model.layers[0].forward_rnn.register_forward_hook(lambda _, args, out: run.append(args[0].shape[1]))
    state, sizes, work = model.stream_state(), [], []
    for _ in range(150):
        model.push(state, mel_frames(24))
        drain(model, state, 4, 2)
        arrays = [state.mel, state.frames, *state.rnn]
        assert all(array.base is None for array in arrays)  # none is a view that keeps a larger one alive
        sizes.append(sum(array.nbytes for array in arrays))
        work.append(sum(run))
        run.clear()
    hook.remove()
    assert state.committed > 800
    assert max(sizes[5:15]) == max(sizes[-10:]) and max(sizes) < 5000
    assert sum(work[6:78]) == sum(work[78:150]) > 0


@every_kind
@pytest.mark.parametrize("waiting", [1, 3, 6, 11])
def test_preview_is_what_an_utterance_that_ends_here_would_give(cell, subsampling, waiting):
    """For as many frames as the stem has made; any number of them beyond the first window runs in one piece too."""
    model, mel = small_runtime(cell, subsampling), mel_frames(200)
    state = model.stream_state()
    model.push(state, mel[: 7 * subsampling])
    drain(model, state, 3, 1)
    model.push(state, mel[7 * subsampling :][: (waiting - 1) * subsampling])
    before = copy.deepcopy(state)
    preview = model.preview(state)
    assert_same(model.preview(state), preview, 0)
    for name in ("mel", "frames"):
        assert np.array_equal(getattr(state, name), getattr(before, name))
    assert all(np.array_equal(new, old) for new, old in zip(state.rnn, before.rnn, strict=True))
    assert (state.committed, state.ended) == (before.committed, before.ended)
    before.ended = True
    chunk = max(1, before.frames.shape[1] - 2)
    ended = drain(model, before, chunk, 2)
    assert_same(preview, {name: np.concatenate([part[name] for part in ended]) for name in HEADS})


@every_kind
def test_the_latency_may_change_while_streaming(cell, subsampling):
    """Chunks committed after a change see the new look-ahead; nothing is lost or said twice."""
    model, mel = small_runtime(cell, subsampling), mel_frames(160)
    state, parts = model.stream_state(), []
    for i, piece in enumerate(np.split(mel, range(20, 160, 20))):
        model.push(state, piece, last=i == 7)
        parts += drain(model, state, *[(8, 4), (2, 1), (5, 9)][i % 3])
    assert sum(len(part["phonemes"]) for part in parts) == -(-160 // subsampling)


@every_kind
@pytest.mark.parametrize("mels", [*range(1, 14), 100])
def test_frame_counts(cell, subsampling, mels):
    model, mel, frames = small_runtime(cell, subsampling), mel_frames(mels), -(-mels // subsampling)
    assert model.frame_lengths(np.array([mels])).tolist() == [frames]
    for out in (full(model, mel), chunked(model, mel, 2, 1), stream(model, mel, [mels // 2], 2, 1)):
        assert {name: values.shape for name, values in out.items()} == {k: (frames, v) for k, v in HEADS.items()}
        for values in out.values():
            np.testing.assert_allclose(np.exp(values).sum(-1), np.ones(frames), rtol=1e-5)


@every_kind
def test_an_utterance_without_a_mel_frame_gives_no_emission(cell, subsampling):
    model = small_runtime(cell, subsampling)
    state = model.stream_state()
    model.push(state, mel_frames(0), last=True)
    assert model.step(state, 4, 2) is None


@every_kind
def test_gradients_flow_through_forward_chunked(cell, subsampling):
    model = copy.deepcopy(small_model(cell, subsampling)).requires_grad_(True)
    mel = torch.from_numpy(mel_frames(2, 60)).requires_grad_()
    out, _ = model.forward_chunked(mel, torch.tensor([60, 41]), 4, 2)
    sum(values[:, :8].square().sum() for values in out.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    assert mel.grad[0, :3].abs().max() > 0  # through the carried state
    assert mel.grad[0, 9 * subsampling + model.config.context].abs().max() > 0  # through the look-ahead
    assert mel.grad[0, 10 * subsampling + model.config.context :].abs().max() == 0  # and no further


def test_unknown_kinds_name_the_choices():
    with pytest.raises(ValueError, match=r"'elman'.*rnn, gru, lstm"):
        AcousticModel(ModelConfig("elman"), BANDS, HEADS)
    with pytest.raises(ValueError, match=r"subsampling 5.*4, 3"):
        AcousticModel(ModelConfig(subsampling=5), BANDS, HEADS)


@pytest.fixture(scope="module")
def golden():
    """A real utterance, and its emissions by an independent implementation, with that implementation's weights."""
    folder = SHARED / "reference"
    if not (folder / "golden.npz").is_file():
        pytest.skip("the reference model is not beside the repository (shared/reference)")
    tokens = json.loads((folder / "config.json").read_text(encoding="utf-8"))["tokens"]
    model = AcousticModel(ModelConfig(), 80, {head: len(symbols) for head, symbols in tokens.items()})
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name + "_l0" * ("_rnn." in name): value.float() for name, value in weights.items()})
    return TorchModel(model.eval().requires_grad_(False)), np.load(folder / "golden.npz")


@pytest.mark.parametrize("name, latency", [("full", None), ("chunk16_8", (16, 8)), ("chunk8_4", (8, 4))])
def test_golden_emissions(golden, name, latency):
    model, arrays = golden
    mel = arrays["log_mel"]
    out = full(model, mel) if latency is None else chunked(model, mel, *latency)
    assert set(out) == {"characters", "phonemes"}
    for head, values in out.items():
        np.testing.assert_allclose(values, arrays[f"{name}_{head}"], rtol=0, atol=1e-3)
    if latency:
        for head, values in stream(model, mel, list(range(13, len(mel), 13)), *latency).items():
            np.testing.assert_allclose(values, arrays[f"{name}_{head}"], rtol=0, atol=1e-3)


@pytest.mark.model
def test_golden_features(golden):
    """The shipped frontend hears in the reference's recording what the reference's did."""
    if not (SHARED / "speech" / "index.jsonl").is_file():
        pytest.skip("the recording is not beside the repository (shared/speech)")
    arrays = golden[1]
    utterance = manifest.read(SHARED / "speech" / "index.jsonl")[int(arrays["line"])]
    got = checkpoint.load("en-small").frontend(manifest.load(utterance))
    np.testing.assert_allclose(got, arrays["log_mel"], rtol=0, atol=1e-3)
