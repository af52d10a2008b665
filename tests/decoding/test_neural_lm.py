import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from asr.decoding.neural_lm import END, FILE, UNKNOWN, NeuralLM
from asr.errors import CheckpointError, LanguageModelError, TrainingError
from asr.training import neural_lm
from asr.training.neural_lm import STATE, TEXT, Run, Text, fit, train

WORDS = [f"w{i}" for i in range(60)]


def tiny(**sizes: int) -> NeuralLM:
    torch.manual_seed(0)
    return NeuralLM(WORDS, **{"embedding": 96, "hidden": 48} | sizes)


def chains(count: int, seed: int = 0) -> list[str]:
    """Sentences in which word i + 1 always follows word i: only where they start and end is open."""
    rng = random.Random(seed)
    return [" ".join(WORDS[first:first + rng.randint(2, 9)]) for first in rng.choices(range(50), k=count)]


@pytest.fixture()
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural_lm, "BATCH_WORDS", 128)
    monkeypatch.setattr(neural_lm, "WARMUP", 10)
    monkeypatch.setattr(neural_lm, "LEARNING_RATE", 1e-2)
    monkeypatch.setattr(neural_lm, "SAVE_EVERY", 20)
    monkeypatch.setattr(neural_lm, "fast_in_bfloat16", lambda device: False)


def numbers(model: NeuralLM, sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    text = Text.of(model, sentences)
    return text.batch(torch.arange(len(sentences)), torch.device("cpu"))


# --- the model


def test_probabilities_of_all_words_sum_to_one() -> None:
    """Also those behind the softmax of the frequent words."""
    model = tiny().eval()
    every = torch.arange(len(WORDS) + 2)
    sentences = torch.stack([torch.full_like(every, 7), every], dim=1)
    second = model(sentences, torch.full((len(every),), 2)).reshape(-1, 2)[:, 1]
    assert math.isclose(second.exp().sum().item(), 1.0, abs_tol=1e-4)
    assert len(model.softmax.cutoffs) == 3


def test_a_word_depends_on_all_words_before_it_and_on_none_after() -> None:
    model = tiny().eval()
    one, other, longer = (model.score([sentence.split()])[0] for sentence in ("w1 w2 w3", "w9 w2 w3", "w1 w2 w3 w4"))
    assert one[:3] == pytest.approx(longer[:3], abs=1e-5)
    assert one[0] != pytest.approx(other[0]) and one[2] != pytest.approx(other[2], abs=1e-6)


def test_scores_do_not_depend_on_the_company() -> None:
    model = tiny().eval()
    sentences = [sentence.split() for sentence in ("w1 w2 w3", "", "w1 w2 w50 w51 w52", "w1 w2 w3 w40")]
    together = model.score(sentences)
    assert [len(scores) for scores in together] == [4, 1, 6, 5]
    for sentence, scores in zip(sentences, together, strict=True):
        assert model.score([sentence])[0] == pytest.approx(scores, abs=1e-5)


def test_scores_are_those_of_training() -> None:
    model = tiny().eval()
    sentences = ["w1 w2 w50", "w59 w0"]
    expected = model(*numbers(model, sentences)).tolist()
    assert [score for scores in model.score([s.split() for s in sentences]) for score in scores] == pytest.approx(
        expected, abs=1e-5)


def test_unknown_words_have_no_score() -> None:
    first, unknown, end = tiny().score([["w1", "rill"]])[0]
    assert math.isnan(unknown) and not math.isnan(first) and not math.isnan(end)


def test_every_weight_learns() -> None:
    model = tiny()
    (-model(*numbers(model, [" ".join(WORDS)])).mean()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_file_round_trip(tmp_path: Path) -> None:
    model = tiny(layers=2)
    model.save(tmp_path / FILE)
    back = NeuralLM.load(tmp_path / FILE)
    assert back.config == model.config and not back.training
    sentence = ["w3", "w4", "w55"]
    assert back.score([sentence])[0] == pytest.approx(model.score([sentence])[0], abs=0.01)  # half precision
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("harm", ["missing", "cut", "words", "other"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, harm: str) -> None:
    path = tmp_path / FILE
    model = tiny()
    if harm != "missing":
        model.save(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    if harm == "words":
        save_file(model.state_dict(), path, {"config": json.dumps(model.config | {"words": WORDS[:50]})})
    if harm == "other":
        save_file(model.state_dict(), path)
    with pytest.raises(CheckpointError, match="not a usable neural language model") as error:
        NeuralLM.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


# --- training


def test_text_is_cut_into_sentences_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural_lm, "LONGEST", 3)
    text = Text.of(tiny(), ["w0 w1", "", "w2 rill w4 w5"])
    assert text.words.tolist() == [2, 3, END, 4, UNKNOWN, 6, END, 7, END] and text.starts.tolist() == [0, 3, 7, 9]


def test_batches_hold_each_sentence_once_with_little_padding(small: None) -> None:
    text = Text.of(tiny(), chains(400))
    lengths = text.starts.diff()
    first, second = text.batches(0), text.batches(1)
    assert len(first) == len(second) and torch.cat(first).sort()[0].tolist() == list(range(400))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    assert sum(int(lengths[batch].max()) * len(batch) for batch in first) < 1.1 * lengths.sum()
    assert max(int(lengths[batch].sum()) for batch in first) <= 128 + 10


def test_it_learns(small: None, tmp_path: Path) -> None:
    model = tiny()
    text, held_out = Text.of(model, chains(600)), Text.of(model, chains(50, seed=1))
    before = fit(model, held_out)
    train(Run.begin(model, 200), text, held_out, tmp_path)
    after = fit(model, held_out)
    assert before.perplexity > 45 and after.perplexity < 8
    assert (after.sentences, after.words, after.unknown) == (50, len(held_out.words) - 50, 0)
    right, wrong = model.score([["w10", "w11", "w12"], ["w10", "w12", "w11"]])
    assert sum(right) > sum(wrong) + 3


def test_unknown_words_do_not_count_in_the_perplexity() -> None:
    model = tiny().eval()
    known = fit(model, Text.of(model, ["w1 w2"]))
    first, second, _ = model.score([["w1", "w2"]])[0]
    mixed = fit(model, Text.of(model, ["w1 w2 rill"]))
    assert mixed.unknown == 1 and known.log10 == pytest.approx(sum(model.score([["w1", "w2"]])[0]) / math.log(10))
    end = model.score([["w1", "w2", "rill"]])[0][3]
    assert mixed.log10 == pytest.approx((first + second + end) / math.log(10), abs=1e-4)


def test_a_resumed_run_equals_an_unbroken_one(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def killed(run: Run, words: torch.Tensor, lengths: torch.Tensor, step: Any = Run.step) -> float:
        if run.update == 33:  # 13 updates after the state was saved, in the second epoch
            raise Killed
        return step(run, words, lengths)

    text = Text.of(tiny(), chains(500))
    assert 22 < len(text.batches(0)) < 30
    seeds = []
    monkeypatch.setattr(Text, "batches", lambda text, seed, of=Text.batches: seeds.append(seed) or of(text, seed))
    whole = Run.begin(tiny(), 45)
    train(whole, text, Text.of(tiny(), []), tmp_path)
    assert seeds == [0, 0, 1]  # each epoch in another order
    broken = tmp_path / "broken"
    broken.mkdir()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "step", killed)
        train(Run.begin(tiny(), 45), text, text, broken)
    resumed = Run.restore(broken, torch.device("cpu"))
    assert resumed.update == 20
    train(resumed, text, text, broken)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_command(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
                 ) -> None:
    monkeypatch.setattr(neural_lm, "NeuralLM", lambda words, embedding=96, hidden=48, layers=1:
                        NeuralLM(words, embedding, hidden, layers))
    source, out = tmp_path / "text.txt", tmp_path / "new"
    letters = str.maketrans("0123456789", "abcdefghij")  # numbers would be spelled out
    source.write_text("\n".join(chains(300)).translate(letters), encoding="utf-8")
    test = tmp_path / "test.jsonl"
    (tmp_path / "a.wav").touch()
    test.write_text(json.dumps({"audio": "a.wav", "text": "Wb wc, wd!", "split": "dev", "corpus": "mine"}) + "\n")

    def lm(resume: bool = False, epochs: float | None = None) -> None:
        neural_lm.run([source], out, "40", [test], "dev", None, epochs, resume, "cpu")

    lm(epochs=3)
    said = capsys.readouterr().out
    assert "48/48: perplexity" in said  # 16 batches
    assert "Vocabulary: 40 words" in said and "text held out" in said and "test, mine" in said
    assert [path.name for path in out.iterdir()] == [FILE]
    assert len(NeuralLM.load(out / FILE).index) == 40
    with pytest.raises(TrainingError, match="nothing to resume"):
        lm(resume=True)
    (out / STATE).write_bytes(b"PK half of a state")
    with pytest.raises(TrainingError, match="has not ended: go on with --resume"):
        lm()
    with pytest.raises(TrainingError, match="is broken"):
        lm(resume=True)
    Run.begin(tiny(), 5).save(out)
    with pytest.raises(TrainingError, match=f"{TEXT} is missing or broken"):
        lm(resume=True)
    with pytest.raises(LanguageModelError, match="texts"):
        neural_lm.run([], tmp_path / "none", "40", [], "dev", None, None, False, "cpu")
