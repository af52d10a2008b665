"""What hot words bring and cost: rare words of a manifest, each given among decoys that are not said.

    python benchmarks/hotwords.py data/speech --split dev

For each of `--words` rare words of the references (some outside the lexicon) the utterances that hold it, and a sample
of others, are decoded without hot words and with the word among ten decoys. Prints recall of the words, and the word
error rate of everything else.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict

import asr
from asr.audio import manifest
from asr.decoding.hotwords import Hotword
from asr.evaluation.scoring import score
from asr.model.latency import PRESETS
from asr.text.normalize import has_digits, normalize

RARE = -5.5  # log10 probability of a word on its own
OTHERS = 30  # utterances without the word that are decoded with each list
DECOYS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--split", default=None)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--words", type=int, default=50)
    parser.add_argument("--bonus", type=float, nargs="*", help="bonuses to compare (default: the checkpoint's)")
    args = parser.parse_args()

    recognizer = asr.load(args.checkpoint, punctuate=False)
    model = recognizer.engine.language_model
    assert model
    utterances = [u for u in manifest.read(args.manifest, args.split) if not has_digits(u.text)]
    references = [normalize(u.text) for u in utterances]
    holders: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(references):
        for word in set(text.split()):
            holders[word].append(i)

    def rare(word: str) -> bool:
        number = model.lexicon.index.get(word)
        return len(word) > 3 and word.isalpha() and (number is None or model.unigrams[number] < RARE)

    candidates = sorted(word for word in holders if rare(word))
    chance = random.Random(0)
    outside = [word for word in candidates if word not in model.lexicon.index]
    inside = [word for word in candidates if word in model.lexicon.index]
    chosen = chance.sample(outside, min(len(outside), args.words // 3))
    chosen += chance.sample(inside, min(len(inside), args.words - len(chosen)))
    emissions = []
    for first in range(0, len(utterances), 8):
        mel = [recognizer.engine.frontend(manifest.load(u)) for u in utterances[first : first + 8]]
        emissions += recognizer.engine.emissions(mel, PRESETS["offline"])

    def read(decoder: asr.inference.recognizer.Decoder, i: int) -> str:
        return " ".join(word.text for word in recognizer.engine.decode(decoder, emissions[i]))

    plain = [read(recognizer.engine.decoder(()), i) for i in range(len(utterances))]
    lists = []
    for word in chosen:
        decoys = chance.sample([w for w in candidates if not set(holders[w]) & set(holders[word])], DECOYS)
        others = chance.sample([i for i in range(len(utterances)) if i not in holders[word]], OTHERS)
        lists.append((word, decoys, [i for i in others if not set(references[i].split()) & set(decoys)]))

    said = sum(references[i].split().count(word) for word, _, _ in lists for i in holders[word])
    unknown = sum(word not in model.lexicon.index for word in chosen)
    print(f"{len(chosen)} words, {unknown} outside the lexicon, said {said} times")
    print(f"{'bonus':>8} {'recall without':>15} {'recall with':>12} {'WER elsewhere without':>22} {'with':>7}")
    for bonus in args.bonus or [recognizer.engine.checkpoint.config.decoding.hotword_bonus]:
        hits = before = 0
        texts: tuple[list[str], list[str], list[str]] = [], [], []
        for word, decoys, others in lists:
            decoder = recognizer.engine.decoder(tuple(Hotword((w,), bonus) for w in (word, *decoys)))
            for i in holders[word]:
                wanted, text = references[i].split().count(word), read(decoder, i)
                hits += min(wanted, text.split().count(word))
                before += min(wanted, plain[i].split().count(word))
                for column, line in zip(texts, (references[i], plain[i], text), strict=True):
                    column.append(" ".join(w for w in line.split() if w != word))
            for i in others:
                for column, line in zip(texts, (references[i], plain[i], read(decoder, i)), strict=True):
                    column.append(line)
        without, with_ = score(texts[0], texts[1]).wer, score(texts[0], texts[2]).wer
        print(f"{bonus:8.1f} {before / said:15.1%} {hits / said:12.1%} {without:22.2%} {with_:7.2%}", flush=True)


if __name__ == "__main__":
    main()
