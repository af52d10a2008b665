"""The tab for recordings: uploads and what is recorded there become players with their text, and downloads."""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from asr.audio.isolated import Isolated
from asr.decoding.hotwords import parse_list
from asr.demo.limits import Limits
from asr.demo.parts import alert, clock, example_recording
from asr.errors import RillError
from asr.inference.recognizer import Recognizer
from asr.text.numerals import numerals
from asr.text.results import Transcript
from asr.text.writers import render

DOWNLOADS = ("txt", "srt", "vtt", "json")


def file_tab(recognizer: Recognizer, limits: Limits) -> None:
    with gr.Row(elem_classes="file-inputs"):
        upload = gr.File(
            label="Audio or video, one file or several",
            file_types=["audio", "video"],
            file_count="multiple",
            elem_id="file-upload",
            height=168,
            scale=3,
            min_width=280,
        )
        record = gr.Audio(
            sources=["microphone"],
            type="filepath",
            label="Or record",
            elem_id="file-record",
            buttons=[],
            editable=False,
            scale=2,
            min_width=280,
        )
        with gr.Column(scale=2, min_width=280, elem_classes="file-settings"):
            hotwords = gr.Textbox(label="Hot words", placeholder="rill, new york", elem_id="file-hotwords", lines=1)
            sentences = gr.Checkbox(recognizer.punctuate, label="Write sentences", elem_id="file-sentences")
            digits = gr.Checkbox(False, label="Numbers in digits", elem_id="file-digits")
    with gr.Row(elem_classes="file-actions"):
        example = gr.Button("Try an example", size="sm", elem_id="file-example")
        again = gr.Button("Transcribe again", size="sm", elem_id="file-again", visible=False)
    result = gr.HTML(
        "<p class='empty'>Any format that FFmpeg reads. The text shows the time of every word; click a "
        "word to hear it.</p>",
        elem_id="file-result",
    )
    with gr.Row(visible=False, elem_classes="file-downloads") as row:
        buttons = [gr.DownloadButton(name.upper(), size="sm", elem_id=f"file-{name}") for name in DOWNLOADS]
    sources = gr.State([])  # what the text is of
    transcribe: dict[str, Any] = {
        "fn": partial(transcribe_files, recognizer, limits),
        "inputs": [sources, hotwords, sentences, digits],
        "outputs": [result, row, again, *buttons],
        "show_progress": "hidden",
        "concurrency_limit": limits.files,
        "concurrency_id": "files",
    }
    upload.upload(lambda paths: paths, upload, sources, show_progress="hidden").then(**transcribe)
    record.stop_recording(lambda path: [path], record, sources, show_progress="hidden").then(**transcribe)
    example.click(lambda: [[example_recording()]] * 2, None, [upload, sources], show_progress="hidden").then(
        **transcribe
    )
    again.click(**transcribe)
    upload.clear(
        lambda: ("", gr.Row(visible=False), gr.Button(visible=False)),
        None,
        [result, row, again],
        show_progress="hidden",
    )


@dataclass
class Settings:
    """How recordings are transcribed, and what becomes of their text."""

    recognizer: Recognizer
    sentences: bool
    digits: bool


async def transcribe_files(
    recognizer: Recognizer, limits: Limits, paths: list[str], hotwords: str, sentences: bool, digits: bool
) -> AsyncIterator[tuple[Any, ...]]:
    """Progress while it runs, then each recording's player with its text, and the downloads of all.

    The page shows why a recording cannot be transcribed; the others go on.
    """
    unchanged = [gr.skip()] * len(DOWNLOADS)
    shown, found = "", []
    try:
        expecting = await asyncio.to_thread(_expecting, recognizer, hotwords)
    except RillError as error:
        yield alert(error), gr.Row(visible=False), gr.Button(visible=True), *unchanged
        return
    settings = Settings(expecting, sentences, digits)
    for path in paths:
        began = time.monotonic()
        try:
            with limits.open_upload():
                transcript = Transcript((), 0.0)
                async for share, transcript in _transcribed(settings, limits, path):
                    text = shown + progress(Path(path).name, transcript.duration, share)
                    yield text, gr.Row(visible=False), gr.Button(visible=False), *unchanged
            shown += file_result(transcript, path, time.monotonic() - began, len(paths) > 1)
            found.append((Path(path).stem, transcript))
        except RillError as error:
            shown += alert(error)
    with tempfile.TemporaryDirectory(prefix="rill-") as folder:  # Gradio makes its own copies before it asks for more
        files = [gr.DownloadButton(value=_download(Path(folder), found, suffix)) for suffix in DOWNLOADS if found]
        yield shown, gr.Row(visible=bool(found)), gr.Button(visible=True), *(files or unchanged)


def _expecting(recognizer: Recognizer, hotwords: str) -> Recognizer:
    """The recognizer with words that a visitor expects, separated by commas. Raises HotwordError."""
    wanted = parse_list([word.strip() for word in hotwords.split(",") if word.strip()])
    recognizer.prepare_hotwords(wanted)
    return recognizer.expecting(wanted)


async def _transcribed(settings: Settings, limits: Limits, path: str) -> AsyncIterator[tuple[float, Transcript]]:
    """What is known so far, and the share of the file that was read. Raises RillError."""
    size, segments = max(1, os.path.getsize(path)), []
    yield 0.0, Transcript((), 0.0)
    with open(path, "rb") as file:
        source = Isolated(file, Path(path).name)
        parts = settings.recognizer.transcribe_parts(source, punctuate=settings.sentences)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            seconds, new = part
            limits.check_length(seconds)
            if settings.digits:
                new = [replace(segment, words=numerals(segment.words)) for segment in new]
            segments += new
            yield file.tell() / size, Transcript(tuple(segments), seconds)


def _download(folder: Path, found: list[tuple[str, Transcript]], suffix: str) -> str:
    """A file of the only transcript, or an archive of all of them."""
    if len(found) == 1:
        ((name, transcript),) = found
        path = folder / f"{name}.{suffix}"
        path.write_text(render(transcript, suffix), encoding="utf-8", newline="\n")
        return str(path)
    path = folder / f"transcripts-{suffix}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        names: Counter[str] = Counter()
        for name, transcript in found:
            names[name] += 1
            number = f"-{names[name]}" if names[name] > 1 else ""
            archive.writestr(f"{name}{number}.{suffix}", render(transcript, suffix))
    return str(path)


def progress(name: str, seconds: float, share: float) -> str:
    """HTML."""
    said = f"{clock(seconds)} recognized" if seconds else "reading"
    return (
        f"<div class='progress'><span>{escape(name)}: {said}</span>"
        f"<progress max='1' value='{min(share, 1):.3f}'></progress></div>"
    )


def file_result(transcript: Transcript, path: str, took: float, named: bool = False) -> str:
    """HTML: the player with its subtitles, the text to click in, a table of the words; with the file's name above."""
    track = base64.b64encode(render(transcript, "vtt").encode()).decode()
    player = (
        f"<video controls preload='metadata' src='gradio_api/file={escape(path, quote=True)}'>"
        f"<track default kind='captions' label='Text' src='data:text/vtt;base64,{track}'></video>"
    )
    paragraphs = "".join(
        f"<li><time>{clock(segment.start)}</time><p>"
        + " ".join(
            f"<span class='word' style='--doubt:{1 - w.confidence:.2f}' data-start='{w.start:.3f}' "
            f"data-end='{w.end:.3f}' title='{w.start:.2f}–{w.end:.2f} s · confidence {w.confidence:.2f}'>"
            f"{escape(w.display)}</span>"
            for w in segment.words
        )
        + "</p></li>"
        for segment in transcript.segments
    )
    rows = "".join(
        f"<tr><td>{escape(w.display)}</td><td>{w.start:.2f}</td><td>{w.end:.2f}</td><td>{w.confidence:.2f}</td></tr>"
        for w in transcript.words
    )
    text = f"<ol>{paragraphs}</ol>" if paragraphs else "<p class='empty'>No words were found in this recording.</p>"
    heading = f"<h3>{escape(Path(path).name)}</h3>" if named else ""
    return (
        f"<div class='file-result'>{heading}<div class='player'>{player}<p class='hint'>"
        f"{clock(transcript.duration)} of audio, {len(transcript.words)} words, recognized in {took:.1f} s. "
        f"Click a word to hear it.</p></div>"
        f"<div class='player-text paper'>{text}</div>"
        f"<details><summary>Times and confidence of every word</summary><div class='table'><table><thead><tr>"
        f"<th>Word</th><th>Start, s</th><th>End, s</th><th>Confidence</th></tr></thead><tbody>{rows}</tbody>"
        f"</table></div></details></div>"
    )
