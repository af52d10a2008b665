"""`asr punctuate`: words of any origin as sentences, and the training of its tagger."""

import io
import sys

import pytest

from asr.inference import punctuation
from asr.text.punctuator import FILE, Punctuator
from asr.training import punctuation as training
from asr.training import punctuation_data as data
from tests.conftest import CLIPS, Asr
from tests.support.checkpoints import only_config, wrong


class Shouting(Punctuator):
    def __init__(self) -> None:
        pass

    def punctuate(self, text: str) -> str:
        return text.strip().capitalize() + "."


def test_a_paragraph_a_line(asr, monkeypatch, tmp_path):
    monkeypatch.setattr(punctuation, "load_punctuator", lambda checkpoint: Shouting())
    (tmp_path / "a.txt").write_text("how are you\ni am fine\n", encoding="utf-8")
    assert asr("punctuate", tmp_path / "a.txt")[:2] == (0, "How are you.\nI am fine.\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("fine\n"))
    assert asr("punctuate", "-")[:2] == (0, "Fine.\n")


def test_what_is_missing_is_said(asr, tmp_path):
    assert asr("punctuate")[2] == "asr: Give a file of plain words, or - for standard input: asr punctuate FILE.\n"
    assert "--out" in asr("punctuate", "--train", tmp_path / "a.txt")[2]
    assert "TEXT" in asr("punctuate", "--train", "--out", tmp_path)[2]
    assert "leave out --resume" in asr("punctuate", "--train", "--resume", "--out", tmp_path)[2]
    status, _, error = asr("punctuate", "--checkpoint", tmp_path, tmp_path / "a.txt")
    assert (status, error.count("\n")) == (1, 1)


def test_training(asr, monkeypatch, tmp_path):
    for module, name, value in (
        (training, "HIDDEN", 8),
        (training, "WIDTH", 8),
        (training, "BUCKETS", 32),
        (data, "ROWS", 2),
        (training, "ROWS", 2),
    ):
        monkeypatch.setattr(module, name, value)
    text = tmp_path / "text.txt"
    text.write_text("One two, three. Four? Five six.\n\n" * 70, encoding="utf-8")
    out = only_config(tmp_path / "out")
    status, said, _ = asr("punctuate", "--train", text, "--out", out, "--updates", 2)
    assert status == 0 and FILE not in wrong(out)
    assert "2/2" in said
    assert Punctuator.load(tmp_path / "out" / FILE).punctuate("one two")
    assert (tmp_path / "out" / "held_out" / "text.txt").is_file()


@pytest.mark.model
def test_plain_leaves_sentences_out_of_what_is_transcribed(asr: Asr) -> None:
    clip = CLIPS / "kathleen-0.flac"
    assert asr("transcribe", clip)[:2] == (0, "There was nothing on the rock.\n")
    assert asr("transcribe", clip, "--plain")[:2] == (0, "there was nothing on the rock\n")
