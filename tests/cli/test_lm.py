"""`asr lm`: what it does of what is asked, what it leaves and what it says."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asr.cli import lm
from asr.cli.main import app
from asr.decoding.lexicon import Lexicon
from asr.decoding.ngram import FILE, read
from asr.decoding.tree import FILE as TREE
from asr.decoding.tree import load
from asr.errors import RillError
from asr.model.checkpoint import find, read_config
from asr.model.tokens import PHONEMES
from asr.training import dictionary, kenlm_tools
from asr.training.ngram import read_vocabulary
from tests.conftest import Asr
from tests.support.checkpoints import only_config, wrong
from tests.support.text import needs_lmplz, verses


def test_only_the_lexicon_of_words_that_are_there(tmp_path: Path, asr: Asr) -> None:
    (tmp_path / "words.txt").write_text("the\nblorptastic\n2nd\nlive\n")
    status, said, _ = asr("lm", "--vocab", tmp_path / "words.txt", "--out", tmp_path / "out")
    asr("lm", "--vocab", tmp_path / "words.txt", "--out", only_config(tmp_path / "mine"))
    assert "lexicon.txt" not in wrong(tmp_path / "mine") and FILE in wrong(tmp_path / "mine")
    lines = (tmp_path / "out" / "lexicon.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["the", "the", "blorptastic", "live", "live"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lexicon.txt"]
    assert status == 0 and "never recognized: 2nd." in said
    assert "2 from CMUdict, 1 from letter-to-sound, 1 from none" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Give texts to learn from, or --vocab FILE"),
        (("--vocab", "gone.txt"), "gone.txt cannot be read"),
        (("verses.txt", "--prune", "0,x"), "--prune '0,x' should be counts"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, asr: Asr, arguments: tuple[str, ...], sentence: str) -> None:
    verses(tmp_path)
    status, _, err = asr("lm", *arguments, "--out", tmp_path / "out")
    assert status == 1 and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@needs_lmplz
def test_from_text_to_a_recognizers_files(tmp_path: Path, asr: Asr) -> None:
    """The manifest's sentences are withheld whatever their case, and only those of the split."""
    (tmp_path / "a.wav").touch()
    (tmp_path / "m.jsonl").write_text(
        "".join(
            json.dumps({"audio": "a.wav", "text": text, "split": split}) + "\n"
            for text, split in (("AN AARDVARK!", "dev"), ("The Cat.", "train"))
        )
    )
    out = only_config(tmp_path / "out")
    status, said, _ = asr(
        "lm", verses(tmp_path), "--prune", "0 2 4", "--vocab", 100, "--without", tmp_path / "m.jsonl", "--out", out
    )
    assert status == 0
    assert sorted(path.name for path in out.iterdir()) == ["config.json", TREE, "lexicon.txt", FILE, "vocabulary.txt"]
    assert not {TREE, "lexicon.txt", FILE} & set(wrong(out))
    words = read_vocabulary(out / "vocabulary.txt")
    assert read_vocabulary(out / "lexicon.txt") == words and "owl" in words and "aardvark" not in words
    model, tokens = read(out / FILE), read_config(find() / "config.json").tokens[PHONEMES]
    assert set(words) <= set(model.words)
    spelled = Lexicon.read(out / "lexicon.txt", tokens).of("owl")
    assert spelled and load(out / "lexicon.txt", out / TREE, model, tokens).of("owl") == spelled
    assert "1 withheld" in said and "m, -" in said and "from CMUdict" in said


def test_the_command_does_what_is_asked_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(kenlm_tools, "build", lambda say: asked.append(("tools",)))
    monkeypatch.setattr(dictionary, "train_network", lambda folder, say: asked.append(("network", folder.name)))
    monkeypatch.setattr(
        lm, "make_ngram", lambda texts, folder, *more: asked.append(("make", len(texts), folder.name, more[2]))
    )

    def command(*arguments: str) -> list[tuple[object, ...]]:
        asked.clear()
        CliRunner().invoke(app, ["lm", *arguments], catch_exceptions=False)
        return asked

    monkeypatch.chdir(tmp_path)
    assert command("--build-tools") == [("tools",)]
    assert command("--train-pronunciation", "--out", "x") == [("network", "x")]
    assert command("--build-tools", "a.txt", "b.txt", "-o", "x") == [("tools",), ("make", 2, "x", "100000")]
    assert command("--train-pronunciation", "--vocab", "v.txt", "-o", "x") == [
        ("network", "x"),
        ("make", 0, "x", "v.txt"),
    ]
    with pytest.raises(RillError, match="Give the folder"):
        command("a.txt")
