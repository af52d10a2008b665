import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.numpy import save_file

from asr.decoding.neural_lm import FILE, NeuralLM
from asr.errors import CheckpointError
from asr.training.neural_lm import Text
from tests.support.neural_lm import WORDS, small_lm


def test_probabilities_of_all_words_sum_to_one() -> None:
    """Also those behind the softmax of the frequent words."""
    network = small_lm()
    every = torch.arange(len(WORDS) + 2)
    sentences = torch.stack([torch.full_like(every, 7), every], dim=1)
    trained = network(sentences, torch.full((len(every),), 2)).reshape(-1, 2)[:, 1]
    assert math.isclose(trained.exp().sum().item(), 1.0, abs_tol=1e-4)
    found = network.trained().score([["w5", word] for word in WORDS] + [["w5"]])
    unknown = trained[1].exp().item()
    assert math.isclose(sum(math.exp(scores[1]) for scores in found) + unknown, 1.0, abs_tol=1e-4)
    assert len(network.config.bounds) == 3


def test_a_word_depends_on_all_words_before_it_and_on_none_after() -> None:
    model = small_lm().trained()
    one, other, longer = (model.score([sentence.split()])[0] for sentence in ("w1 w2 w3", "w9 w2 w3", "w1 w2 w3 w4"))
    assert one[:3] == pytest.approx(longer[:3], abs=1e-5)
    assert one[0] != pytest.approx(other[0]) and one[2] != pytest.approx(other[2], abs=1e-6)


def test_scores_do_not_depend_on_the_company() -> None:
    model = small_lm().trained()
    sentences = [sentence.split() for sentence in ("w1 w2 w3", "", "w1 w2 w50 w51 w52", "w1 w2 w3 w40")]
    together = model.score(sentences)
    assert [len(scores) for scores in together] == [4, 1, 6, 5]
    for sentence, scores in zip(sentences, together, strict=True):
        assert model.score([sentence])[0] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_scores_are_those_of_training(layers: int) -> None:
    network = small_lm(layers=layers)
    sentences = ["w1 w2 w50", "w1 w2", "w59 w0 w1 w2"]
    text = Text.of(network.config, sentences)
    with torch.inference_mode():
        expected = network(*text.batch(torch.arange(len(sentences)), torch.device("cpu"))).tolist()
    found = network.trained().score([sentence.split() for sentence in sentences])
    assert [score for scores in found for score in scores] == pytest.approx(expected, abs=1e-5)


def test_unknown_words_have_no_score() -> None:
    first, unknown, end = small_lm().trained().score([["w1", "rill"]])[0]
    assert math.isnan(unknown) and not math.isnan(first) and not math.isnan(end)


def test_file_round_trip(tmp_path: Path) -> None:
    model = small_lm(layers=2).trained()
    model.save(tmp_path / FILE)
    back = NeuralLM.load(tmp_path / FILE)
    assert back.config == model.config
    sentence = ["w3", "w4", "w55"]
    assert back.score([sentence])[0] == pytest.approx(model.score([sentence])[0], abs=0.01)  # half precision
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("harm", ["missing", "cut", "words", "other"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, harm: str) -> None:
    path = tmp_path / FILE
    model = small_lm().trained()
    if harm != "missing":
        model.save(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    if harm == "words":
        save_file(dict(model.weights), path, {"config": json.dumps(asdict(model.config) | {"words": WORDS[:50]})})
    if harm == "other":
        save_file(dict(model.weights), path)
    with pytest.raises(CheckpointError, match="not a usable neural language model") as error:
        NeuralLM.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
