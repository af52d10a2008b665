"""How true word times are: against forced alignments (Praat TextGrids with a tier "words") of the same recordings.

    python benchmarks/word_times.py MANIFEST ALIGNMENTS [--fit]

A grid belongs to the clip of its name. Counts words that are right; prints the error of starts and ends in
milliseconds. `--fit` also prints the offsets that would center them, for the checkpoint's config.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import jiwer
import numpy as np

import asr
from asr.audio import manifest
from asr.model.latency import PRESETS
from asr.text.results import Word

INTERVAL = re.compile(r'xmin = ([\d.]+)\s+xmax = ([\d.]+)\s+text = "([^"]+)"')


def aligned(grid: Path) -> list[tuple[float, float, str]]:
    """(start, end, word) of the tier of words."""
    tier = grid.read_text(encoding="utf-8").partition('name = "words"')[2].partition("name = ")[0]
    return [(float(start), float(end), word) for start, end, word in INTERVAL.findall(tier)]


def errors(reference: list[tuple[float, float, str]], words: list[Word]) -> Iterator[tuple[float, float]]:
    """Seconds by which each right word starts and ends too late."""
    if not words or not reference:
        return
    text = " ".join(word for _, _, word in reference), " ".join(word.text for word in words)
    for part in jiwer.process_words(*text).alignments[0]:
        if part.type == "equal":
            for i, j in zip(
                range(part.ref_start_idx, part.ref_end_idx), range(part.hyp_start_idx, part.hyp_end_idx), strict=True
            ):
                yield words[j].start - reference[i][0], words[j].end - reference[i][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("alignments", type=Path)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--fit", action="store_true")
    args = parser.parse_args()
    grids = {path.stem: path for path in args.alignments.rglob("*.TextGrid")}
    utterances = [u for u in manifest.read(args.manifest) if u.path.stem in grids]
    if not utterances:
        raise SystemExit(f"{args.alignments} has no TextGrid of an utterance of {args.manifest}: names must be alike.")
    print(f"{len(utterances)} utterances with an alignment")
    print(f"{'ms':<24} {'words':>6} {'start bias':>12} {'median |error|':>15} {'end: bias':>10} {'median |error|':>15}")
    for name, lm in (("beam + LM", True), ("greedy", False)):
        recognizer = asr.load(args.checkpoint, lm=lm, punctuate=False)
        mel = [recognizer.engine.frontend(manifest.load(u)) for u in utterances]
        for latency in ("offline", "balanced"):
            results = recognizer.engine.recognize(mel, PRESETS[latency])
            late = 1000 * np.array(
                [
                    pair
                    for u, words in zip(utterances, results, strict=True)
                    for pair in errors(aligned(grids[u.path.stem]), words)
                ]
            )
            bias, spread = np.median(late, axis=0), np.median(np.abs(late), axis=0)
            print(
                f"{name + ', ' + latency:<24} {len(late):6d} {bias[0]:12.0f} {spread[0]:15.0f} {bias[1]:10.0f} "
                f"{spread[1]:15.0f}",
                flush=True,
            )
            if args.fit:
                d = recognizer.engine.checkpoint.config.decoding
                print(
                    f"    start_offset {d.start_offset - bias[0] / 1000:.3f}, end_offset "
                    f"{d.end_offset - bias[1] / 1000:.3f} would center these"
                )


if __name__ == "__main__":
    main()
