"""How live text firms up while somebody speaks on: clips joined into long speech without pauses, through streams.

    python benchmarks/stability.py data/speech --split dev --every 8

Silence is cut off both ends of each clip, and a speech has some 45 s of clips with 0.1 s between them. A row for each
way to end utterances: at pauses of `min_trailing_silence` alone, and the rules as they are, with short pauses, too.

- finals: how many, and their mean length
- WER: of all finals of a speech together
- firm: share of the words that were firm before their final came; lag: from the end of such a word to the audio's end
  when it became firm (s), median, 95th percentile, worst
- corrected: edits by which the final has changed the firm words, over the firm words
- flicker: share of the words of partials that a later partial or the final took back or changed
- work: processor time over audio time
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import jiwer
import numpy as np

import asr
from asr.audio import manifest
from asr.audio.reading import SAMPLE_RATE
from asr.evaluation.scoring import spoken
from asr.inference.endpoint import EndpointRules
from asr.model.hardware import set_threads
from asr.text.results import Final, Partial

SPEECH_S = 45.0
GAP = np.zeros(SAMPLE_RATE // 10, np.float32)
BLOCK = SAMPLE_RATE // 10  # samples: 100 ms
LOUD = 10 ** (-35 / 20)  # of a clip's peak: what is quieter at its ends is silence


@dataclass
class Figures:
    lags: list[float] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    words: int = 0
    wrong: int = 0
    corrected: int = 0
    shown: int = 0
    revised: int = 0
    seconds: float = 0.0
    work: float = 0.0


def trimmed(samples: np.ndarray) -> np.ndarray:
    """A clip without the silence at both ends."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    loud = np.flatnonzero(np.abs(frames).max(axis=1) > LOUD * np.abs(samples).max(initial=1e-9))
    return frames[loud[0] : loud[-1] + 1].reshape(-1) if len(loud) else samples[:0]


def speeches(utterances: list[manifest.Utterance]) -> list[tuple[np.ndarray, str]]:
    """Samples and what is said in them."""
    found: list[tuple[np.ndarray, str]] = []
    parts: list[np.ndarray] = []
    texts: list[str] = []
    for utterance in utterances:
        parts += [trimmed(manifest.load(utterance)), GAP]
        texts.append(utterance.text)
        if sum(map(len, parts)) >= SPEECH_S * SAMPLE_RATE:
            found.append((np.concatenate(parts), " ".join(texts)))
            parts, texts = [], []
    return found


def edits(before: list[str], after: list[str]) -> tuple[int, int]:
    """Words of `before` that are gone or changed, and all edits between the two."""
    if not before or not after:
        return len(before), len(before) + len(after)
    found = jiwer.process_words(" ".join(before), " ".join(after))
    return len(before) - found.hits, found.substitutions + found.deletions + found.insertions


def corrections(firm: list[str], final: list[str]) -> int:
    """Edits from the firm words to that beginning of the final which is nearest to them."""
    return min(edits(firm, final[:end])[1] for end in range(max(0, len(firm) - 5), len(firm) + 6))


def play(recognizer: asr.Recognizer, samples: np.ndarray, figures: Figures) -> list[Final]:
    stream, finals = recognizer.stream(), []
    last = Partial((), 0.0)
    for first in range(0, len(samples) + BLOCK, BLOCK):
        block = samples[first : first + BLOCK]
        for event in stream.accept(block) if len(block) else stream.finish():
            before = [word.text for word in last.words]
            gone, _ = edits(before, [word.text for word in event.words])
            figures.revised += gone
            figures.shown += len(event.words) - (len(before) - gone)
            if isinstance(event, Partial):
                heard = (first + len(block)) / SAMPLE_RATE
                figures.lags += [heard - word.end for word in event.words[last.stable : event.stable]]
                last = event
                continue
            if last.stable:
                firm = [word.text for word in last.words[: last.stable]]
                figures.corrected += corrections(firm, [word.text for word in event.words])
            finals.append(event)
            last = Partial((), 0.0)
    return finals


def measure(recognizer: asr.Recognizer, chosen: list[tuple[np.ndarray, str]]) -> Figures:
    figures = Figures()
    for samples, text in chosen:
        began = time.process_time()
        finals = play(recognizer, samples, figures)
        figures.work += time.process_time() - began
        figures.finals += finals
        figures.seconds += len(samples) / SAMPLE_RATE
        reference = spoken(text).split()
        figures.words += len(reference)
        figures.wrong += edits(reference, spoken(" ".join(final.text for final in finals)).split())[1]
    return figures


def row(name: str, figures: Figures) -> str:
    said = sum(len(final.words) for final in figures.finals)
    lags = np.array(figures.lags or [np.nan])
    length = np.mean([final.end - final.start for final in figures.finals])
    return (
        f"| {name} | {len(figures.finals)}, {length:.1f} s | {figures.wrong / figures.words:.1%} "
        f"| {len(figures.lags) / said:.0%} "
        f"| {np.median(lags):.2f} / {np.percentile(lags, 95):.2f} / {lags.max():.2f} "
        f"| {figures.corrected / max(1, len(figures.lags)):.1%} | {figures.revised / max(1, figures.shown):.0%} "
        f"| {figures.work / figures.seconds:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--checkpoint")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth clip")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="clips left out at the beginning")
    parser.add_argument("--int8", action="store_true")
    args = parser.parse_args()
    set_threads(1)
    chosen = speeches(manifest.read(args.manifest, args.split)[args.skip :: args.every])
    rules = EndpointRules()
    print(f"{len(chosen)} speeches, {sum(len(samples) for samples, _ in chosen) / SAMPLE_RATE / 60:.1f} minutes")
    print("| utterances end | finals | WER | firm | lag, p50 / p95 / max | corrected | flicker | work |")
    print("|" + " --- |" * 8)
    for name, each in (
        ("at pauses of 0.8 s", replace(rules, min_pause=rules.min_trailing_silence)),
        ("also at 0.3 s after 8 s", rules),
    ):
        recognizer = asr.load(args.checkpoint, device="cpu", threads=1, int8=args.int8, punctuate=False, rules=each)
        print(row(name, measure(recognizer, chosen)), flush=True)


if __name__ == "__main__":
    main()
