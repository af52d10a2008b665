"""The scripts of recipes/en-small, on small trees of each layout."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

RECIPE = Path(__file__).parents[2] / "recipes" / "en-small"
AUDIO = b"not decoded here"


def run(script: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, RECIPE / script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def entries(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def librispeech(tmp_path):
    """Two speakers, one of whom (1272, of dev-clean) is held out."""
    for speaker, text in (("103", "CHAPTER ONE"), ("1272", "MISTER QUILTER"), ("103", "MISSUS RACHEL LYNDE")):
        chapter = tmp_path / "LibriSpeech" / speaker / "1"
        chapter.mkdir(parents=True, exist_ok=True)
        transcript = chapter / f"{speaker}-1.trans.txt"
        lines = transcript.read_text().splitlines() if transcript.exists() else []
        name = f"{speaker}-1-{len(lines):04}"
        transcript.write_text("\n".join([*lines, f"{name} {text}"]) + "\n")
        (chapter / f"{name}.flac").write_bytes(AUDIO)
    return tmp_path / "LibriSpeech"


def test_librispeech_without_speakers_who_are_held_out(librispeech, tmp_path):
    run("fetch_speech.py", "librispeech", librispeech, tmp_path / "out")
    assert entries(tmp_path / "out") == [
        {"audio": "audio/103-1-0000.flac", "text": "CHAPTER ONE", "speaker": "ls-103", "corpus": "out"},
        {"audio": "audio/103-1-0001.flac", "text": "MISSUS RACHEL LYNDE", "speaker": "ls-103", "corpus": "out"},
    ]
    assert (tmp_path / "out" / "audio" / "103-1-0000.flac").read_bytes() == AUDIO


def test_a_git_directory_is_read_as_its_folder_is(librispeech, tmp_path):
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments],
            cwd=librispeech,
            check=True,
            capture_output=True,
        )

    git("init")
    git("add", ".")
    git("commit", "-m", "Add speech")
    run("fetch_speech.py", "librispeech", librispeech, tmp_path / "folder")
    run("fetch_speech.py", "librispeech", librispeech / ".git", tmp_path / "git")
    assert (
        [entry["audio"] for entry in entries(tmp_path / "folder")]
        == [entry["audio"] for entry in entries(tmp_path / "git")]
        != []
    )


def test_a_wrong_layout_is_said(librispeech, tmp_path):
    done = subprocess.run(
        [sys.executable, RECIPE / "fetch_speech.py", "commonvoice", librispeech, tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "no recordings" in done.stderr


def test_texts_of_the_development_split_are_left_out(librispeech, tmp_path):
    manifest = tmp_path / "index.jsonl"
    manifest.write_text('{"text": "Missus Rachel Lynde!", "split": "dev"}\n{"text": "chapter one", "split": "train"}\n')
    run("fetch_speech.py", "librispeech", librispeech, tmp_path / "out", "--without", manifest)
    assert [entry["text"] for entry in entries(tmp_path / "out")] == ["CHAPTER ONE"]


def test_commonvoice_with_quotation_marks(tmp_path):
    (tmp_path / "cv" / "clips").mkdir(parents=True)
    (tmp_path / "cv" / "clips" / "a.mp3").write_bytes(AUDIO)
    rows = ("client_id\tpath\tsentence", 'abcdefghijklmnopqr\ta.mp3\t"Yes," he said.', "x\tabsent.mp3\tNo.", "")
    (tmp_path / "cv" / "validated.tsv").write_text("\n".join(rows))
    run("fetch_speech.py", "commonvoice", tmp_path / "cv", tmp_path / "out")
    assert [(entry["text"], entry["speaker"]) for entry in entries(tmp_path / "out")] == [
        ('"Yes," he said.', "cv-abcdefghijklmnop")
    ]


def test_texts_beside_recordings_and_in_a_list(tmp_path):
    source = tmp_path / "voice"
    source.mkdir()
    for name, text in (("a", "first"), ("b", "second")):
        (source / f"{name}.wav").write_bytes(AUDIO)
        (source / f"{name}.txt").write_text(f"{text}\n")
    run("fetch_speech.py", "beside", source, tmp_path / "beside")
    assert [entry["text"] for entry in entries(tmp_path / "beside")] == ["first", "second"]

    (tmp_path / "labels.tsv").write_text("a\tgood\t-0.1\nb\tbad\t-0.9\n")
    run(
        "fetch_speech.py",
        "listed",
        source,
        tmp_path / "listed",
        "--texts",
        tmp_path / "labels.tsv",
        "--min-score",
        "-0.3",
    )
    assert [(entry["text"], entry["speaker"]) for entry in entries(tmp_path / "listed")] == [("good", None)]


CHAPTERS = "\n\n".join(
    f"In chapter {number} of the book he was to be with you for a while, and that was it." for number in range(40)
)
BOOK = f"""Title: A Book
*** START OF THIS PROJECT GUTENBERG EBOOK A BOOK ***

It was the best of times and it was the worst of times, for all of them.

[Illustration: a tower]

She had _never_ seen that he was as tired as this, with the others.[1]

{CHAPTERS}

*** END OF THIS PROJECT GUTENBERG EBOOK A BOOK ***
The license.
"""
TEXTS = {
    "gutenberg": ("Author/A Book.txt", BOOK, "She had never seen that he was as tired as this, with the others."),
    "changelog": (
        "podcast/1.md",
        "**Jerod Santo:** Welcome to _this_ show, it can&#39;t fail. \\[00:01:02\\]\n\n**Break:** \\[1\\]\n",
        "Welcome to this show, it can't fail.",
    ),
    "talkpython": ("transcripts/1.txt", "00:00 Hello, and\n00:02 welcome.\n", "Hello, and welcome."),
    "bitcoin": (
        "talks/a.md",
        "---\ntitle: A\n---\n# Heading\n\nGloria: I work on [policy](https://a.example).\n\n"
        "Gloria: I work on policy, and that is what we are here for today.\n",
        "I work on policy, and that is what we are here for today.",
    ),
    "sgd": (
        "train/dialogues_001.json",
        json.dumps([{"turns": [{"utterance": "A table for two."}]}]),
        "A table for two.",
    ),
    "taskmaster": (
        "TM-4-2024/data/a.json",
        json.dumps([{"utterances": [{"text": "One latte, please."}]}]),
        "One latte, please.",
    ),
    "topicalchat": (
        "conversations/a.json",
        json.dumps({"t": {"content": [{"message": "Did you know?"}]}}),
        "Did you know?",
    ),
    "prompts": (
        "index.jsonl",
        '{"text": "Say this.", "split": "train"}\n{"text": "A note of the test.", "split": "dev"}\n',
        "Say this.",
    ),
    "wikipedia": (
        "Page/Ada.md",
        "Ada.jpg ADA was the first of them all to _write_ this down.[1]\n\n\nLife\n\n"
        "-   a list of eight words is no text at all.\n\n  Year   Work\n  ------ -----\n\n"
        "References\n\nThis is what the others said of it in a note.\n",
        "ADA was the first of them all to write this down.",
    ),
}


def fetched(kind: str, folder: Path, *options: object) -> list[str]:
    path, text, _ = TEXTS[kind]
    (folder / kind / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / kind / path).write_text(text, "utf-8")
    run("fetch_text.py", kind, folder / kind, folder / "out.txt.gz", *options)
    return gzip.decompress((folder / "out.txt.gz").read_bytes()).decode().splitlines()


@pytest.mark.parametrize("kind", TEXTS)
def test_each_kind_of_text(kind, tmp_path):
    lines = fetched(kind, tmp_path)
    assert TEXTS[kind][2] in lines
    assert not re.search(r"Illustration|license|Life|list|Year|note|\*\*|\d\d:|#", "\n".join(lines))


def test_text_of_a_test_is_left_out(tmp_path):
    manifest = tmp_path / "dev.jsonl"
    manifest.write_text(json.dumps({"text": "she had never seen that he was as tired"}) + "\n")
    lines = fetched("gutenberg", tmp_path, "--without", manifest)
    assert TEXTS["gutenberg"][2] not in lines and len(lines) > 30


def test_a_book_that_was_read_aloud_for_a_test_is_left_out(tmp_path):
    manifest = tmp_path / "dev.jsonl"
    read_aloud = "It was the best of times and it was the worst of times for all of them"
    manifest.write_text(json.dumps({"text": read_aloud}) + "\n")
    assert fetched("gutenberg", tmp_path, "--without", manifest) == []


def test_the_chain_of_commands_is_shell():
    subprocess.run(["bash", "-n", RECIPE / "make.sh"], check=True)
