import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from asr.audio.features import FrontendConfig, build
from asr.errors import CheckpointError
from asr.model import checkpoint
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import Config, DecodingConfig
from asr.model.streaming import ModelConfig
from asr.model.tokens import TokenSet

TOKENS = {
    "characters": TokenSet(("-", " ", "a", "b"), "-", " ", (0.5, 0.2, 0.2, 0.1)),
    "phonemes": TokenSet(("-", "|", "AA", "B", "Ö"), "-", "|", (0.4, 0.3, 0.1, 0.1, 0.1)),
}


def small_config(cell: str = "gru") -> Config:
    return Config(
        "tiny",
        "en",
        "CC0",
        FrontendConfig(mels=20),
        ModelConfig(cell, 8, 2, 2, 4),
        TOKENS,
        DecodingConfig(lm_confidence=(0.5, -1.0)),
        {"minutes": 3},
    )


def small_model(config: Config) -> AcousticModel:
    torch.manual_seed(0)
    return AcousticModel(config.model, 20, {name: len(tokens) for name, tokens in config.tokens.items()})


@pytest.fixture
def folder(tmp_path):
    """A sound small checkpoint that a test may damage; its files are not listed, so that what is in them is checked."""
    config = small_config()
    checkpoint.save(tmp_path / "tiny", config, small_model(config).weights())
    return edited(tmp_path / "tiny", lambda data: data.pop("files") and data)


def edited(folder: Path, edit) -> Path:
    """Apply `edit` to the parsed config.json; what it returns, if anything, takes its place."""
    path = folder / "config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    changed = edit(data)
    path.write_text(json.dumps(data if changed is None else changed), encoding="utf-8")
    return folder


def put(*keys, value):
    """An edit that sets one value, for instance put("model", "hidden", value=3)."""

    def edit(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


def refused(folder: Path) -> str:
    """The sentence that loading this checkpoint is refused with."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    message = str(caught.value)
    assert message.endswith((".", ")")) and "\n" not in message
    return message


def test_weights_that_were_let_go_are_read_again(recognizer):
    kept, whole = recognizer.engine.checkpoint, checkpoint.load()
    assert not kept.stored and kept.size == whole.size == sum(values.size for values in whole.stored.values())
    again = kept.weights()
    assert again.keys() == whole.stored.keys()
    assert all(np.array_equal(again[name], values.astype(np.float32)) for name, values in whole.stored.items())
    assert np.array_equal(kept.mel_std, whole.mel_std)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_round_trip(tmp_path, cell):
    config = small_config(cell)
    model = small_model(config)
    model.mel_mean.normal_()
    checkpoint.save(tmp_path / "new" / "one", config, model.weights())
    loaded = checkpoint.load(tmp_path / "new" / "one")
    assert loaded.config == config
    assert loaded.seconds_per_frame == pytest.approx(0.04)
    restored = loaded.torch_model()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(restored.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
        assert restored.state_dict()[name].dtype == torch.float32
    assert not restored.training and not any(p.requires_grad for p in restored.parameters())
    mel = torch.randn(1, 50, 20)
    for head, values in restored(mel)[0].items():
        torch.testing.assert_close(values, model(mel)[0][head], rtol=0, atol=5e-3)
    assert {file.name for file in (tmp_path / "new" / "one").iterdir()} == {"config.json", "model.safetensors"}
    saved = load_file(tmp_path / "new" / "one" / "model.safetensors")
    assert {t.dtype for name, t in saved.items() if not name.startswith("mel_")} == {torch.float16}
    torch.testing.assert_close(saved["mel_mean"], model.mel_mean, rtol=0, atol=0)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("subsampling", [3, 4])
def test_the_shapes_are_those_of_pytorchs_model(cell, subsampling):
    config, heads = ModelConfig(cell, 8, 3, 5, subsampling), {"characters": 6, "phonemes": 9}
    expected = {name: tuple(each.shape) for name, each in AcousticModel(config, 21, heads).state_dict().items()}
    assert checkpoint.shapes(config, 21, heads) == expected


def test_saving_twice_replaces_the_first(tmp_path):
    config = small_config()
    for licence in ("CC0", "MIT"):
        checkpoint.save(tmp_path, dataclasses.replace(config, licence=licence), small_model(config).weights())
    assert checkpoint.load(tmp_path).config.licence == "MIT"


def test_optional_files(folder):
    loaded = checkpoint.load(folder)
    assert loaded.optional("ngram.safetensors") is None
    (folder / "ngram.safetensors").write_bytes(b"x")
    assert loaded.optional("ngram.safetensors") == folder / "ngram.safetensors"


def test_optional_sections_and_keys_have_defaults(folder):
    def edit(data):
        del data["decoding"], data["training"], data["frontend"]["pcen_gain"]

    config = checkpoint.load(edited(folder, edit)).config
    assert config.decoding == DecodingConfig() and config.training == {} and config.frontend.pcen_gain == 0.98


def test_the_shipped_checkpoint_is_found_by_name_and_by_default():
    assert checkpoint.find() == checkpoint.find(checkpoint.DEFAULT)
    config = checkpoint.read_config(checkpoint.find() / "config.json")
    assert config.name == checkpoint.DEFAULT
    assert build(config.frontend).bands


def test_a_missing_folder(tmp_path):
    assert "no checkpoint" in refused(tmp_path / "nowhere") and "nowhere" in refused(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"'de-huge'.*asr models"):
        checkpoint.load("de-huge")


def test_a_folder_without_config(tmp_path):
    assert "no config.json" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b"\xff\xfe\x00",
        b'{"format": 1',
        b"[" * 100_000,
        b'{"format": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_config_that_is_no_json_object(folder, content):
    (folder / "config.json").write_bytes(content)
    assert "config.json" in refused(folder)


@pytest.mark.parametrize(
    "keys",
    [
        ("color",),
        ("frontend", "color"),
        ("model", "color"),
        ("decoding", "color"),
        ("tokens", "characters", "color"),
        ("tokens", "phonemes", "color"),
    ],
)
def test_an_unknown_key_at_any_level(folder, keys):
    message = refused(edited(folder, put(*keys, value=1)))
    assert f"unknown key '{'.'.join(keys)}'" in message


@pytest.mark.parametrize(
    "keys",
    [
        ("name",),
        ("licence",),
        ("frontend",),
        ("model",),
        ("tokens",),
        ("tokens", "phonemes", "blank"),
        ("tokens", "characters", "priors"),
    ],
)
def test_a_missing_key(folder, keys):
    def edit(data):
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    assert f"the key '{'.'.join(keys)}' is missing" in refused(edited(folder, edit))


@pytest.mark.parametrize(
    "keys, values",
    [
        (("format",), [0, 2, "1", None, [1]]),
        (("name",), [1, None, ["en"], {}]),
        (("model",), [1, "lstm", None, []]),
        (("tokens",), [1, None, [], {}]),
        (("tokens", "characters"), [1, None, [], "ab"]),
        (("tokens", "characters", "symbols"), ["ab", 1, None, [1, 2, 3, 4], {"a": 1}]),
        (("tokens", "characters", "priors"), ["ab", 1, ["a"], [True] * 4, [float("nan")] * 4]),
        (("model", "hidden"), ["8", 0, -8, 8.5, True, None, [8], float("nan"), float("inf"), 10**400]),
        (("frontend", "f_min"), ["20", None, [20], True, float("inf"), 10**400]),
        (("frontend", "kind"), [1, None, ["log_mel"]]),
        (("decoding", "lm_confidence"), [1, "x", [None], ["1"], {}]),
    ],
)
def test_a_value_of_the_wrong_kind(folder, keys, values):
    for value in values:
        message = refused(edited(folder, put(*keys, value=value)))
        assert keys[-1] in message, message


@pytest.mark.parametrize(
    "keys, value, said",
    [
        (("frontend", "kind"), "fbank", "log_mel, mfcc, pcen"),
        (("model", "cell"), "elman", "rnn, gru, lstm"),
        (("model", "subsampling"), 5, "4, 3"),
        (("tokens", "characters", "blank"), "?", "blank '?'"),
        (("tokens", "characters", "boundary"), "?", "boundary '?'"),
        (("tokens", "characters", "symbols"), ["-", " ", "a", "a"], "differ"),
        (("tokens", "characters", "priors"), [0.5, 0.5], "2 priors for 4 symbols"),
        (("tokens", "characters", "priors"), [0.0, 0.5, 0.3, 0.2], "priors must lie in"),
        (("frontend", "f_min"), 9000, "f_min and f_max"),
        (("frontend", "f_max"), 8001, "half of sample_rate"),
        (("frontend", "window"), 513, "n_fft"),
        (("decoding", "lm_weight"), 0, "lm_weight must be greater than 0"),
        (("decoding", "beam_threshold"), -1, "beam_threshold must be greater than 0"),
        (("decoding", "prior_scale"), -0.1, "prior_scale must be 0 or more"),
        (("decoding", "hotword_bonus"), -1, "hotword_bonus must be 0 or more"),
        (("decoding", "beam"), 0, "beam must be 1 or more"),
    ],
)
def test_a_value_that_cannot_be(folder, keys, value, said):
    assert said in refused(edited(folder, put(*keys, value=value)))


@pytest.mark.parametrize("name", ["a.b", "", "keys"])
def test_a_head_by_a_name_that_no_module_can_have(folder, name):
    edited(folder, lambda data: data["tokens"].update({name: data["tokens"]["phonemes"]}))
    assert "config.json" in refused(folder)


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refused(folder)


def test_weights_that_are_a_folder(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert "model.safetensors" in refused(folder)


def change_weights(folder: Path, change) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_missing_tensor(folder):
    assert "no tensor 'stem.conv1.bias'" in refused(change_weights(folder, lambda t: t.pop("stem.conv1.bias")))


def test_a_tensor_too_many(folder):
    assert "'head.extra'" in refused(change_weights(folder, lambda t: t.update({"head.extra": torch.zeros(1)})))


@pytest.mark.parametrize("shape", [(7,), (8, 1), (), (0,)])
def test_a_tensor_of_another_shape(folder, shape):
    message = refused(change_weights(folder, lambda t: t.update({"norm.bias": torch.zeros(shape)})))
    assert "'norm.bias'" in message and str(shape) in message and "(8,)" in message


@pytest.mark.parametrize(
    "keys, value",
    [
        (("model", "hidden"), 16),
        (("model", "layers"), 1),
        (("model", "layers"), 3),
        (("model", "cell"), "lstm"),
        (("frontend", "mels"), 40),
        (("frontend", "kind"), "mfcc"),
    ],
)
def test_weights_of_another_model(folder, keys, value):
    assert "config.json" in refused(edited(folder, put(*keys, value=value)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layers.1.forward_rnn.weight_hh_l0", "mel_std"])
def test_weights_that_are_no_numbers(folder, name, value):
    def change(tensors):
        tensors[name].view(-1)[3] = value

    assert f"'{name}'" in refused(change_weights(folder, change))


def test_a_truncated_file(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:length])
        assert "truncated" in refused(folder)
    (folder / "model.safetensors").write_bytes(whole + b"\0")
    assert "model.safetensors" in refused(folder)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 5, "torch"])
def test_a_pickle_is_refused_and_never_run(folder, tmp_path, protocol):
    trap = Trap(tmp_path / "sprung")
    if protocol == "torch":
        torch.save({"stem.conv1.bias": trap}, folder / "model.safetensors")
    else:
        (folder / "model.safetensors").write_bytes(pickle.dumps(trap, protocol))
    assert "model.safetensors" in refused(folder)
    assert not trap.path.exists()
    pickle.loads(pickle.dumps(trap))
    assert trap.path.exists()  # the trap does work


# Whatever is in the files, loading succeeds or is refused with a CheckpointError.


class Fuzzed:
    """A sound checkpoint's two files, and a folder where damaged ones are tried."""

    def __init__(self, folder: Path) -> None:
        config = small_config()
        checkpoint.save(folder, config, small_model(config).weights())
        self.folder = edited(folder, lambda data: data.pop("files") and data)
        self.config, self.weights = (folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()
        self.header = 8 + int.from_bytes(self.weights[:8], "little")

    def load(self, config: bytes | None = None, weights: bytes | None = None) -> None:
        (self.folder / "config.json").write_bytes(self.config if config is None else config)
        (self.folder / "model.safetensors").write_bytes(self.weights if weights is None else weights)
        message = "none"
        try:
            checkpoint.load(self.folder)
        except CheckpointError as error:
            message = str(error)
        assert message


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return Fuzzed(tmp_path_factory.mktemp("fuzz"))


def flip(data: bytes, bits: list[int]) -> bytes:
    damaged = bytearray(data)
    for bit in bits:
        damaged[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(damaged)


@settings(max_examples=100)
@given(bits=st.lists(st.integers(0, 8 * 3000), min_size=1, max_size=3))
def test_bit_flips_of_the_config(fuzzed, bits):
    fuzzed.load(config=flip(fuzzed.config, bits))


@settings(max_examples=100)
@given(bits=st.lists(st.integers(0, 8 * 3500), min_size=1, max_size=3))
def test_bit_flips_of_the_weights_header(fuzzed, bits):
    fuzzed.load(weights=flip(fuzzed.weights[: fuzzed.header], bits) + fuzzed.weights[fuzzed.header :])


@settings(max_examples=50)
@given(junk=st.binary(max_size=300), position=st.integers(0, 3000))
def test_random_bytes(fuzzed, junk, position):
    fuzzed.load(config=junk)
    fuzzed.load(config=fuzzed.config[:position] + junk + fuzzed.config[position:])
    fuzzed.load(weights=junk)
    fuzzed.load(weights=fuzzed.weights[:position] + junk + fuzzed.weights[position + len(junk) :])


# Numbers stay small: a config may ask for a model as large as the memory.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.floats(-50, 50)
    | st.text(max_size=4)
    | st.sampled_from([float("nan"), float("inf"), 10**400, -(10**400), "\ud800", "lstm", "mfcc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150)
@given(data=st.data(), value=VALUES)
def test_any_value_under_any_key(fuzzed, data, value):
    parsed = json.loads(fuzzed.config)
    place = parsed
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    if data.draw(st.booleans()):
        place[key] = value
    else:
        place[repr(value)[:9]] = place.pop(key)
    fuzzed.load(config=json.dumps(parsed).encode("utf-8", "replace"))


def test_the_shipped_one_is_small():
    sizes = [path.stat().st_size for path in checkpoint.find().iterdir()]
    assert sum(sizes) < 110e6 and max(sizes) < 90e6
