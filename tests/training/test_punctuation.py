"""Tiny taggers, from texts that say clearly where sentences end: German with its capital nouns, a caseless script."""

from pathlib import Path

import numpy as np
import pytest
import torch

from asr.errors import CheckpointError, TrainingError
from asr.text.labels import COMMA, IGNORE, LOWER, NONE, PERIOD, QUESTION, UPPER
from asr.text.punctuator import FILE, Punctuator
from asr.training import punctuation
from asr.training import punctuation_data as data
from asr.training.punctuation import STATE, TEXT, TaggerTraining, begin, train

CPU = "cpu"
GERMAN = (
    "Der Hund sieht die Katze. Wo ist der Ball? Heute kommt Anna, aber Peter bleibt. ",
    "de",
    "der hund sieht die katze wo ist der ball heute kommt anna aber peter bleibt",
    "Der Hund sieht die Katze. Wo ist der Ball? Heute kommt Anna, aber Peter bleibt.",
)
HINDI = (
    "राम घर जाता है। क्या सीता आती है? मोहन आया, पर वह गया। ",
    "hi",
    "राम घर जाता है क्या सीता आती है मोहन आया पर वह गया",
    "राम घर जाता है। क्या सीता आती है? मोहन आया, पर वह गया।",
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Minutes become seconds."""
    for name, value in {
        "WORDS": 50,
        "WIDTH": 16,
        "BUCKETS": 64,
        "HIDDEN": 24,
        "LAYERS": 1,
        "WARMUP": 10,
        "SAVE_EVERY": 5,
        "REPORT_EVERY": 5,
        "ROWS": 4,
        "LENGTH": 48,
    }.items():
        for module in (punctuation, data):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


def text(folder: Path, sentences: str, documents: int = 130) -> Path:
    path = folder / "text.txt"
    path.write_text("\n\n".join(sentences * 4 for _ in range(documents)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("sentences", "language", "plain", "expected"), [GERMAN, HINDI], ids=["German", "Hindi"])
def test_learns_a_language(tmp_path, sentences, language, plain, expected):
    training = begin([text(tmp_path, sentences)], tmp_path / "out", language, 120, CPU)
    told = []
    train(training, tmp_path / "out", told.append)
    assert told[-1].update == 120
    assert told[-1].marks_loss < told[0].marks_loss / 2
    tagger = Punctuator.load(tmp_path / "out" / FILE)
    assert tagger.config.language == language
    assert tagger.punctuate(plain) == expected
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["held_out", FILE]
    held_out = (tmp_path / "out" / "held_out" / "text.txt").read_text(encoding="utf-8")
    assert held_out.count("\n\n") == 130 // data.HELD_OUT_EVERY


def test_resumed_training_is_the_same(tmp_path):
    source = text(tmp_path, GERMAN[0], 4)

    def weights(folder: str, stop: int | None) -> dict[str, np.ndarray]:
        place = tmp_path / folder
        training = begin([source], place, "de", 10, CPU)
        if stop:
            while training.update < stop:
                training.step()
            training.save(place)
            training = TaggerTraining.restore(place, CPU)
        while training.update < training.updates:
            training.step()
        return training.tagger.weights()

    whole, parts = weights("whole", None), weights("parts", 5)
    assert whole.keys() == parts.keys()
    assert all(np.allclose(whole[name], parts[name], atol=1e-5) for name in whole)


def test_what_cannot_be_done_is_said(tmp_path):
    with pytest.raises(TrainingError, match=r"none\.txt"):
        begin([tmp_path / "none.txt"], tmp_path / "out", "en", 1, CPU)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(TrainingError, match="no words"):
        begin([tmp_path / "empty.txt"], tmp_path / "out", "en", 1, CPU)
    with pytest.raises(TrainingError, match="resume"):
        TaggerTraining.restore(tmp_path, CPU)
    training = begin([text(tmp_path, GERMAN[0], 2)], tmp_path / "out", "de", 1, CPU)
    training.save(tmp_path / "out")
    with pytest.raises(TrainingError, match="--resume"):
        begin([text(tmp_path, GERMAN[0], 2)], tmp_path / "out", "de", 1, CPU)
    (tmp_path / "out" / TEXT).write_bytes(b"no")
    with pytest.raises(TrainingError, match=TEXT):
        TaggerTraining.restore(tmp_path / "out", CPU)
    (tmp_path / "out" / STATE).write_bytes(b"no")
    with pytest.raises(TrainingError, match=STATE):
        TaggerTraining.restore(tmp_path / "out", CPU)


def corpus(folder: Path) -> data.Corpus:
    return data.read([text(folder, GERMAN[0], 8)], "de", folder / "held")


def test_batches_are_the_same_each_time_and_differ(tmp_path):
    batches = data.Batches(corpus(tmp_path))
    first, again, second = batches.batch(0), batches.batch(0), batches.batch(1)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.words, second.words)
    gaps = first.words < 0
    assert gaps[:, 0].all()
    assert (first.marks[gaps] == IGNORE).all() and np.isnan(first.pauses[gaps]).all()


def test_headings_and_shouts_do_not_teach_capitals(tmp_path):
    (tmp_path / "book.txt").write_text(
        "CHAPTER XII My dear. Then he cried: MY DEAR SIR! Ask NASA, ask IBM TODAY, ask us in the US now. "
        "This is a chapter of a chapter, so dear to us, that us and my sir read today, today.",
        encoding="utf-8",
    )
    read = data.read([tmp_path / "book.txt"], "en", tmp_path / "held")
    book = read.texts["book"]
    said = [(read.words[at], case) for at, case in zip(book.words, book.cases, strict=True)]
    assert said[:2] == [("chapter", IGNORE), ("xii", IGNORE)]
    assert said[7:10] == [("my", IGNORE), ("dear", IGNORE), ("sir", IGNORE)]
    assert ("nasa", UPPER) in said and ("us", UPPER) in said and ("us", LOWER) in said
    assert ("ibm", IGNORE) in said  # beside "TODAY" nobody knows
    assert ("chapter", LOWER) in said and ("dear", LOWER) in said


def test_larger_texts_weigh_more_but_less_than_their_size(tmp_path):
    (tmp_path / "a.txt").write_text(GERMAN[0] * 90, encoding="utf-8")
    (tmp_path / "b.txt").write_text(GERMAN[0] * 10, encoding="utf-8")
    read = data.read([tmp_path / "a.txt", tmp_path / "b.txt"], "de", tmp_path / "held")
    assert np.allclose(data.Batches(read).shares, [0.75, 0.25])


def test_recognition_errors_keep_marks(tmp_path):
    batches = data.Batches(corpus(tmp_path))
    rng = np.random.default_rng(0)
    words = np.zeros(2000, np.int64)
    marks = np.where(np.arange(2000) % 10 == 9, PERIOD, NONE)
    found, found_marks, cases = batches._misrecognize(rng, words, marks, np.zeros(2000, np.int64), 0.3)
    assert len(found) == len(found_marks) == len(cases)
    assert 0.1 < (found != 0).mean() < 0.4
    assert (found_marks == PERIOD).sum() >= 198


def test_pauses_follow_marks():
    rng = np.random.default_rng(0)
    marks = np.tile([NONE, COMMA, PERIOD, QUESTION], 5000)
    drawn = np.concatenate([data.draw_pauses(rng, marks) for _ in range(20)]).reshape(-1, 4)
    none, comma, period, question = np.median(drawn, axis=0)
    assert none == 0 < comma < period
    assert question == pytest.approx(period, rel=0.2)


def test_words_that_sound_alike():
    assert data.consonants("their") == data.consonants("there")
    assert data.consonants("") == ""


def test_goes_on_from_a_tagger(tmp_path):
    source = text(tmp_path, GERMAN[0])
    first = tmp_path / "first"
    train(begin([source], first, "de", 60, CPU), first)
    (tmp_path / "more.txt").write_text("Neulich kam Otto. " + GERMAN[0] * 50, encoding="utf-8")
    going_on = begin([tmp_path / "more.txt"], tmp_path / "second", "de", 60, CPU, init=first)
    told = []
    train(going_on, tmp_path / "second", told.append)
    again = begin([tmp_path / "more.txt"], tmp_path / "third", "de", 60, CPU)
    from_nothing = []
    train(again, tmp_path / "third", from_nothing.append)
    assert told[0].marks_loss < from_nothing[0].marks_loss / 2


@pytest.mark.parametrize("wider", [0, 24])
def test_a_copied_tagger_says_the_same(tmp_path, wider):
    training = begin([text(tmp_path, GERMAN[0], 2)], tmp_path / "out", "de", 1, CPU, hidden=32)
    training.save(tmp_path / "out")
    config, weights = punctuation.learned_tagger(tmp_path / "out" / FILE, 32 + wider)
    sizes = len(config.words), config.width, config.buckets
    same, other = (punctuation.Tagger(*sizes, hidden, config.layers).eval() for hidden in (32, 32 + wider))
    same.copy(weights, 32)
    assert all(np.array_equal(values, weights[name]) for name, values in same.weights().items())
    other.copy(weights, 32)
    inputs = training.inputs(training.batches.batch(0))
    for mine, wide in zip(same(*inputs), other(*inputs), strict=True):
        assert torch.allclose(mine, wide, atol=1e-5)


def test_goes_on_only_from_a_tagger_that_fits(tmp_path, monkeypatch):
    begin([text(tmp_path, GERMAN[0], 2)], tmp_path / "out", "de", 1, CPU, hidden=32).save(tmp_path / "out")

    def going_on(init):
        return begin([tmp_path / "text.txt"], tmp_path / "other", "de", 1, CPU, hidden=16, init=init)

    with pytest.raises(TrainingError, match="--hidden 32"):
        going_on(tmp_path / "out")
    with pytest.raises(CheckpointError):
        going_on(tmp_path / "none")
    monkeypatch.setattr(punctuation, "WIDTH", 24)
    with pytest.raises(TrainingError, match="leave out --init"):
        going_on(tmp_path / "out")
