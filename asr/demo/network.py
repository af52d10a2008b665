"""Inside the network: what every part of it does with one recording, drawn on one time axis.

`trace` runs the model step by step, as the live path does, and keeps all intermediate outputs. `draw` puts full context
and live context side by side, with matplotlib, which the extra `pictures` installs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.audio.reading import SAMPLE_RATE
from asr.errors import RillError
from asr.inference.recognizer import Recognizer
from asr.model.checkpoint import Checkpoint
from asr.model.latency import Latency
from asr.model.streaming import Emissions
from asr.model.tokens import TokenSet
from asr.text.results import Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_LABELED_PROBABILITY = 0.35  # a token's peak is labeled from this probability on
ROW_HEIGHTS = (0.6, 1.4, 1.3, 1.3, 1.5, 0.7, 0.7)  # relative
NORM_FLOOR = 1e-5  # of the variance in a layer normalization
WAVEFORM_COLUMNS = 1500
MAX_UNITS = 64  # hidden units drawn of each direction: those that vary most


State = tuple[np.ndarray, np.ndarray]  # h and, for the LSTM, c; (H,) each


@dataclass(frozen=True)
class Trace:
    """One pass over one recording; F frames, H hidden units, V tokens of the head that words are read from."""

    latency: Latency
    forward: list[np.ndarray]  # of each layer, (F, H)
    backward: list[np.ndarray]  # of each layer, (F, H)
    probabilities: np.ndarray  # (F, V)
    words: list[Word]


@dataclass(frozen=True)
class Recording:
    """What both passes share: the audio and its mel frames (T, bands)."""

    samples: np.ndarray
    mel: np.ndarray


def trace(recognizer: Recognizer, samples: np.ndarray, latencies: Sequence[Latency]) -> tuple[Recording, list[Trace]]:
    """Mono float32 at 16 kHz, at least 512 samples → the recording, and what the model did with it at each latency."""
    engine = recognizer.engine
    recording = Recording(samples, engine.frontend(samples))
    frames = engine.model.embed(recording.mel[None], None)[0]
    network = Network(engine.checkpoint)
    search = engine.decoder(recognizer.hotwords)
    traces = []
    for latency in latencies:
        forward, backward, out = network.unroll(frames, latency)
        emissions = network.emissions(out)
        traces.append(
            Trace(latency, forward, backward, np.exp(emissions[engine.head]), engine.decode(search, emissions))
        )
    return recording, traces


class Network:
    """The layers written out: the same arithmetic as `AcousticModel.advance`, frame by frame, with nothing hidden."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config, self.heads = checkpoint.config.model, list(checkpoint.config.tokens)
        self.weights = checkpoint.weights()

    def unroll(self, frames: np.ndarray, latency: Latency) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """The stem's frames (F, H) → outputs of each layer's forward and backward RNN, (F, H) each, and the last
        layer's output (F, H). Full context is one chunk as long as the recording."""
        chunk = latency.chunk or len(frames)
        layers = range(self.config.layers)
        forward: list[list[np.ndarray]] = [[] for _ in layers]
        backward: list[list[np.ndarray]] = [[] for _ in layers]
        outputs = []
        zeros = (np.zeros(self.config.hidden, np.float32),) * 2
        states = [zeros for _ in layers]
        for start in range(0, len(frames), chunk):
            x = frames[start : start + chunk + latency.look_ahead]
            commit = min(chunk, len(x))
            for i in layers:
                layer = f"layers.{i}"
                normed = self.norm(f"{layer}.norm", x)
                there, states[i] = self.rnn(f"{layer}.forward_rnn", normed[:commit], states[i])
                ahead, _ = self.rnn(f"{layer}.forward_rnn", normed[commit:], states[i])
                back = self.rnn(f"{layer}.backward_rnn", normed[::-1], zeros)[0][::-1]
                forward[i].append(there)
                backward[i].append(back[:commit])
                x = x + self.linear(f"{layer}.proj", np.hstack([np.concatenate([there, ahead]), back]))
            outputs.append(x[:commit])
        return (
            [np.concatenate(parts) for parts in forward],
            [np.concatenate(parts) for parts in backward],
            np.concatenate(outputs),
        )

    def emissions(self, x: np.ndarray) -> Emissions:
        """(F, H) → log-probabilities (F, V) of every head."""
        scores = {name: self.linear(f"heads.{name}", self.norm("norm", x)) for name in self.heads}
        return {name: each - np.logaddexp.reduce(each, axis=1, keepdims=True) for name, each in scores.items()}

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centered = x - x.mean(axis=1, keepdims=True)
        scaled = centered / np.sqrt(np.square(centered).mean(axis=1, keepdims=True) + NORM_FLOOR)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def rnn(self, name: str, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """One direction over (F, H) from a state → its outputs (F, H), and the state after the last frame."""
        weights = {kind: self.weights[f"{name}.{kind}_l0"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        inputs = x @ weights["weight_ih"].T + weights["bias_ih"]
        recurrent = np.ascontiguousarray(weights["weight_hh"].T)
        (h, c), outputs = state, np.empty_like(x)
        for i, given in enumerate(inputs):
            own = h @ recurrent + weights["bias_hh"]
            if self.config.cell == "lstm":
                enter, keep, new, leave = np.split(given + own, 4)
                c = sigmoid(keep) * c + sigmoid(enter) * np.tanh(new)
                h = sigmoid(leave) * np.tanh(c)
            elif self.config.cell == "gru":
                (reset, update, new), (own_reset, own_update, own_new) = np.split(given, 3), np.split(own, 3)
                kept = sigmoid(update + own_update)
                h = (1 - kept) * np.tanh(new + sigmoid(reset + own_reset) * own_new) + kept * h
            else:
                h = np.tanh(given + own)
            outputs[i] = h
        return outputs, (h, c)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


@dataclass(frozen=True)
class Palette:
    ink: str
    faint: str
    line: str
    accent: str
    warm: str
    tokens: Sequence[str]


LIGHT = Palette(
    "#1d2322",
    "#7d8785",
    "#d9dedb",
    "#0f766e",
    "#b45309",
    ("#0f766e", "#b45309", "#4f5bd5", "#a8325e", "#5b7a1e", "#1f7ab8"),
)
DARK = Palette(
    "#e6ebe9",
    "#8b9693",
    "#333b39",
    "#4fd1c0",
    "#f0b35a",
    ("#4fd1c0", "#f0b35a", "#9aa5ff", "#f08bb0", "#b5d36a", "#79c3f2"),
)


def draw(
    recognizer: Recognizer, recording: Recording, traces: Sequence[Trace], layer: int, dark: bool = False
) -> Figure:
    """Stacked on one time axis: waveform, mel spectrogram, hidden state of `layer` (from 0) in both directions, token
    probabilities, words; one column for each trace. Raises RillError where matplotlib is not installed."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise RillError("The picture needs matplotlib: pip install 'rill-asr[pictures]'.") from error

    palette = DARK if dark else LIGHT
    seconds = len(recording.samples) / SAMPLE_RATE
    frame = recognizer.engine.seconds_per_frame
    style: Any = {
        "font.size": 9,
        "text.color": palette.ink,
        "axes.labelcolor": palette.faint,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
        "axes.edgecolor": palette.line,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(max(6.2 * len(traces), 7), 9.8), dpi=110, facecolor="none", layout="constrained")
        axes = figure.subplots(
            len(ROW_HEIGHTS),
            len(traces),
            sharex=True,
            squeeze=False,
            height_ratios=ROW_HEIGHTS,
            subplot_kw={"facecolor": "none"},
        )
        tokens = recognizer.engine.checkpoint.config.tokens[recognizer.engine.head]
        shown = [_most_varied(getattr(traces[0], side)[layer]) for side in ("forward", "backward")]
        for column, one in zip(axes.T, traces, strict=True):
            column[0].set_title(
                _title(one.latency, frame), loc="left", fontsize=11, fontweight="bold", color=palette.ink
            )
            _waveform(column[0], recording.samples, palette)
            _mel(column[1], recognizer, recording.mel, dark)
            _hidden(column[2], one.forward[layer][:, shown[0]], frame, dark)
            _hidden(column[3], one.backward[layer][:, shown[1]], frame, dark)
            _spikes(column[4], one.probabilities, tokens, frame, palette)
            _words(column[5], one.words, palette)
            _distance(column[6], one, traces[0], layer, frame, palette)
            if one.latency.live:
                _chunks(column[2:5], one.latency, len(one.probabilities), frame, palette)
            column[-1].set_xlim(0, seconds)
            column[-1].set_xlabel("seconds")
        labels = (
            "waveform",
            "mel bands",
            f"layer {layer + 1}\nforward →",
            f"layer {layer + 1}\n← backward",
            f"{recognizer.engine.head}\nprobability",
            "words",
            "distance",
        )
        for axis, label in zip(axes[:, 0], labels, strict=True):
            axis.set_ylabel(label)
        figure.align_ylabels()
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG element; its text stays text, in the font of the page."""
    from matplotlib import rc_context

    text = StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _title(latency: Latency, seconds_per_frame: float) -> str:
    if not latency.live:
        return "Full context"
    chunk, look_ahead = latency.chunk * seconds_per_frame, latency.look_ahead * seconds_per_frame
    return f"Live: chunks of {chunk:.2f} s, looking {look_ahead:.2f} s ahead"


def _most_varied(hidden: np.ndarray) -> np.ndarray:
    """The units that vary most in this recording, in their own order."""
    return np.sort(np.argsort(hidden.std(axis=0))[-MAX_UNITS:])


def _waveform(axis: Axes, samples: np.ndarray, palette: Palette) -> None:
    """The lowest and highest sample of each column: what a line through all samples would cover."""
    columns = np.array_split(samples, min(WAVEFORM_COLUMNS, len(samples)))
    lowest, highest = [part.min() for part in columns], [part.max() for part in columns]
    times = np.linspace(0, len(samples) / SAMPLE_RATE, len(columns))
    axis.fill_between(times, lowest, highest, color=palette.accent, lw=0.3)
    axis.set_yticks([])


def _mel(axis: Axes, recognizer: Recognizer, mel: np.ndarray, dark: bool) -> None:
    frontend = recognizer.engine.frontend.config
    axis.imshow(
        mel.T,
        aspect="auto",
        origin="lower",
        extent=(0, len(mel) * frontend.hop / SAMPLE_RATE, 0, mel.shape[1]),
        cmap="magma" if dark else "magma_r",
        vmin=np.percentile(mel, 5),
    )


def _hidden(axis: Axes, hidden: np.ndarray, seconds_per_frame: float, dark: bool) -> None:
    extent = (0, len(hidden) * seconds_per_frame, 0, hidden.shape[1])
    axis.imshow(
        hidden.T,
        aspect="auto",
        origin="lower",
        extent=extent,
        cmap="berlin" if dark else "RdBu_r",
        vmin=-1,
        vmax=1,
        interpolation="nearest",
    )
    axis.set_yticks([])


def _chunks(axes: Sequence[Axes], latency: Latency, frames: int, seconds_per_frame: float, palette: Palette) -> None:
    """Where chunks were committed: right of each line the backward RNN has started from zero."""
    for axis in axes:
        for edge in range(latency.chunk, frames, latency.chunk):
            axis.axvline(edge * seconds_per_frame, color=palette.ink, lw=0.8, ls=(0, (3, 3)))


def _spikes(
    axis: Axes, probabilities: np.ndarray, tokens: TokenSet, seconds_per_frame: float, palette: Palette
) -> None:
    """Blank as a shade, every other token with a peak as a line with its name on top."""
    times = (np.arange(len(probabilities)) + 0.5) * seconds_per_frame
    axis.fill_between(times, probabilities[:, tokens.blank_index], color=palette.line, alpha=0.6, lw=0, step="mid")
    peaks = []
    for token in range(len(tokens)):
        values = probabilities[:, token]
        if token == tokens.blank_index or values.max() < MIN_LABELED_PROBABILITY:
            continue
        boundary = token == tokens.boundary_index
        color = palette.faint if boundary else palette.tokens[token % len(palette.tokens)]
        axis.plot(times, values, color=color, lw=0.7 if boundary else 1.2, ls=":" if boundary else "-")
        if not boundary:
            peaks += [(peak, tokens.symbols[token], color) for peak in _peaks(values)]
    for i, (peak, symbol, color) in enumerate(sorted(peaks)):  # in two heights, so that neighbors stay legible
        axis.text(times[peak], 1.03 + 0.11 * (i % 2), symbol, color=color, fontsize=7, ha="center", clip_on=True)
    axis.set_ylim(0, 1.28)
    axis.set_yticks([0, 1])


def _peaks(values: np.ndarray) -> list[int]:
    around = np.concatenate([[0.0], values, [0.0]])
    is_peak = (values >= MIN_LABELED_PROBABILITY) & (values >= around[:-2]) & (values > around[2:])
    return np.flatnonzero(is_peak).tolist()


def _words(axis: Axes, words: Sequence[Word], palette: Palette) -> None:
    """Each word over its time; two heights, so that short neighbors stay legible."""
    for i, word in enumerate(words):
        height = i % 2
        color = palette.accent if word.confidence >= 0.6 else palette.warm
        axis.hlines(height, word.start, word.end, color=color, lw=2)
        axis.text(
            (word.start + word.end) / 2,
            height + 0.16,
            word.text,
            ha="center",
            fontsize=8.5,
            color=palette.ink,
            clip_on=True,
        )
    axis.set_ylim(-0.4, 2)
    axis.set_yticks([])


def _distance(axis: Axes, one: Trace, full: Trace, layer: int, seconds_per_frame: float, palette: Palette) -> None:
    """How far a live pass is from full context in each frame: mean absolute difference of the backward state, relative
    to that state's own mean; and total variation of the token probabilities (0–1)."""
    axis.set_ylim(0, 1.5)
    axis.set_yticks([0, 1])
    if one is full:
        axis.text(
            0.02,
            0.5,
            "Right: how far the live pass is from this one, frame by frame.",
            transform=axis.transAxes,
            va="center",
            fontsize=8.5,
            color=palette.faint,
        )
        return
    times = (np.arange(len(one.probabilities)) + 0.5) * seconds_per_frame
    state = np.abs(one.backward[layer] - full.backward[layer]).mean(axis=1) / np.abs(full.backward[layer]).mean()
    tokens = np.abs(one.probabilities - full.probabilities).sum(axis=1) / 2
    axis.fill_between(times, state, color=palette.accent, alpha=0.35, lw=0, step="mid", label="backward state")
    axis.step(times, tokens, color=palette.warm, lw=1.1, where="mid", label="token probabilities")
    axis.legend(loc="upper right", ncols=2, frameon=False, fontsize=8, borderaxespad=0, handlelength=1.2)
