"""What is heard where nothing is said: words per ten minutes of background noise and of silence, live and offline.

python benchmarks/silence.py data/noise --minutes 30
python benchmarks/silence.py data/noise --split dev        (of `asr prepare noise`: what training has not heard)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import asr
from asr.audio import manifest

BLOCK = 16_000


def live(recognizer: asr.Recognizer, samples: np.ndarray) -> list[str]:
    stream = recognizer.stream()
    events = [
        event for first in range(0, len(samples), BLOCK) for event in stream.accept(samples[first : first + BLOCK])
    ]
    return [word.text for event in [*events, *stream.finish()] if isinstance(event, asr.Final) for word in event.words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    clips = manifest.read(args.noise, args.split, texts=False)
    noise = np.concatenate([manifest.load(clip) for clip in clips])[: int(args.minutes * 60 * 16_000)]
    silence = np.zeros_like(noise[:9_600_000])
    recordings = {"noise": noise, "noise, 20 dB lower": 0.1 * noise, "digital silence": silence}
    print(f"{'words per 10 minutes':<24} {'minutes':>8} {'live':>7} {'offline':>8} {'greedy offline':>15}")
    recognizer, greedy = (
        asr.load(args.checkpoint, punctuate=False),
        asr.load(args.checkpoint, lm=False, punctuate=False),
    )
    for name, samples in recordings.items():
        tens = len(samples) / 16_000 / 600
        offline = recognizer.transcribe(samples, sample_rate=16_000).words
        plain = greedy.transcribe(samples, sample_rate=16_000).words
        print(
            f"{name:<24} {10 * tens:8.1f} {len(live(recognizer, samples)) / tens:7.1f} {len(offline) / tens:8.1f} "
            f"{len(plain) / tens:15.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
