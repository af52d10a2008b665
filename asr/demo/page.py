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
from collections.abc import AsyncIterator
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from asr.audio import reading
from asr.audio.isolated import Isolated
from asr.demo.limits import MAX_WAITING, Limits, upload_folder
from asr.errors import AudioError, RillError
from asr.inference.recognizer import Recognizer
from asr.model.latency import PRESETS, Latency
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
APPEND_DARK_MODE = "(...inputs) => [...inputs.slice(0, -1), document.body.classList.contains('dark')]"


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
    upload = gr.File(label="Audio or video", file_types=["audio", "video"], elem_id="file-upload", height=150)
    result = gr.HTML(
        "<p class='empty'>Any format that FFmpeg reads. The text shows the time of every word; click a "
        "word to hear it.</p>",
        elem_id="file-result",
    )
    with gr.Row(visible=False, elem_classes="file-downloads") as row:
        buttons = [gr.DownloadButton(name.upper(), size="sm", elem_id=f"file-{name}") for name in DOWNLOADS]
    upload.upload(
        partial(transcribe_file, recognizer, limits),
        upload,
        [result, row, *buttons],
        show_progress="hidden",
        concurrency_limit=limits.files,
        concurrency_id="files",
    )
    upload.clear(lambda: ("", gr.Row(visible=False)), None, [result, row], show_progress="hidden")


async def transcribe_file(recognizer: Recognizer, limits: Limits, path: str) -> AsyncIterator[tuple[Any, ...]]:
    """Progress while it runs, then the player with its text, and the downloads; an error is shown in the page."""
    nothing = [gr.skip()] * len(DOWNLOADS)
    name, began, segments, seconds = Path(path).name, time.monotonic(), [], 0.0
    yield progress(name, 0, 0), gr.Row(visible=False), *nothing
    try:
        size = max(1, os.path.getsize(path))
        with limits.open_upload(), open(path, "rb") as file:
            parts = recognizer.transcribe_parts(Isolated(file, name))
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                seconds, new = part
                limits.check_length(seconds)
                segments += new
                yield progress(name, seconds, file.tell() / size), gr.skip(), *nothing
    except RillError as error:
        yield f"<p class='notice' role='alert'>{escape(str(error))}</p>", gr.skip(), *nothing
        return
    transcript = Transcript(tuple(segments), seconds)
    folder = Path(tempfile.mkdtemp(prefix="rill-"))
    files = []
    for suffix in DOWNLOADS:
        file_path = folder / f"{Path(name).stem}.{suffix}"
        file_path.write_text(render(transcript, suffix), encoding="utf-8", newline="\n")
        files.append(gr.DownloadButton(value=str(file_path)))
    took = time.monotonic() - began
    yield file_result(transcript, path, took), gr.Row(visible=True), *files
    shutil.rmtree(folder, ignore_errors=True)  # Gradio has made its own copies by now


def progress(name: str, seconds: float, share: float) -> str:
    """HTML."""
    said = f"{_clock(seconds)} recognized" if seconds else "reading"
    return (
        f"<div class='progress'><span>{escape(name)}: {said}</span>"
        f"<progress max='1' value='{min(share, 1):.3f}'></progress></div>"
    )


def file_result(transcript: Transcript, path: str, took: float) -> str:
    """HTML: the player with its subtitles, the text to click in, a table of the words."""
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
    return (
        f"<div class='file-result'><div class='player'>{player}<p class='hint'>{_clock(transcript.duration)} of "
        f"audio, {len(transcript.words)} words, recognized in {took:.1f} s. Click a word to hear it.</p></div>"
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
    figure = gr.HTML(elem_id="inside-figure", min_height=120)
    dark = gr.Checkbox(visible="hidden")  # the browser fills it in
    gr.on(
        [audio.change, layer.change, live.change],
        partial(look_inside, recognizer),
        [audio, layer, live, dark],
        figure,
        js=APPEND_DARK_MODE,
        show_progress="minimal",
        concurrency_limit=1,
    )


def look_inside(recognizer: Recognizer, path: str | None, layer: str, live: str, dark: bool) -> str:
    """HTML: the figure as SVG, or why there is none."""
    if not path:
        return ""
    try:
        from asr.demo import network

        samples = _first_seconds(path)
        recording, traces = network.trace(recognizer, samples, [Latency(0, 0), LIVE_CHOICES[live]])
        figure = network.draw(recognizer, recording, traces, int(layer.split()[1]) - 1, dark)
    except RillError as error:
        return f"<p class='notice' role='alert'>{escape(str(error))}</p>"
    return f"<figure class='inside'>{network.svg(figure)}</figure>"


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
