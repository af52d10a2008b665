"""What `network` has traced, as HTML that needs no drawing library: panels on one time axis, one column for each pass.

Positions are shares of the axis, so a figure is as wide as its place; where that is narrow, each column scrolls through
time. Colors come from the page, light or dark. Heat maps are images whose transparency is the value.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from asr.audio.reading import SAMPLE_RATE
from asr.demo.network import Recording, Trace
from asr.model.latency import Latency
from asr.model.tokens import TokenSet
from asr.text.results import Alternative, Word

MIN_LABELED_PROBABILITY = 0.35  # a token's peak is labeled from this probability on
MAX_UNITS = 64  # hidden units drawn of each direction: those that vary most
WAVE_POINTS = 800  # of the waveform's outline
REM_A_SECOND = 6.5  # of the time axis, at least
HEIGHT = 100  # of a panel's own coordinates; its width is in frames
SHADES = 127  # of each color in a heat map
POSITIVE, NEGATIVE = (15, 138, 126), (217, 119, 6)  # as the accent and the warm color
SURE = 0.6  # confidence


def draw(
    recording: Recording, traces: Sequence[Trace], tokens: TokenSet, head: str, layer: int, seconds_per_frame: float
) -> str:
    """Waveform, mel spectrogram, hidden state of `layer` (from 0) in both directions, token probabilities, words, and
    how far a pass is from the first one; then the sentences that the search of each pass liked best."""
    seconds = len(recording.samples) / SAMPLE_RATE
    shown = [_most_varied(getattr(traces[0], side)[layer]) for side in ("forward", "backward")]
    waveform, mel = _waveform(recording.samples), _heat(_scaled(recording.mel))
    columns = []
    for one in traces:
        frames = len(one.probabilities)
        edges = range(one.latency.chunk, frames, one.latency.chunk) if one.latency.live else range(0)
        chunks = "".join(f"<i class='chunk' style='left:{100 * edge / frames:.3f}%'></i>" for edge in edges)
        panels = [
            ("waveform", "low", waveform),
            ("mel bands", "", mel),
            (f"layer {layer + 1}, forward →", "pixels", _heat(one.forward[layer][:, shown[0]]) + chunks),
            (f"layer {layer + 1}, ← backward", "pixels", _heat(one.backward[layer][:, shown[1]]) + chunks),
            (f"{head}: probability", "high", _tokens(one.probabilities, tokens) + chunks),
            ("words", "words", _words(one.words, seconds)),
        ]
        if one is not traces[0]:
            distance = _distance(one, traces[0], layer)
            panels.append(("distance to full context: <b>backward state</b>, <u>tokens</u>", "low", distance))
        columns.append(
            f"<section><h3>{_title(one.latency, seconds_per_frame)}</h3><div class='time'>"
            f"<div style='width:max(100%, {REM_A_SECOND * seconds:.0f}rem)'>"
            + "".join(f"<h4>{label}</h4><div class='panel {kind}'>{content}</div>" for label, kind, content in panels)
            + _axis(seconds)
            + f"</div></div>{_alternatives(one.alternatives)}</section>"
        )
    return f"<figure class='inside'>{''.join(columns)}</figure>"


def _title(latency: Latency, seconds_per_frame: float) -> str:
    if not latency.live:
        return "Full context"
    chunk, look_ahead = latency.chunk * seconds_per_frame, latency.look_ahead * seconds_per_frame
    return f"Live: chunks of {chunk:.2f} s, looking {look_ahead:.2f} s ahead"


def _most_varied(hidden: np.ndarray) -> np.ndarray:
    """The units that vary most in this recording, in their own order."""
    return np.sort(np.argsort(hidden.std(axis=0))[-MAX_UNITS:])


def _scaled(mel: np.ndarray) -> np.ndarray:
    """(T, bands) in 0–1."""
    low, high = np.percentile(mel, [5, 99.8])
    return np.clip((mel - low) / max(high - low, 1e-6), 0, 1)


def _heat(values: np.ndarray) -> str:
    """(F, rows) in −1 to 1, the first row at the bottom → an image of a byte a value."""
    image = Image.fromarray(np.rint(SHADES * (1 + np.clip(values.T[::-1], -1, 1))).astype(np.uint8), "P")
    image.putpalette([part for shade in range(2 * SHADES + 1) for part in (NEGATIVE, POSITIVE)[shade >= SHADES]])
    opacity = bytes(round(255 * abs(shade - SHADES) / SHADES) for shade in range(2 * SHADES + 1))
    file = BytesIO()
    image.save(file, "PNG", transparency=opacity)
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"


def _svg(width: float, content: str) -> str:
    return f"<svg viewBox='0 0 {width:g} {HEIGHT}' preserveAspectRatio='none' aria-hidden='true'>{content}</svg>"


def _points(values: Iterable[float], step: float = 1.0, offset: float = 0.5) -> str:
    """Heights of 0–1 as points of a line."""
    return " ".join(f"{(i + offset) * step:.2f},{HEIGHT * (1 - value):.1f}" for i, value in enumerate(values))


def _waveform(samples: np.ndarray) -> str:
    parts = np.array_split(np.abs(samples), min(WAVE_POINTS, len(samples)))
    outline = np.array([part.max() for part in parts]) / max(float(np.abs(samples).max()), 1e-6) / 2
    upper = _points(0.5 + outline)
    lower = " ".join(reversed(_points(0.5 - outline).split()))
    return _svg(len(parts), f"<polygon class='wave' points='{upper} {lower}'/>")


def _tokens(probabilities: np.ndarray, tokens: TokenSet) -> str:
    """Blank as a shade, every other token with a peak as a line, and its name above."""
    frames = len(probabilities)
    lines, names = [], []
    for token in range(len(tokens)):
        values = probabilities[:, token]
        if token == tokens.blank_index:
            lines.append(f"<polygon class='blank' points='0,{HEIGHT} {_points(values)} {frames},{HEIGHT}'/>")
        elif values.max() >= MIN_LABELED_PROBABILITY:
            boundary = token == tokens.boundary_index
            kind = "boundary" if boundary else f"token token-{token % 6}"
            for first, last in _runs(values > 0.02):
                lines.append(f"<polyline class='{kind}' points='{_stretch(values, first, last)}'/>")
            names += [] if boundary else [(peak, token) for peak in _peaks(values)]
    labels = "".join(  # in two heights, so that neighbors stay legible
        f"<span class='token-{token % 6}' "
        f"style='left:{100 * (peak + 0.5) / frames:.2f}%;top:{0.9 * (1 - i % 2):.1f}em'>"
        f"{escape(tokens.symbols[token])}</span>"
        for i, (peak, token) in enumerate(sorted(names))
    )
    return f"{_svg(frames, ''.join(lines))}<div class='names'>{labels}</div>"


def _stretch(values: np.ndarray, first: int, last: int) -> str:
    first, last = max(0, first - 1), min(len(values), last + 1)
    return " ".join(f"{i + 0.5:.1f},{HEIGHT * (1 - values[i]):.1f}" for i in range(first, last))


def _runs(wanted: np.ndarray) -> list[tuple[int, int]]:
    """Where (F,) bool is true: the first frame, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wanted.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _peaks(values: np.ndarray) -> list[int]:
    around = np.concatenate([[0.0], values, [0.0]])
    is_peak = (values >= MIN_LABELED_PROBABILITY) & (values >= around[:-2]) & (values > around[2:])
    return np.flatnonzero(is_peak).tolist()


def _words(words: Sequence[Word], seconds: float) -> str:
    """Each over its time, in two rows, so that short neighbors stay legible."""
    return "".join(
        f"<span class='{'sure' if word.confidence >= SURE else 'unsure'}' title='confidence {word.confidence:.2f}' "
        f"style='left:{100 * word.start / seconds:.2f}%;min-width:{100 * (word.end - word.start) / seconds:.2f}%;"
        f"top:{1.6 * (i % 2):.1f}em'>{escape(word.text)}</span>"
        for i, word in enumerate(words)
    )


def _distance(one: Trace, full: Trace, layer: int) -> str:
    """In each frame: mean absolute difference of the backward state, relative to that state's own mean; and total
    variation of the token probabilities (0–1)."""
    state = np.abs(one.backward[layer] - full.backward[layer]).mean(axis=1) / np.abs(full.backward[layer]).mean()
    tokens = np.abs(one.probabilities - full.probabilities).sum(axis=1) / 2
    frames = len(tokens)
    shade = f"<polygon class='wave' points='0,{HEIGHT} {_points(np.minimum(state / 1.5, 1))} {frames},{HEIGHT}'/>"
    return _svg(frames, f"{shade}<polyline class='change' points='{_points(tokens / 1.5)}'/>")


def _axis(seconds: float) -> str:
    ticks = "".join(f"<span style='left:{100 * tick / seconds:.2f}%'>{tick}</span>" for tick in range(int(seconds) + 1))
    return f"<div class='axis'>{ticks}<em>seconds</em></div>"


def _alternatives(alternatives: Sequence[Alternative]) -> str:
    """The sentences of the search, the best first, with the share of the probability that each has."""
    if len(alternatives) < 2:
        return ""
    said = alternatives[0].text.split()
    rows = "".join(
        f"<tr><td>{one.confidence:.1%}</td><td>{_marked(one.text.split(), said)}</td></tr>" for one in alternatives
    )
    return (
        f"<details open><summary>The search's {len(alternatives)} best sentences</summary><div class='table'><table>"
        f"<thead><tr><th>Probability</th><th>Sentence</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _marked(words: list[str], best: list[str]) -> str:
    """A sentence, in which the words that the best one does not have are marked."""
    parts = []
    for kind, _, _, first, last in SequenceMatcher(None, best, words, autojunk=False).get_opcodes():
        text = escape(" ".join(words[first:last]))
        parts.append(text if kind == "equal" else f"<mark>{text}</mark>")
    return " ".join(part for part in parts if part)
