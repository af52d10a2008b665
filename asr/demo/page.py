"""The browser demo: a Gradio page with live captions, files, a look inside the network, and facts about the model.

`build` makes the page around one shared recognizer; `hosting` runs it. The live tab's markup is in `static/`, and its
audio has a route of its own (`live`).
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from asr.demo.file_tab import file_tab
from asr.demo.inside_tab import inside_tab
from asr.demo.limits import MAX_WAITING, Limits, upload_folder
from asr.inference.recognizer import Recognizer
from asr.model.latency import PRESETS

STATIC = Path(__file__).parent / "static"
NO_LIMITS = Limits()  # but those of the disk
KEEP_FILES_S = 86_400  # after which uploads and downloads are deleted
CLEANUP_INTERVAL_S = KEEP_FILES_S // 24
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
                file_tab(recognizer, limits)
            with gr.Tab("Inside the network", id="inside-tab"):
                inside_tab(recognizer)
            with gr.Tab("About", id="about-tab"):
                gr.Markdown(about(recognizer), elem_classes="about")
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=8)
    return page


def about(recognizer: Recognizer) -> str:
    """Markdown: the checkpoint's facts and, where it has one, its model card, with accuracy and limits."""
    config = recognizer.engine.checkpoint.config
    parameters = recognizer.engine.checkpoint.size / 1e6
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
