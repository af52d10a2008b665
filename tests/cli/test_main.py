"""The command: what goes to standard output, files and stderr, and its exit status; mostly with a stand-in engine."""
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.inputs import expand, output_names
from asr.audio.reading import AudioWarning, read_blocks
from asr.cli.main import main
from asr.errors import AudioError, CheckpointError
from asr.inference import files
from asr.inference.files import Options, transcribe_files
from asr.text.results import Final, Word

CLIPS = Path(__file__).parents[1] / "clips"
LOAD = Options.load
Run = Callable[..., tuple[int, str, str]]


def final(*words: str, start: float = 0.0) -> Final:
    spoken = tuple(Word(word, start + i, start + i + 0.9, 0.5) for i, word in enumerate(words))
    return Final(spoken, start, start + len(words))


class FakeRecognizer:
    """Two segments: twenty three, and the file's length in samples, in words that tell the files apart."""

    def transcribe_parts(self, source, latency) -> Iterator[tuple[float, list[Final]]]:
        samples = sum(map(len, read_blocks(source)))
        yield 1.0, [final("twenty", "three")]
        yield samples / 16_000, [final("samples", str(samples), start=5.0)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `asr` in this process with the stand-in: exit status, standard output, stderr."""
    monkeypatch.setattr(Options, "load", lambda options: FakeRecognizer())

    def asr(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["asr", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        return leaving.value.code or 0, *capsys.readouterr()

    return asr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """talk.wav and talk.flac (another length), a/deep/one.ogg, hidden files and a text beside them."""
    for number, name in enumerate(["talk.wav", "talk.flac", "a/deep/one.ogg", ".hidden.wav", ".cache/b.wav"], 1):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(16_000 * number), 16_000)
    (tmp_path / "notes.txt").write_text("no sound")
    return tmp_path


@pytest.mark.parametrize("arguments", [["--help"], ["transcribe", "--help"], ["evaluate", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = ("import sys; sys.argv = ['asr', *sys.argv[1:]]; from asr.cli.main import main\n"
            "try: main()\nfinally: print('heavy:', {'torch', 'numpy', 'av', 'librosa', 'gradio'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and "heavy: set()" in done.stdout


def test_version(run: Run) -> None:
    from asr import __version__

    assert run("--version") == (0, f"asr {__version__}\n", "")


def test_text_of_one_file(run: Run, folder: Path) -> None:
    assert run("transcribe", folder / "talk.wav") == (0, "twenty three\nsamples 16000\n", "")


def test_text_of_several_files_has_headings(run: Run, folder: Path) -> None:
    first, second = folder / "talk.flac", folder / "talk.wav"
    assert run("transcribe", first, second, first)[1] == (
        f"==> {first} <==\ntwenty three\nsamples 32000\n\n==> {second} <==\ntwenty three\nsamples 16000\n\n")


def test_segments_are_printed_as_soon_as_they_are_known(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    class Slow:
        def transcribe_parts(self, source, latency):
            yield 1.0, [final("first")]
            assert capsys.readouterr().out == "first\n"
            yield 2.0, [final("second")]

    monkeypatch.setattr(Options, "load", lambda options: Slow())
    assert run("transcribe", folder / "talk.wav") == (0, "second\n", "")


@pytest.mark.parametrize(("format", "beginning"), [
    ("txt", "twenty three\n"), ("srt", "1\n00:00:00,000 --> "), ("vtt", "WEBVTT\n\n00:00:00.000 --> "),
    ("tsv", "start\tend\ttext\n0\t2000\ttwenty three\n"), ("json", '{\n  "text": "twenty three\\nsamples 16000"')])
def test_formats_on_standard_output(run: Run, folder: Path, format: str, beginning: str) -> None:
    code, out, err = run("transcribe", folder / "talk.wav", "--format", format)
    assert (code, err) == (0, "") and out.startswith(beginning)


@pytest.mark.parametrize(("names", "format"), [(["talk.wav"], "all"), (["talk.wav", "talk.flac"], "srt")])
def test_standard_output_takes_one_transcript(run: Run, folder: Path, names: list[str], format: str) -> None:
    code, out, err = run("transcribe", *(folder / name for name in names), "--format", format)
    assert (code, out) == (1, "") and err.startswith("asr: ") and "--output" in err and err.count("\n") == 1


def test_all_formats_and_equal_stems(run: Run, folder: Path) -> None:
    out = folder / "new" / "out"
    assert run("transcribe", folder, "--format", "all", "--output", out) == (0, "", "")
    stems = ("one", "talk.flac", "talk.wav")
    assert {path.name for path in out.iterdir()} == {f"{stem}.{suffix}" for stem in stems
                                                     for suffix in ("txt", "srt", "vtt", "tsv", "json")}
    assert (out / "talk.flac.txt").read_text() == "twenty three\nsamples 32000\n"
    assert json.loads((out / "talk.wav.json").read_text())["duration"] == 1.0


def test_numerals(run: Run, folder: Path) -> None:
    assert run("transcribe", folder / "talk.wav", "--numerals")[1] == "23\nsamples 16000\n"


def test_a_missing_file_does_not_stop_the_others(run: Run, folder: Path) -> None:
    code, out, err = run("transcribe", folder / "gone.wav", folder / "talk.wav", folder / "notes.txt", "x*.wav")
    assert code == 1 and "samples 16000" in out
    sentences = err.splitlines()
    assert len(sentences) == 3 and all(sentence.startswith("asr: ") for sentence in sentences)
    for name, sentence in zip(["x*.wav", "gone.wav", "notes.txt"], sentences, strict=True):
        assert name in sentence


def test_a_fault_of_ours_does_not_stop_the_others(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty(FakeRecognizer):
        def transcribe_parts(self, source, latency):
            if source.endswith(".wav"):
                raise IndexError("list index out of range")
            yield from super().transcribe_parts(source, latency)

    monkeypatch.setattr(Options, "load", lambda options: Faulty())
    code, out, err = run("transcribe", folder / "talk.wav", folder / "talk.flac")
    assert code == 1 and "samples 32000" in out
    assert err == (f"asr: {folder / 'talk.wav'}: IndexError: list index out of range; please report this as a bug.\n")


def test_standard_input(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "talk.wav").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": file}))
        assert run("transcribe", "-", "--output", folder / "out") == (0, "", "")
    assert (folder / "out" / "stdin.txt").read_text() == "twenty three\nsamples 16000\n"
    code, _, err = run("transcribe", "-", folder / "talk.wav")
    assert code == 1 and "'-' (standard input) stands alone" in err


def test_a_damaged_file_is_a_clean_warning(run: Run, folder: Path) -> None:
    cut = folder / "cut.flac"
    cut.write_bytes((CLIPS / "ljspeech-2.flac").read_bytes()[:30_000])
    code, out, err = run("transcribe", cut)
    assert code == 0 and out and err.startswith(f"asr: warning: {cut}: damaged or cut short; ") and err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (["--latency", "soon"], "Latency 'soon' is not one of fast, "),
    (["--checkpoint", "no/such"], "There is no checkpoint 'no/such'"),
    (["--hotword", "word:loud"], "Hot word 'word:loud'"),
    (["--hotword", "word", "--no-lm"], "Hot words need the language model"),
    (["--output", "/dev/null/x"], "/dev/null"),
])
def test_errors_are_one_line(run: Run, folder: Path, arguments: list[str], message: str,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments[0] != "--output":
        monkeypatch.setattr(Options, "load", LOAD)  # it is the engine that checks these
    code, out, err = run("transcribe", folder / "talk.wav", *arguments)
    assert (code, out) == (1, "") and err.startswith("asr: ") and message in err and err.count("\n") == 1


def test_unknown_options_are_usage_errors(run: Run) -> None:
    assert run("transcribe", "a.wav", "--speed", "3")[0] == 2
    assert run("transcribe")[0] == 2


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 1)])
def test_leaving_quietly(run: Run, folder: Path, error: BaseException, status: int,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(files, "print", leave, raising=False)
    assert run("transcribe", folder / "talk.wav") == (status, "", "")


def test_folders_patterns_and_doubles(folder: Path) -> None:
    found, errors = expand([str(folder)])
    assert found == [str(folder / name) for name in ("talk.flac", "talk.wav", "a/deep/one.ogg")] and not errors
    assert expand([f"{folder}/*.wav", str(folder / "talk.wav")]) == ([str(folder / "talk.wav")], [])
    assert expand([f"{folder}/**/o?e.ogg"])[0] == [str(folder / "a/deep/one.ogg")]
    bracketed = folder / "[1].wav"
    bracketed.touch()
    assert expand([str(bracketed)]) == ([str(bracketed)], [])
    assert expand(["gone.wav"]) == (["gone.wav"], [])
    assert expand([str(folder / "a" / ".."), "gone*"])[1] == ["gone*: matches no file; check the path."]
    (folder / "empty").mkdir()
    assert expand([str(folder / "empty")])[1] == [f"{folder / 'empty'}: holds no sound or video files; check the path."]


def test_output_names() -> None:
    assert output_names(["/x/a.mp3", "/x/b.wav", "-"]) == {
        "/x/a.mp3": Path("a"), "/x/b.wav": Path("b"), "-": Path("stdin")}
    assert output_names(["/x/a.mp3", "/x/A.wav"]) == {"/x/a.mp3": Path("a.mp3"), "/x/A.wav": Path("A.wav")}
    assert output_names(["/x/a.mp3", "/y/a.mp3", "/y/b.wav"]) == {
        "/x/a.mp3": Path("x/a.mp3"), "/y/a.mp3": Path("y/a.mp3"), "/y/b.wav": Path("b")}


@given(st.lists(st.text("ab./", min_size=1, max_size=8).map(lambda name: str(Path("/t", *name.split("/"), "a.b"))),
                unique_by=lambda path: str(Path(path).resolve())))
def test_output_names_never_collide(paths: list[str]) -> None:
    names = output_names(paths)
    assert len(set(names.values())) == len(paths)
    assert all(not name.is_absolute() and ".." not in name.parts for name in names.values())


def test_jobs(tmp_path: Path, recognizer) -> None:
    """Two real processes: the same transcripts as one, errors and warnings of single files, progress."""
    cut = tmp_path / "cut.flac"
    cut.write_bytes((CLIPS / "ljspeech-2.flac").read_bytes()[:30_000])
    sources = [str(CLIPS / "kathleen-0.flac"), "gone.wav", str(cut), str(CLIPS / "kathleen-2.flac")]
    heard: list[float] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcomes = {outcome.source: outcome for outcome in transcribe_files(
            sources, Options(device="cpu"), jobs=2, heard=lambda source, seconds, segments: heard.append(seconds))}
    for source in (sources[0], sources[3]):
        assert outcomes[source].transcript == recognizer.transcribe(source)
    assert outcomes["gone.wav"].transcript is None and "gone.wav: cannot be opened" in outcomes["gone.wav"].error
    messages = [str(each.message) for each in caught if each.category is AudioWarning]
    assert len(messages) == 1 and messages[0].startswith(f"{cut}: damaged")
    lasted = sum(outcome.transcript.duration for outcome in outcomes.values() if outcome.transcript)
    assert sum(heard) == pytest.approx(lasted)


def test_jobs_with_a_bad_checkpoint() -> None:
    """It ends all the work, as without jobs, and is not said again for every file."""
    with pytest.raises(CheckpointError, match="There is no checkpoint 'no/such'"):
        files._work("a.wav", Options(checkpoint="no/such"))


def test_the_real_thing(recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "load", lambda options: recognizer)
    outcome, = transcribe_files([str(CLIPS / "kathleen-0.flac")])
    assert outcome.transcript and outcome.transcript.text == "there was nothing on the rock"
    with pytest.raises(AudioError):
        recognizer.transcribe("gone.wav")


def test_only_an_error_of_the_output_is_called_one():
    from asr.cli.main import describe

    assert describe(OSError(28, "No space left on device")) == "output: No space left on device."
    assert describe(PermissionError(13, "Permission denied", "talk.srt")) == "talk.srt: Permission denied."
    broken = OSError("Could not load this library: libx.so")
    broken.__cause__ = OSError("libx.so: undefined symbol: y")
    assert describe(broken) == "Could not load this library: libx.so (libx.so: undefined symbol: y)."
