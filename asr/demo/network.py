"""Inside the network: what every part of it does with one recording, step by step as the live path does it.

`picture` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.inference.recognizer import Recognizer
from asr.model.checkpoint import Checkpoint
from asr.model.latency import Latency
from asr.model.streaming import Emissions
from asr.text.results import Alternative, Word

MOST_ALTERNATIVES = 8
NORM_FLOOR = 1e-5  # of the variance in a layer normalization
WAVEFORM_COLUMNS = 1500


State = tuple[np.ndarray, np.ndarray]  # h and, for the LSTM, c; (H,) each


@dataclass(frozen=True)
class Trace:
    """One pass over one recording; F frames, H hidden units, V tokens of the head that words are read from."""

    latency: Latency
    forward: list[np.ndarray]  # of each layer, (F, H)
    backward: list[np.ndarray]  # of each layer, (F, H)
    probabilities: np.ndarray  # (F, V)
    alternatives: list[Alternative]  # the sentences that may have been said, the best first

    @property
    def words(self) -> tuple[Word, ...]:
        return self.alternatives[0].words if self.alternatives else ()


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
    decoder = engine.decoder(recognizer.hotwords)
    traces = []
    for latency in latencies:
        forward, backward, out = network.unroll(frames, latency)
        emissions = network.emissions(out)
        alternatives = engine.sentences(decoder, emissions, MOST_ALTERNATIVES)
        traces.append(Trace(latency, forward, backward, np.exp(emissions[engine.head]), alternatives))
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
                both = given + own
                enter, keep, _, leave = sigmoid(both).reshape(4, -1)
                c = keep * c + enter * np.tanh(both.reshape(4, -1)[2])
                h = leave * np.tanh(c)
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
