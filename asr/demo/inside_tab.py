"""The tab that shows what every part of the network does with a recording, once with full context and once live."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np

from asr.audio import reading
from asr.audio.isolated import Isolated
from asr.demo import network, picture
from asr.demo.parts import alert, example_recording
from asr.errors import AudioError, RillError
from asr.inference.recognizer import Recognizer
from asr.model.latency import PRESETS, Latency

MAX_DRAWN_S = 12.0  # more is too dense to read
MIN_DRAWN_S = 0.1
LIVE_CHOICES = {
    f"{name} ({latency.chunk}, {latency.look_ahead})": latency for name, latency in PRESETS.items() if latency.live
}


def inside_tab(recognizer: Recognizer) -> None:
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
    example.click(example_recording, None, audio, show_progress="hidden")
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
        return alert(error)
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
