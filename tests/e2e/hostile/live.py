"""Live audio for hours, as fast as the computer can: memory stays flat, and words are still heard."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile

from asr.audio.reading import SAMPLE_RATE
from tests.conftest import Clip, read_clips
from tests.e2e.hostile.figures import Budget, Figures
from tests.e2e.hostile.files import Victim, count

MINUTE_S = 60
MIN_HEARD = 0.5  # of the words of a minute; noise may cover some


def attack_listening(chance: random.Random, folder: Path, budget: Budget) -> Figures:
    """One stream; an input is a minute of real speech, pauses and noise. Two hours at most."""
    figures = Figures("live audio, minutes")
    clips = read_clips()
    with closing(Victim("speech")) as victim:
        for number in Budget(min(budget.inputs, 120), budget.seconds).rounds():
            samples, words = minute(chance, clips)
            path = folder / f"{number}.wav"
            soundfile.write(path, samples, SAMPLE_RATE)
            answer = victim.take(path)
            count(figures, answer, str(path))
            heard = Counter(str(answer["said"]).split())
            if answer["kind"] == "taken" and sum((heard & words).values()) < MIN_HEARD * words.total():
                figures.note("wrong", f"{path}: heard {' '.join(heard)!r} of {' '.join(words)!r}")
            path.unlink()
    return figures


def minute(chance: random.Random, clips: list[Clip]) -> tuple[np.ndarray, Counter[str]]:
    """Samples, and the words that are said in them. It ends with a pause, which makes every word final."""
    noise = np.random.default_rng(chance.randrange(2**32))
    parts, words, left = [], Counter[str](), MINUTE_S * SAMPLE_RATE
    while True:
        pause = np.zeros(round(chance.uniform(0.6, 4) * SAMPLE_RATE), np.float32)
        clip = chance.choice(clips)
        if len(pause) + len(clip.samples) > left - 3 * SAMPLE_RATE:
            break
        parts += [pause, clip.samples]
        left -= len(pause) + len(clip.samples)
        words.update(clip.text.split())
    samples = np.concatenate([*parts, np.zeros(left, np.float32)])
    return samples + noise.normal(0, chance.choice([0, 1e-4, 1e-3]), len(samples)).astype(np.float32), words
