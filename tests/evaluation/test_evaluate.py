"""Evaluation: what is scored and how, against counts that follow from references made of the recognizer's own text."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from asr.audio.manifest import Utterance, by_corpus, of_split, read
from asr.audio.reading import read_blocks
from asr.errors import ManifestError
from asr.evaluation import evaluate as module
from asr.evaluation.evaluate import ALL, Result, evaluate, measure
from asr.model.latency import Latency
from asr.text.results import Final, Word

CLIPS = Path(__file__).parents[1] / "clips"
NAMES = ["kathleen-0.flac", "kathleen-2.flac", "commonvoice-1.flac"]


def utterance(name: str, text: str, corpus: str) -> Utterance:
    return Utterance(CLIPS / name, 0, None, text, corpus=corpus)


@pytest.fixture(scope="module")
def own_texts(recognizer) -> list[str]:
    return [recognizer.decode_utterance(np.concatenate(list(read_blocks(CLIPS / name)))).text for name in NAMES]


def test_counts(recognizer, own_texts: list[str]) -> None:
    first, second, third = own_texts
    report = evaluate(
        recognizer,
        [
            utterance(NAMES[0], first.upper() + "!", "a"),
            utterance(NAMES[1], f"{second} indeed", "a"),
            utterance(NAMES[2], " ".join(["zebra", *third.split()[1:]]), "b"),
            utterance(NAMES[2], "chapter 2", "b"),
        ],
    )
    assert report.left_out == 1 and set(report.corpora) == {"a", "b", ALL}
    a, b, everything = (report.corpora[name] for name in ("a", "b", ALL))
    assert (a.utterances, a.substitutions, a.deletions, a.insertions) == (2, 0, 1, 0)
    assert (b.utterances, b.substitutions, b.deletions, b.insertions) == (1, 1, 0, 0)
    assert everything.words == a.words + b.words and everything.wer == pytest.approx(2 / everything.words)
    assert 0 < everything.cer < 0.5 and everything.wer_low <= everything.wer <= everything.wer_high
    assert a.rtf > 0 and everything.seconds == pytest.approx(a.seconds + b.seconds)
    assert math.isnan(a.auroc) and 0 <= b.auroc <= 1  # all words of a are right
    assert report.to_dict()["corpora"]["a"]["auroc"] is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_titles_and_confidences() -> None:
    words = tuple(Word(text, 0, 1, sure) for text, sure in [("mister", 0.9), ("smith", 0.8), ("nods", 0.1)])
    figures = measure([Result("mister smith knows", words, 2.0)], took=1.0)
    assert (figures.words, figures.substitutions, figures.rtf, figures.auroc) == (3, 1, 0.5, 1.0)
    assert module.scored_words([Word("mr", 0, 1, 0.5), Word("'", 0, 1, 0.5), Word("o'clock", 0, 1, 0.5)], "en") == (
        Word("mister", 0, 1, 0.5),
        Word("o'clock", 0, 1, 0.5),
    )


def test_streamed_is_the_first_pass_of_a_live_stream(
    recognizer, own_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six seconds of silence, beyond every ordinary endpoint rule, do not part the utterance."""
    sound = np.concatenate(
        [*read_blocks(CLIPS / NAMES[0]), np.zeros(16_000 * 6, np.float32), *read_blocks(CLIPS / NAMES[1])]
    )
    monkeypatch.setattr(module, "load", lambda utterance: sound)
    sizes, finals, settings_of = [], [], []
    stream_of = recognizer.stream

    def stream(**settings):
        settings_of.append(settings)
        made = stream_of(**settings)
        accept, finish = made.accept, made.finish

        def watched(block):
            sizes.append(len(block))
            events = accept(block)
            finals.extend(event for event in events if isinstance(event, Final))
            return events

        made.accept, made.finish = watched, lambda: finals.append("the end") or finish()
        return made

    monkeypatch.setattr(recognizer, "stream", stream)
    report = evaluate(recognizer, [utterance(NAMES[0], f"{own_texts[0]} {own_texts[1]}", "a")], "fast", streamed=True)
    assert max(sizes) == 2560 and sum(sizes) == len(sound) and finals == ["the end"]
    assert [(each["latency"], each["two_pass"]) for each in settings_of] == [(Latency(8, 4), False)]
    assert report.corpora["a"].wer < 0.5 and report.corpora["a"].seconds == pytest.approx(len(sound) / 16_000)


def test_nothing_to_score(recognizer) -> None:
    with pytest.raises(ManifestError, match="no utterance to score"):
        evaluate(recognizer, [utterance(NAMES[0], "chapter 2", "a")])


def test_splits_and_limits(tmp_path: Path) -> None:
    everything = [utterance(NAMES[0], str(i), corpus) for corpus in ("a", "b") for i in range(10)]
    chosen = by_corpus(everything, 3)
    assert {corpus: [each.text for each in members] for corpus, members in chosen.items()} == {
        "a": ["0", "3", "6"],
        "b": ["0", "3", "6"],
    }
    assert by_corpus(everything) == by_corpus(everything, 10) == {"a": everything[:10], "b": everything[10:]}

    manifest = tmp_path / "m.jsonl"
    lines = [
        json.dumps({"audio": str(CLIPS / NAMES[0]), "text": text, "split": split})
        for text, split in (("x", "train"), ("y", "dev"))
    ]
    manifest.write_text("\n".join(lines))
    assert [each.text for each in of_split(manifest, "dev")] == ["y"]
    with pytest.raises(ManifestError, match="no utterance of the split 'test'"):
        of_split(manifest, "test")
    assert of_split(CLIPS / "manifest.jsonl", "dev") == read(CLIPS / "manifest.jsonl")  # it names no splits
