"""`asr transcribe`: what goes to standard output, files and stderr, and its exit status; with a stand-in recognizer."""

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.reading import read_blocks
from asr.cli import transcribe as module
from asr.inference.files import Options, Outcome
from asr.text.results import Alternative, Final, Transcript, Word
from tests.conftest import CLIPS, Asr

LOAD = Options.load
ONE_SECOND = "Transcribed 1 file, 0:00:01 of audio, in "  # the last line on stderr


def final(*words: str, start: float = 0.0) -> Final:
    spoken = tuple(Word(word, start + i, start + i + 0.9, 0.5) for i, word in enumerate(words))
    return Final(spoken, start, start + len(words))


class FakeRecognizer:
    """Two segments: twenty three, and the file's length in samples, in words that tell the files apart."""

    def transcribe_parts(self, source, latency, alternatives) -> Iterator[tuple[float, list[Final]]]:
        samples = sum(map(len, read_blocks(source)))
        first = final("twenty", "three")
        others = tuple(Alternative(first.words, 1 / alternatives) for _ in range(alternatives))
        yield 1.0, [replace(first, alternatives=others)]
        yield samples / 16_000, [final("samples", str(samples), start=5.0)]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "load", lambda options: FakeRecognizer())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """talk.wav and talk.flac (another length), a/deep/one.ogg, hidden files and a text beside them."""
    for number, name in enumerate(["talk.wav", "talk.flac", "a/deep/one.ogg", ".hidden.wav", ".cache/b.wav"], 1):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(16_000 * number), 16_000)
    (tmp_path / "notes.txt").write_text("no sound")
    return tmp_path


def test_text_of_one_file(asr: Asr, folder: Path) -> None:
    status, out, err = asr("transcribe", folder / "talk.wav")
    assert (status, out) == (0, "twenty three\nsamples 16000\n")
    assert err.startswith(ONE_SECOND) and err.endswith(" s.\n") and err.count("\n") == 1


def test_text_of_several_files_has_headings(asr: Asr, folder: Path) -> None:
    first, second = folder / "talk.flac", folder / "talk.wav"
    assert asr("transcribe", first, second, first)[1] == (
        f"==> {first} <==\ntwenty three\nsamples 32000\n\n==> {second} <==\ntwenty three\nsamples 16000\n\n"
    )


def test_segments_are_printed_as_soon_as_they_are_known(
    asr: Asr, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow:
        def transcribe_parts(self, source, latency, alternatives):
            yield 1.0, [final("first")]
            assert capsys.readouterr().out == "first\n"
            yield 2.0, [final("second")]

    monkeypatch.setattr(Options, "load", lambda options: Slow())
    assert asr("transcribe", folder / "talk.wav")[:2] == (0, "second\n")


@pytest.mark.parametrize(
    ("format", "beginning"),
    [
        ("txt", "twenty three\n"),
        ("srt", "1\n00:00:00,000 --> "),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> "),
        ("tsv", "start\tend\ttext\n0\t2000\ttwenty three\n"),
        ("json", '{\n  "text": "twenty three\\nsamples 16000"'),
    ],
)
def test_formats_on_standard_output(asr: Asr, folder: Path, format: str, beginning: str) -> None:
    code, out, err = asr("transcribe", folder / "talk.wav", "--format", format)
    assert code == 0 and err.startswith(ONE_SECOND) and out.startswith(beginning)


@pytest.mark.parametrize(("names", "format"), [(["talk.wav"], "all"), (["talk.wav", "talk.flac"], "srt")])
def test_standard_output_takes_one_transcript(asr: Asr, folder: Path, names: list[str], format: str) -> None:
    code, out, err = asr("transcribe", *(folder / name for name in names), "--format", format)
    assert (code, out) == (1, "") and err.startswith("asr: ") and "--output" in err and err.count("\n") == 1


def test_several_files_as_json_are_lines(asr: Asr, folder: Path) -> None:
    code, out, _ = asr("transcribe", folder / "talk.wav", folder / "talk.flac", folder / "gone.wav", "-f", "json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and [line["source"] for line in lines] == [
        str(folder / name) for name in ("talk.wav", "talk.flac")
    ]
    assert [line["duration"] for line in lines] == [1.0, 2.0] and lines[0]["segments"][0]["text"] == "twenty three"
    assert len(asr("transcribe", folder / "a", "-f", "json")[1].splitlines()) == 1  # a folder, whatever it holds


def test_alternatives_are_in_json_alone(asr: Asr, folder: Path) -> None:
    _, out, _ = asr("transcribe", folder / "talk.wav", "--alternatives", 2, "-f", "json")
    first, second = json.loads(out)["segments"]
    assert [each["text"] for each in first["alternatives"]] == ["twenty three"] * 2 and "alternatives" not in second
    code, out, err = asr("transcribe", folder / "talk.wav", "--alternatives", 2)
    assert (code, out) == (1, "") and "--format json" in err


def test_all_formats_below_a_folder(asr: Asr, folder: Path) -> None:
    out = folder / "new" / "out"
    (folder / "talk.flac").rename(folder / "a" / "talk.flac")
    code, _, err = asr("transcribe", folder, "--format", "all", "--output", f"{out}/")
    assert code == 0 and err.startswith("Transcribed 3 files, 0:00:06 of audio, in ")
    assert err.endswith(f" s, written to {out}.\n")
    stems = ("a/deep/one", "a/talk", "talk")
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == {
        f"{stem}.{suffix}" for stem in stems for suffix in ("txt", "srt", "vtt", "tsv", "json")
    }
    assert (out / "a" / "talk.txt").read_text() == "twenty three\nsamples 32000\n"
    assert json.loads((out / "talk.json").read_text())["duration"] == 1.0


@pytest.mark.parametrize("name", ["talk.srt", "new/talk.JSON"])
def test_a_file_of_that_name(asr: Asr, folder: Path, name: str) -> None:
    code, out, err = asr("transcribe", folder / "talk.wav", "--output", folder / name)
    assert (code, out) == (0, "") and err.endswith(f" s, written to {folder / name}.\n")
    text = (folder / name).read_text()
    assert text.startswith("1\n00:00:00,000 --> ") or json.loads(text)["duration"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("talk.wav", "talk.flac", "-o", "x.srt"),
            "x.srt takes one transcript, and there are 2 recordings: name a folder",
        ),
        (("talk.wav", "talk.flac", "-o", "x/"), "talk.wav and talk.flac would both become talk: choose one"),
        (("talk.wav", "-o", "x.srt", "-f", "vtt"), "--output x.srt and --format vtt contradict each other"),
        (("talk.wav", "-o", "x.doc"), "write x.doc/ for a new folder, or x.doc.txt"),
        (("talk.wav", "-o", "x"), "write x/ for a new folder, or x.txt"),
    ],
)
def test_an_output_that_cannot_be_meant(
    asr: Asr, folder: Path, arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    status, out, err = asr("transcribe", *arguments)
    assert (status, out) == (1, "") and sentence in err and err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_an_output_that_cannot_be_written_does_not_stop_the_others(asr: Asr, folder: Path) -> None:
    out = folder / "out"
    (folder / "talk.flac").unlink()
    (out / "talk.srt").mkdir(parents=True)
    code, _, err = asr("transcribe", folder, "--format", "all", "--output", out)
    assert code == 1 and err.startswith(f"asr: {out / 'talk.srt'}: Is a directory.\nTranscribed 1 of 2 files, ")
    assert (out / "talk.json").is_file() and (out / "talk.vtt").is_file()
    assert (out / "a" / "deep" / "one.srt").is_file()


def test_sigterm_prints_what_is_finished(asr: Asr, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here of two processes the second was faster; the signal comes while the first is at work."""
    first, second = str(folder / "talk.wav"), str(folder / "talk.flac")

    def outcomes(*_: object, **__: object) -> Iterator[Outcome]:
        yield Outcome(second, Transcript((final("second"),), 2.0))
        signal.raise_signal(signal.SIGTERM)
        yield Outcome(first, Transcript((final("first"),), 2.0))

    monkeypatch.setattr("asr.inference.files.transcribe_files", outcomes)
    handler = signal.getsignal(signal.SIGTERM)
    assert asr("transcribe", first, second) == (143, f"==> {second} <==\nsecond\n\n", "")
    assert signal.getsignal(signal.SIGTERM) == handler


def test_sigterm_does_not_interrupt_a_write(asr: Asr, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module.write

    def interrupted(transcript: Transcript, paths: list[Path]) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return write(transcript, paths)

    monkeypatch.setattr(module, "write", interrupted)
    assert asr("transcribe", folder / "talk.wav", folder / "a", "--output", f"{folder}/out/")[0] == 143
    assert [path.name for path in (folder / "out").iterdir()] == ["talk.txt"]


def test_numerals(asr: Asr, folder: Path) -> None:
    assert asr("transcribe", folder / "talk.wav", "--numerals")[1] == "23\nsamples 16000\n"


def test_a_missing_file_does_not_stop_the_others(asr: Asr, folder: Path) -> None:
    code, out, err = asr("transcribe", folder / "gone.wav", folder / "talk.wav", folder / "notes.txt", "x*.wav")
    assert code == 1 and "samples 16000" in out
    sentences = err.splitlines()
    assert sentences.pop().startswith("Transcribed 1 of 4 files, 0:00:01 of audio, in ")
    assert len(sentences) == 3 and all(sentence.startswith("asr: ") for sentence in sentences)
    for name, sentence in zip(["gone.wav", "x*.wav", "notes.txt"], sentences, strict=True):
        assert name in sentence


def test_a_fault_of_ours_does_not_stop_the_others(asr: Asr, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty(FakeRecognizer):
        def transcribe_parts(self, source, latency, alternatives):
            if source.endswith(".wav"):
                raise IndexError("list index out of range")
            yield from super().transcribe_parts(source, latency, alternatives)

    monkeypatch.setattr(Options, "load", lambda options: Faulty())
    code, out, err = asr("transcribe", folder / "talk.wav", folder / "talk.flac")
    assert code == 1 and "samples 32000" in out
    assert err.startswith(
        f"asr: {folder / 'talk.wav'}: IndexError: list index out of range; please report this as a bug.\n"
        "Transcribed 1 of 2 "
    )


def test_standard_input(asr: Asr, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "talk.wav").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": file}))
        assert asr("transcribe", "-", "--output", f"{folder}/out/")[:2] == (0, "")
    assert (folder / "out" / "stdin.txt").read_text() == "twenty three\nsamples 16000\n"
    code, _, err = asr("transcribe", "-", folder / "talk.wav")
    assert code == 1 and "'-' (standard input) stands alone" in err


def test_a_damaged_file_is_a_clean_warning(asr: Asr, folder: Path) -> None:
    cut = folder / "cut.flac"
    cut.write_bytes((CLIPS / "ljspeech-2.flac").read_bytes()[:30_000])
    code, out, err = asr("transcribe", cut)
    assert code == 0 and out and err.startswith(f"asr: warning: {cut}: damaged or cut short; ") and err.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency", "soon"], "Latency 'soon' is not one of fast, "),
        (["--checkpoint", "no/such"], "There is no checkpoint 'no/such'"),
        (["--hotword", "word:loud"], "Hot word 'word:loud'"),
        (["--hotword", "word", "--no-lm"], "Hot words need the language model"),
        (["--output", "/dev/null/x/"], "/dev/null"),
    ],
)
def test_errors_are_one_line(
    asr: Asr, folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if arguments[0] != "--output":
        monkeypatch.setattr(Options, "load", LOAD)  # it is the engine that checks these
    code, out, err = asr("transcribe", folder / "talk.wav", *arguments)
    assert (code, out) == (1, "") and err.startswith("asr: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 1)])
def test_leaving_quietly(
    asr: Asr, folder: Path, error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "print", leave, raising=False)
    assert asr("transcribe", folder / "talk.wav") == (status, "", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("-",), "folder: name it with --output"), (("-", "-o", "out"), "cannot read standard input")],
)
def test_what_a_cluster_cannot_do(asr: Asr, arguments: tuple[str, ...], sentence: str) -> None:
    status, _, err = asr("transcribe", "--ray", "local", *arguments)
    assert status == 1 and sentence in err
