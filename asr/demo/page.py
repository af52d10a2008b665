"""The browser demo: a Gradio page with live captions, files, a look inside the network, and facts about the model.

`build` makes the page around one shared recognizer; `hosting` runs it. The live tab's markup is in `static/`, and its
audio has a route of its own (`live`).
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
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
import numpy as np

from asr.audio import reading
from asr.audio.isolated import Isolated
from asr.audio.sample import sample
from asr.decoding.hotwords import parse_list
from asr.demo import network, picture
from asr.demo.limits import MAX_WAITING, Limits, upload_folder
from asr.errors import AudioError, RillError
from asr.inference.recognizer import Recognizer
from asr.model.latency import PRESETS, Latency
from asr.text.numerals import numerals
from asr.text.results import Transcript
from asr.text.writers import render

STATIC = Path(__file__).parent / "static"
NO_LIMITS = Limits()  # but those of the disk
DOWNLOADS = ("txt", "srt", "vtt", "json")
MAX_DRAWN_S = 12.0  # more is too dense to read
MIN_DRAWN_S = 0.1
KEEP_FILES_S = 86_400  # after which uploads and downloads are deleted
CLEANUP_INTERVAL_S = KEEP_FILES_S // 24
LIVE_CHOICES = {
    f"{name} ({latency.chunk}, {latency.look_ahead})": latency for name, latency in PRESETS.items() if latency.live
}
NO_MODEL_CARD = (
    "\n\nThis checkpoint has no model card, so this page cannot state its accuracy and limits: measure "
    "them with `asr evaluate`.\n"
)


def build(recognizer: Recognizer, limits: Limits = NO_LIMITS) -> gr.Blocks:
    """The page. Every visitor has a live session of their own; all share the recognizer."""
    upload_folder()  # before Gradio asks for its own
    with gr.Blocks(
        title="Rill – live speech recognition", analytics_enabled=False, delete_cache=(CLEANUP_INTERVAL_S, KEEP_FILES_S)
    ) as page:
        gr.HTML(
            "<header class='masthead'><h1>Rill</h1><p>Speech to text while you speak. Nothing leaves "
            "this computer.</p></header>"
        )
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Live", id="live-tab"):
                gr.HTML((STATIC / "live.html").read_text(encoding="utf-8"))
            with gr.Tab("File", id="file-tab"):
                _file_tab(recognizer, limits)
            with gr.Tab("Inside the network", id="inside-tab"):
                _inside_tab(recognizer)
            with gr.Tab("About", id="about-tab"):
                gr.Markdown(about(recognizer), elem_classes="about")
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=8)
    return page


def _file_tab(recognizer: Recognizer, limits: Limits) -> None:
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
    example.click(_example, None, [upload, sources], show_progress="hidden").then(**transcribe)
    again.click(**transcribe)
    upload.clear(
        lambda: ("", gr.Row(visible=False), gr.Button(visible=False)),
        None,
        [result, row, again],
        show_progress="hidden",
    )


def _example() -> tuple[list[str], list[str]]:
    """The recording that comes with Rill, where Gradio may read it."""
    copy = [str(shutil.copy(sample(), upload_folder()))]
    return copy, copy


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
        yield _alert(error), gr.Row(visible=False), gr.Button(visible=True), *unchanged
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
            shown += _alert(error)
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


def _alert(error: RillError) -> str:
    """HTML."""
    return f"<p class='notice' role='alert'>{escape(str(error))}</p>"


def progress(name: str, seconds: float, share: float) -> str:
    """HTML."""
    said = f"{_clock(seconds)} recognized" if seconds else "reading"
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
        f"<li><time>{_clock(segment.start)}</time><p>"
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
        f"{_clock(transcript.duration)} of audio, {len(transcript.words)} words, recognized in {took:.1f} s. "
        f"Click a word to hear it.</p></div>"
        f"<div class='player-text paper'>{text}</div>"
        f"<details><summary>Times and confidence of every word</summary><div class='table'><table><thead><tr>"
        f"<th>Word</th><th>Start, s</th><th>End, s</th><th>Confidence</th></tr></thead><tbody>{rows}</tbody>"
        f"</table></div></details></div>"
    )


def _inside_tab(recognizer: Recognizer) -> None:
    gr.HTML(
        f"<p class='lead'>Record or upload a few seconds of speech to see every part of the network at work: once "
        f"with full context, once as it runs live. The page draws the first {MAX_DRAWN_S:.0f} s.</p>"
    )
    layers = [f"Layer {i + 1}" for i in range(recognizer.engine.model.config.layers)]
    with gr.Row(elem_classes="inside-controls"):
        audio = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Recording",
            elem_id="inside-audio",
            scale=2,
            min_width=280,
            buttons=[],
            editable=False,
        )
        with gr.Column(scale=2, min_width=280):
            layer = gr.Radio(layers, value=layers[-1], label="Hidden state of", elem_id="inside-layer")
            live = gr.Radio(
                list(LIVE_CHOICES),
                value=next(n for n in LIVE_CHOICES if n.startswith("balanced")),
                label="Live, with chunk and look-ahead in frames",
                elem_id="inside-latency",
            )
    with gr.Row(elem_classes="file-actions"):
        example = gr.Button("Try an example", size="sm", elem_id="inside-example")
    example.click(lambda: _example()[0][0], None, audio, show_progress="hidden")
    figure = gr.HTML(elem_id="inside-figure", min_height=120)
    gr.on(
        [audio.change, layer.change, live.change],
        partial(look_inside, recognizer),
        [audio, layer, live],
        figure,
        show_progress="minimal",
        concurrency_limit=1,
    )


def look_inside(recognizer: Recognizer, path: str | None, layer: str, live: str) -> str:
    """HTML: the figure, or why there is none."""
    if not path:
        return ""
    try:
        samples = _first_seconds(path)
    except RillError as error:
        return _alert(error)
    engine = recognizer.engine
    recording, traces = network.trace(recognizer, samples, [Latency(0, 0), LIVE_CHOICES[live]])
    tokens = engine.checkpoint.config.tokens[engine.head]
    return picture.draw(recording, traces, tokens, engine.head, int(layer.split()[1]) - 1, engine.seconds_per_frame)


def _first_seconds(path: str) -> np.ndarray:
    blocks, samples = [np.zeros(0, np.float32)], 0
    with open(path, "rb") as file:
        for block in reading.read_blocks(Isolated(file, Path(path).name)):
            blocks.append(block)
            samples += len(block)
            if samples >= MAX_DRAWN_S * reading.SAMPLE_RATE:
                break
    drawn = np.concatenate(blocks)[: round(MAX_DRAWN_S * reading.SAMPLE_RATE)]
    if len(drawn) < MIN_DRAWN_S * reading.SAMPLE_RATE:
        raise AudioError("This recording is too short to draw: record at least a word.")
    return drawn


def about(recognizer: Recognizer) -> str:
    """Markdown: the checkpoint's facts and, where it has one, its model card, with accuracy and limits."""
    config = recognizer.engine.checkpoint.config
    parameters = sum(values.size for values in recognizer.engine.checkpoint.stored.values()) / 1e6
    shape = config.model
    step = recognizer.engine.seconds_per_frame
    latencies = "\n".join(
        f"| {name} | {latency.chunk} | {latency.look_ahead} | {latency.seconds(step):.2f} s |"
        for name, latency in PRESETS.items()
        if latency.live
    )
    card = recognizer.engine.checkpoint.optional("MODEL_CARD.md")
    engine = recognizer.engine
    words_from = engine.head + (", a dictionary and a language model" if engine.language_model else "")
    return f"""{card.read_text(encoding="utf-8") if card else f"# {config.name}{NO_MODEL_CARD}"}

## This network

| | |
| --- | --- |
| Language | {config.language} |
| Network | {shape.layers} bidirectional {shape.cell.upper()} layers of 2 × {shape.hidden} units, \
{parameters:.1f} million parameters |
| Step | {1000 * step:.0f} ms |
| Words come from | {words_from} |
| License of the weights | {config.licence} |

## Latency

One set of weights runs at every setting. The worst case is the longest time that audio waits for its chunk and its
look-ahead, without the time for computing.

| Setting | Chunk, frames | Look-ahead, frames | Worst case |
| --- | --- | --- | --- |
{latencies}
"""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
