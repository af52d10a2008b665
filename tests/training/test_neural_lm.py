"""Training the LSTM language model: text to numbers, batches, perplexity, resuming."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.decoding.neural_lm import END, FILE, UNKNOWN, NeuralLM
from asr.errors import CheckpointError, LanguageModelError
from asr.training import neural_lm
from asr.training.neural_lm import STATE, TEXT, LMTrainingState, Text, fit, train, train_from_texts
from asr.training.neural_lm_network import NeuralLMNetwork
from tests.conftest import Asr
from tests.support.checkpoints import only_config, wrong
from tests.support.neural_lm import WORDS, chains, small_lm


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural_lm, "BATCH_WORDS", 128)
    monkeypatch.setattr(neural_lm, "WARMUP_UPDATES", 10)
    monkeypatch.setattr(neural_lm, "LEARNING_RATE", 1e-2)
    monkeypatch.setattr(neural_lm, "SAVE_EVERY_UPDATES", 20)
    monkeypatch.setattr(neural_lm, "fast_in_bfloat16", lambda device: False)


def test_text_is_cut_into_sentences_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural_lm, "MAX_SENTENCE_WORDS", 3)
    text = Text.of(small_lm().config, ["w0 w1", "", "w2 rill w4 w5"])
    assert text.words.tolist() == [2, 3, END, 4, UNKNOWN, 6, END, 7, END] and text.starts.tolist() == [0, 3, 7, 9]


def test_batches_hold_each_sentence_once_with_little_padding(small: None) -> None:
    text = Text.of(small_lm().config, chains(400))
    lengths = text.starts.diff()
    first, second = text.batches(0), text.batches(1)
    assert len(first) == len(second) and torch.cat(first).sort()[0].tolist() == list(range(400))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    assert sum(int(lengths[batch].max()) * len(batch) for batch in first) < 1.1 * lengths.sum()
    assert max(int(lengths[batch].sum()) for batch in first) <= 128 + 10


@pytest.mark.e2e
def test_it_learns(small: None, tmp_path: Path) -> None:
    model = small_lm()
    text, held_out = Text.of(model.config, chains(600)), Text.of(model.config, chains(50, seed=1))
    before = fit(model, held_out)
    train(LMTrainingState.begin(model, 200), text, held_out, tmp_path)
    after = fit(model, held_out)
    assert before.perplexity > 45 and after.perplexity < 8
    assert (after.sentences, after.words, after.unknown) == (50, len(held_out.words) - 50, 0)
    right, wrong = model.trained().score([["w10", "w11", "w12"], ["w10", "w12", "w11"]])
    assert sum(right) > sum(wrong) + 3


def test_unknown_words_do_not_count_in_the_perplexity() -> None:
    model = small_lm().eval()
    known = fit(model, Text.of(model.config, ["w1 w2"]))
    first, second, _ = model.trained().score([["w1", "w2"]])[0]
    mixed = fit(model, Text.of(model.config, ["w1 w2 rill"]))
    assert mixed.unknown == 1 and known.log10 == pytest.approx(
        sum(model.trained().score([["w1", "w2"]])[0]) / math.log(10)
    )
    end = model.trained().score([["w1", "w2", "rill"]])[0][3]
    assert mixed.log10 == pytest.approx((first + second + end) / math.log(10), abs=1e-4)


def test_a_resumed_run_equals_an_unbroken_one(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def killed(
        run: LMTrainingState, words: torch.Tensor, lengths: torch.Tensor, step: Any = LMTrainingState.step
    ) -> float:
        if run.update == 33:  # 13 updates after the state was saved, in the second epoch
            raise Killed
        return step(run, words, lengths)

    text = Text.of(small_lm().config, chains(500))
    assert 22 < len(text.batches(0)) < 30
    seeds = []
    monkeypatch.setattr(Text, "batches", lambda text, seed, of=Text.batches: seeds.append(seed) or of(text, seed))
    whole = LMTrainingState.begin(small_lm(), 45)
    train(whole, text, Text.of(small_lm().config, []), tmp_path)
    assert seeds == [0, 0, 1]  # each epoch in another order
    broken = tmp_path / "broken"
    broken.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(LMTrainingState, "step", killed)
        with pytest.raises(Killed):
            train(LMTrainingState.begin(small_lm(), 45), text, text, broken)
    resumed = LMTrainingState.restore(broken, torch.device("cpu"))
    assert resumed.update == 20
    train(resumed, text, text, broken)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_from_texts_to_a_model(small: None, asr: Asr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"embedding": 96, "hidden": 48}
    monkeypatch.setattr(neural_lm, "NeuralLMNetwork", lambda config: NeuralLMNetwork(replace(config, **sizes)))
    source, out = tmp_path / "text.txt", only_config(tmp_path / "new")
    letters = str.maketrans("0123456789", "abcdefghij")  # numbers would be spelled out
    source.write_text("\n".join(chains(300)).translate(letters), encoding="utf-8")
    test = tmp_path / "test.jsonl"
    (tmp_path / "a.wav").touch()
    test.write_text(json.dumps({"audio": "a.wav", "text": "Wb wc, wd!", "split": "dev", "corpus": "mine"}) + "\n")

    def lm(*more: object) -> str:
        status, said, err = asr(
            "lm", "--neural", source, "--out", out, "--vocab", 40, "--without", test, "--device", "cpu", *more
        )
        assert (status == 0) == (err == "")
        return said or err

    said = lm("--epochs", 3)
    assert "48/48: perplexity" in said  # 16 batches
    assert "Vocabulary: 40 words" in said and "text held out" in said and "test, mine" in said
    assert {path.name for path in out.iterdir()} == {FILE, "config.json"} and FILE not in wrong(out)
    assert len(NeuralLM.load(out / FILE).config.words) == 40
    assert "nothing to resume" in lm("--resume")
    (out / STATE).write_bytes(b"PK half of a state")
    assert "has not ended: go on with --resume" in lm()
    assert f"{STATE} does not fit" in lm("--resume")
    LMTrainingState.begin(small_lm(), 5).save(out)
    assert f"{TEXT} is missing or broken" in lm("--resume")
    with pytest.raises(LanguageModelError, match="texts"):
        train_from_texts([], tmp_path / "none", vocabulary=40, tests={}, language="en", device="cpu")


def test_training_goes_on_from_a_model(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small_lm()
    first.trained().save(tmp_path / "first.safetensors")
    source, out = tmp_path / "text.txt", only_config(tmp_path / "new")
    source.write_text("w1 w2 strange\n" * 200, encoding="utf-8")
    rates = []
    monkeypatch.setattr(neural_lm, "learning_rate", lambda *a, peak, **b: rates.append(peak) or 0.0)
    more = {"vocabulary": 3, "tests": {}, "language": "en", "device": "cpu"}
    train_from_texts([source], out, init=tmp_path / "first.safetensors", **more)
    found = NeuralLM.load(out / FILE)
    assert found.config == first.config and set(rates) == {neural_lm.LEARNING_RATE / 4}  # the vocabulary is the model's
    for name, weight in NeuralLM.load(tmp_path / "first.safetensors").weights.items():
        assert (found.weights[name] == weight).all(), name  # nothing was learned at a rate of 0
    with pytest.raises(CheckpointError, match="not a usable neural"):
        train_from_texts([source], tmp_path / "no", init=tmp_path / "no.safetensors", **more)


def test_the_size_can_be_chosen(small: None, tmp_path: Path) -> None:
    source, out = tmp_path / "text.txt", only_config(tmp_path / "new")
    source.write_text("so it goes\n" * 200, encoding="utf-8")
    train_from_texts([source], out, vocabulary=3, tests={}, language="en", device="cpu", hidden=8)
    assert NeuralLM.load(out / FILE).config.hidden == 8


def test_every_weight_learns() -> None:
    model = small_lm()
    text = Text.of(model.config, [" ".join(WORDS)])
    (-model(*text.batch(torch.arange(1), torch.device("cpu"))).mean()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
