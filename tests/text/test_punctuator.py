import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from asr.errors import CheckpointError
from asr.text import punctuator as module
from asr.text.labels import CAPITAL, COMMA, LOWER, MIXED, NONE, PERIOD, UPPER
from asr.text.punctuator import Punctuator, PunctuatorConfig, Tag, grams, pause_input, quantize

CONFIG = PunctuatorConfig(
    "en",
    ["and", "so"],
    width=6,
    buckets=16,
    hidden=4,
    layers=2,
    forms={"iphone": "iPhone"},
    abbreviations={"mr": "Mr."},
)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "words": (4, 6),
        "pieces": (16, 6),
        "marks": (4, 8),
        "cases": (4, 8),
        "marks.bias": (4,),
        "cases.bias": (4,),
    }
    for layer, size in ((0, 8), (1, 8)):
        for direction in ("forward", "backward"):
            shapes |= {
                f"{layer}.{direction}.input": (16, size),
                f"{layer}.{direction}.state": (16, 4),
                f"{layer}.{direction}.bias": (16,),
            }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def punctuator() -> Punctuator:
    return Punctuator(CONFIG, weights())


def test_equals_pytorchs_lstm(punctuator):
    torch = pytest.importorskip("torch")
    values = weights()
    rnn = torch.nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for layer in range(2):
            for direction, suffix in (("forward", ""), ("backward", "_reverse")):
                for part, name in (("input", "weight_ih"), ("state", "weight_hh"), ("bias", "bias_ih")):
                    getattr(rnn, f"{name}_l{layer}{suffix}").copy_(
                        torch.from_numpy(values[f"{layer}.{direction}.{part}"])
                    )
                getattr(rnn, f"bias_hh_l{layer}{suffix}").zero_()
    words, pauses = ["and", "rill", "so"], np.array([0.0, 0.5, np.nan])
    vectors = [
        values["words"][0],
        *(
            values["words"][row] + values["pieces"][grams(word, 16)].mean(0)
            for word, row in (("and", 2), ("rill", 1), ("so", 3))
        ),
        values["words"][0],
    ]
    inputs = np.concatenate([np.stack(vectors), pause_input(np.array([np.nan, *pauses, np.nan]))], axis=1)
    hidden = rnn(torch.from_numpy(inputs)[None])[0][0, 1:-1].detach().numpy()
    expected = np.concatenate(
        [hidden @ values["marks"].T + values["marks.bias"], hidden @ values["cases"].T + values["cases.bias"]], axis=1
    )
    assert np.allclose(punctuator.scores(words, pauses), expected, atol=1e-5)


@given(st.integers(0, 40))
def test_a_tag_for_each_word(count):
    tags = Punctuator(CONFIG, weights()).tag(["and"] * count)
    assert len(tags) == count
    assert all(0 <= tag.mark < 4 and 0 <= tag.case < 4 for tag in tags)


def test_long_text_is_read_in_windows_that_overlap(punctuator, monkeypatch):
    words = ["and", "so", "rill"] * 41
    pauses = np.linspace(0, 1, len(words))
    whole = punctuator.tag(words, pauses)
    monkeypatch.setattr(module, "WINDOW", 16)
    monkeypatch.setattr(module, "OVERLAP", 40)
    shapes = []
    bidirectional = module.bidirectional
    monkeypatch.setattr(
        module, "bidirectional", lambda layer, texts: shapes.append(texts.shape[:2]) or bidirectional(layer, texts)
    )
    assert punctuator.tag(words, pauses) == whole
    assert set(shapes) == {(3, 98)}  # from words 0, 16 and 27 on, 96 each, and the boundaries around them


def test_words_end_with_a_sentence_where_nothing_says_that_they_go_on():
    """What the tagger makes of the last word lies between the odds of a recording's end and those of a cut."""
    for seed in range(40):
        punctuator = Punctuator(CONFIG, weights(seed))
        for pause in (np.nan, 0.3, 0.8):
            pauses = np.array([0.1, pause])
            marks = punctuator.scores(["and", "so"], pauses)[-1, :4]
            marks[2:] += np.log(10.0 if np.isnan(pause) else 0.7)
            assert punctuator.tag(["and", "so"], pauses)[-1].mark == marks.argmax()


def test_saved_tagger_is_nearly_the_same(punctuator, tmp_path):
    path = tmp_path / "punctuation.safetensors"
    module.save(path, CONFIG, weights())
    again = Punctuator.load(path)
    assert again.config == CONFIG
    assert {values.dtype for name, values in load_file(path).items() if "." not in name} == {np.dtype(np.int8)}
    words = ["and", "so", "on"]
    assert np.allclose(again.scores(words, np.full(3, np.nan)), punctuator.scores(words, np.full(3, np.nan)), atol=0.1)


def test_vectors_in_8_bits_are_those_that_they_stand_for():
    values = weights()
    small, wide = dict(values), dict(values)
    for name in module.VECTORS:
        small[name], small[f"{name}.scale"] = quantize(values[name])
        wide[name] = small[name] * small[f"{name}.scale"]
    words, pauses = ["and", "rill", "so"], np.array([0.0, 0.5, np.nan])
    one, other = (Punctuator(CONFIG, each).scores(words, pauses) for each in (small, wide))
    assert np.array_equal(one, other)


def test_quantize_keeps_a_row_within_half_a_step():
    matrix = np.array([[1.0, -2.0, 0.004], [0.0, 0.0, 0.0]], np.float32)
    integers, scale = quantize(matrix)
    assert np.abs(integers * scale - matrix).max() <= scale.max() / 2


@pytest.mark.parametrize(
    ("word", "tag", "first", "written"),
    [
        ("hello", Tag(NONE, LOWER), True, "Hello"),
        ("hello", Tag(COMMA, LOWER), False, "hello,"),
        ("paris", Tag(PERIOD, CAPITAL), False, "Paris."),
        ("nasa's", Tag(NONE, UPPER), False, "NASA's"),
        ("i'm", Tag(NONE, CAPITAL), False, "I'm"),
        ("iphone", Tag(NONE, MIXED), True, "iPhone"),
        ("unlisted", Tag(NONE, MIXED), False, "Unlisted"),
        ("mr", Tag(NONE, CAPITAL), False, "Mr."),
        ("mr", Tag(COMMA, CAPITAL), False, "Mr,"),
    ],
)
def test_write(punctuator, word, tag, first, written):
    assert punctuator.write(word, tag, first) == written


def test_punctuate_keeps_the_words(punctuator):
    text = punctuator.punctuate("and so on and\tso forth")
    assert [word.strip(",.?").lower() for word in text.split()] == ["and", "so", "on", "and", "so", "forth"]
    assert text[0].isupper()
    assert punctuator.punctuate("") == ""


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "punctuation.safetensors"
    with pytest.raises(CheckpointError, match=r"punctuation\.safetensors"):
        Punctuator.load(path)
    path.write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"punctuation\.safetensors"):
        Punctuator.load(path)
    save_file({"words": np.zeros((2, 2), np.float32)}, path, {"config": json.dumps({"language": "en"})})
    with pytest.raises(CheckpointError, match=r"punctuation\.safetensors"):
        Punctuator.load(path)
    module.save(path, CONFIG, weights() | {"marks": np.zeros((3, 8), np.float32)})
    with pytest.raises(CheckpointError, match="marks"):
        Punctuator.load(path)
