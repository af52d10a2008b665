"""The demo's tab for recordings: what it shows, its downloads, its settings and limits."""

from __future__ import annotations

import asyncio
import io
import zipfile
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import pytest

import asr
from asr.audio.sample import sample
from asr.demo import file_tab
from asr.demo.limits import Limits, upload_folder
from asr.demo.page import NO_LIMITS
from asr.demo.parts import example_recording
from asr.errors import RillError
from asr.text.writers import render
from tests.support.transcripts import ONE, OTHER, TRANSCRIPT


@pytest.fixture(scope="module")
def recognizer() -> asr.Recognizer:
    return asr.load(device="cpu")


def shown(recognizer, *paths, limits=NO_LIMITS, hotwords="", sentences=True, digits=False):
    """What the tab shows in the end, and its downloads, read as Gradio does: before it asks for the next step."""

    async def steps():
        found = []
        steps = file_tab.transcribe_files(recognizer, limits, list(map(str, paths)), hotwords, sentences, digits)
        async for html, _, _, *buttons in steps:  # noqa: B007
            files = [button.value for button in buttons if isinstance(button, gr.DownloadButton)]
            found += [Path(file["path"] if isinstance(file, dict) else file).read_bytes() for file in files]
        return html, found

    return asyncio.run(steps())


def test_shown(recognizer):
    html, texts = shown(recognizer, ONE)
    transcript = recognizer.transcribe(ONE)
    assert [text.decode() for text in texts] == [render(transcript, format) for format in file_tab.DOWNLOADS]
    assert all(f">{word.display}</span>" in html for word in transcript.words)


def test_file_tab_says_what_is_wrong(recognizer, tmp_path):
    path = tmp_path / "a<b>.mp4"
    path.write_text("no video")
    html, _ = shown(recognizer, path)
    assert "role='alert'" in html and "a&lt;b&gt;.mp4" in html and "<b>" not in html


def test_several_files_have_their_downloads_in_archives(recognizer, tmp_path):
    again = tmp_path / ONE.name
    again.write_bytes(ONE.read_bytes())
    (tmp_path / "none.mp3").write_text("no sound")
    html, archives = shown(recognizer, ONE, tmp_path / "none.mp3", OTHER, again)
    assert html.count("<video") == 3 and html.count("role='alert'") == 1  # what fails does not stop the others
    for format, archive in zip(file_tab.DOWNLOADS, archives, strict=True):
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            texts = {name: files.read(name).decode() for name in files.namelist()}
        assert list(texts) == [f"{ONE.stem}.{format}", f"{OTHER.stem}.{format}", f"{ONE.stem}-2.{format}"]
        assert texts[f"{OTHER.stem}.{format}"] == render(recognizer.transcribe(OTHER), format)


def test_settings_of_the_shown(recognizer, clips):
    raw = " ".join(word.text for word in recognizer.transcribe(ONE, punctuate=False).words)
    _, (text, *_) = shown(recognizer, ONE, sentences=False)
    assert " ".join(text.decode().split()) == raw
    _, (text, *_) = shown(recognizer, ONE, sentences=False, hotwords="certitude, expectorant:30")
    assert "expectorant" in text.decode()
    html, texts = shown(recognizer, ONE, hotwords="!")
    assert "role='alert'" in html and not texts


def test_file_tab_obeys_the_limits(recognizer):
    html, texts = shown(recognizer, ONE, limits=Limits(max_seconds=1))
    assert "role='alert'" in html and "longer than 1 s" in html and not texts

    @contextmanager
    def full():
        raise RillError("All 4 places for uploads are taken: try again later.")
        yield

    html, texts = shown(recognizer, ONE, limits=Limits(open_upload=full))
    assert "All 4 places for uploads are taken" in html and not texts


def test_words_and_names_are_escaped():
    html = file_tab.file_result(TRANSCRIPT, "/tmp/it's.mp4", 1.0)
    assert "<b>" not in html and "it's.mp4" not in html


def test_the_example_can_be_uploaded() -> None:
    path = Path(example_recording())
    assert path.is_relative_to(upload_folder()) and path.read_bytes() == sample().read_bytes()
