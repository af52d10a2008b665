"""How long a listener waits for words: real-time replay of real clips through a live session.

    python benchmarks/latency.py MANIFEST ALIGNMENTS [--clips 8]
    python benchmarks/latency.py MANIFEST ALIGNMENTS --soak 120      (minutes of one session, faster than real time)

Word ends are those of forced alignments (Praat TextGrids, as for word_times.py). Columns, all in seconds of real time:

- algorithm: the setting's own worst case, (chunk + look-ahead) × frame + front end
- first partial: from the start of a clip's first word to the first text on the screen, median
- word shown: from the end of a word to its first appearance, median and 90th percentile, of words that are right in the
  final text
- final: from the end of a clip's last word to its final text, median and worst
- revised: share of the words that were shown and that a later partial, or the final, took back or changed
- words of a partial are matched with those of the next by least edit distance
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
from word_times import aligned

import asr
from asr.audio import manifest
from asr.audio.manifest import Utterance
from asr.inference.live import LiveSession
from asr.model.latency import PRESETS
from asr.text.results import Final, Partial, Word

RATE = 16_000
BLOCK = 800  # samples: 50 ms, what a sound card gives
SILENCE = np.zeros(2 * RATE, dtype=np.float32)  # after each clip, so that its endpoint comes
NEAR = 0.3  # seconds between a shown word and the same word of the alignment


@dataclass
class Clip:
    """What was shown of one clip, with the time since its replay began."""

    reference: list[tuple[float, float, str]]
    events: list[tuple[float, Partial | Final]] = field(default_factory=list)

    @property
    def first_partial(self) -> float:
        return next(at for at, event in self.events if event.words) - self.reference[0][0]

    @property
    def final(self) -> float:
        return self.events[-1][0] - self.reference[-1][1]

    def shown(self) -> list[float]:
        """Delay of every word of the alignment that the final text has."""
        right = [word for _, event in self.events if isinstance(event, Final) for word in event.words]
        delays = []
        for start, end, text in self.reference:

            def same(word: Word, text: str = text, start: float = start) -> bool:
                return word.text == text and abs(word.start - start) < NEAR

            if any(map(same, right)):
                delays.append(min(at for at, event in self.events if any(map(same, event.words))) - end)
        return delays

    def stability(self) -> tuple[int, int]:
        """Words that were shown, and those of them that were taken back."""
        shown = revised = 0
        before: list[str] = []
        for _, event in self.events:
            words = [word.text for word in event.words]
            kept = jiwer.process_words(" ".join(before), " ".join(words)).hits if before and words else 0
            shown += len(words) - kept
            revised += len(before) - kept
            before = [] if isinstance(event, Final) else words
        return shown, revised


def replay(recognizer: asr.Recognizer, utterance: Utterance, grid: Path, latency: str) -> Clip:
    clip = Clip(aligned(grid))
    samples = np.concatenate([manifest.load(utterance), SILENCE])
    start = time.perf_counter()
    with LiveSession(
        recognizer, RATE, lambda event, lag: clip.events.append((time.perf_counter() - start, event)), latency=latency
    ) as session:
        for first in range(0, len(samples), BLOCK):
            block = samples[first : first + BLOCK]
            time.sleep(max(0.0, start + (first + len(block)) / RATE - time.perf_counter()))
            session.push(block)
    return clip


def table(recognizer: asr.Recognizer, utterances: list[Utterance], grids: dict[str, Path], at_once: int) -> None:
    print(f"{len(utterances)} clips, {at_once} at once")
    print("| latency | algorithm | first partial | word shown, p50 / p90 | final, p50 / max | revised |")
    print("|" + " --- |" * 6)
    for name in ("fast", "balanced", "accurate"):
        with ThreadPoolExecutor(at_once) as pool:
            clips = list(pool.map(lambda u, name=name: replay(recognizer, u, grids[u.path.stem], name), utterances))
        delays = np.array([delay for clip in clips for delay in clip.shown()])
        final = np.array([clip.final for clip in clips])
        shown, revised = np.sum([clip.stability() for clip in clips], axis=0)
        print(
            f"| {name} | {PRESETS[name].seconds(recognizer.engine.seconds_per_frame):.2f} "
            f"| {np.median([clip.first_partial for clip in clips]):.2f} "
            f"| {np.median(delays):.2f} / {np.percentile(delays, 90):.2f} "
            f"| {np.median(final):.2f} / {final.max():.2f} | {revised / shown:.0%} |",
            flush=True,
        )


def soak(recognizer: asr.Recognizer, utterances: list[Utterance], minutes: float) -> None:
    """One session for so long, as fast as it goes: resident memory and work of each tenth."""
    print(f"{'minutes':>8} {'resident MB':>12} {'seconds of work a minute':>25} {'finals':>7}")
    sound = np.concatenate([part for u in utterances for part in (manifest.load(u), SILENCE[:RATE])])
    finals = 0

    def count(event: Partial | Final, lag: float) -> None:
        nonlocal finals
        finals += isinstance(event, Final)

    with LiveSession(recognizer, RATE, count) as session:
        done, began = 0, time.process_time()
        for tenth in range(1, 11):
            while done < tenth * minutes * 6 * RATE:
                first = done % len(sound)
                session.push(sound[first : first + BLOCK], wait=True)
                done += len(sound[first : first + BLOCK])
            resident = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024
            print(
                f"{tenth * minutes / 10:8.0f} {resident:12d} {10 * (time.process_time() - began) / minutes:25.1f} "
                f"{finals:7d}",
                flush=True,
            )
            began = time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("alignments", type=Path)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--clips", type=int, default=8, help="spread over the manifest")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="live sessions at the same time")
    parser.add_argument("--engine", choices=["auto", "torch", "onnx"], default="auto")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="instead: one long session")
    args = parser.parse_args()
    grids = {path.stem: path for path in args.alignments.rglob("*.TextGrid")}
    utterances = [u for u in manifest.read(args.manifest) if u.path.stem in grids]
    if not utterances:
        raise SystemExit(f"{args.alignments} has no grid for any clip of {args.manifest}: a grid has its clip's name.")
    chosen = utterances[:: max(1, len(utterances) // args.clips)][: args.clips]
    recognizer = asr.load(args.checkpoint, engine=args.engine, int8=args.int8, threads=1, punctuate=False)
    if args.soak:
        soak(recognizer, chosen, args.soak)
    else:
        table(recognizer, chosen, grids, args.at_once)


if __name__ == "__main__":
    main()
