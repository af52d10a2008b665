"""Speech that somebody published → a folder with a manifest, which `asr prepare index` reads.

    python recipes/en-small/fetch_speech.py LAYOUT SOURCE OUT [--texts FILE] [--min-score X] [--without MANIFEST…]

SOURCE is a folder (an unpacked archive of OpenSLR or Mozilla, a clone), or a git directory. LAYOUT:

    librispeech   NNN-NNN-NNNN.flac, .wav or .mp3 anywhere, with its line in a *.trans.txt
    commonvoice   the rows of every validated.tsv whose clip is there
    beside        every recording with a .txt of its own name beside it, all of one speaker
    listed        every recording that a line `name TAB text [TAB score]` of --texts names

Writes OUT/audio/* as they are, and OUT/manifest.jsonl. LibriSpeech speakers in held_out.txt are never written: they
measure the result. Nor are recordings whose text is one of a --without manifest's test texts.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from published import Tree, held_out_texts, open_tree, text_of, words

HELD_OUT = Path(__file__).with_name("held_out.txt")
RECORDINGS = {".flac", ".wav", ".mp3", ".ogg", ".opus"}
LIBRISPEECH_NAME = re.compile(r"(\d+)-\d+-\d+")
CLIENT_ID_CHARS = 16  # of Common Voice's 128 are enough to tell speakers apart


@dataclass(frozen=True)
class Clip:
    """A recording in a tree, what is said in it, and who says it."""

    path: PurePosixPath
    text: str
    speaker: str | None


def recordings(tree: Tree) -> list[PurePosixPath]:
    return [path for path in tree.paths if path.suffix.lower() in RECORDINGS]


def librispeech(tree: Tree) -> Iterator[Clip]:
    texts = dict(
        line.split(" ", 1)
        for path in tree.paths
        if path.name.endswith(".trans.txt")
        for line in text_of(tree, path).split("\n")
        if " " in line
    )
    for path in recordings(tree):
        if path.stem in texts and LIBRISPEECH_NAME.fullmatch(path.stem):
            yield Clip(path, texts[path.stem], librispeech_speaker(path))


def librispeech_speaker(path: PurePosixPath) -> str | None:
    match = LIBRISPEECH_NAME.fullmatch(path.stem)
    return f"ls-{match.group(1)}" if match else None


def commonvoice(tree: Tree) -> Iterator[Clip]:
    clips = {path.name: path for path in recordings(tree)}
    for table in (path for path in tree.paths if path.name == "validated.tsv"):
        header, *rows = text_of(tree, table).split("\n")  # never quoted: a sentence may begin with a quotation mark
        columns = header.split("\t")
        for row in rows:
            cells = dict(zip(columns, row.split("\t"), strict=False))
            if cells.get("sentence") and cells["path"] in clips:
                yield Clip(clips[cells["path"]], cells["sentence"], f"cv-{cells['client_id'][:CLIENT_ID_CHARS]}")


def beside(tree: Tree) -> Iterator[Clip]:
    known = set(tree.paths)
    for path in recordings(tree):
        if (text := path.with_suffix(".txt")) in known:
            yield Clip(path, " ".join(text_of(tree, text).split()), "one")


def listed(tree: Tree, texts: Path, min_score: float) -> Iterator[Clip]:
    rows = (line.split("\t") for line in texts.read_text("utf-8").split("\n") if line)
    wanted = {row[0]: row[1] for row in rows if len(row) < 3 or float(row[2]) >= min_score}
    for path in recordings(tree):
        if path.stem in wanted:
            yield Clip(path, wanted[path.stem], librispeech_speaker(path))


def write(tree: Tree, clips: Iterator[Clip], out: Path, without: list[Path]) -> None:
    """The clips, each name once. What measures the result is left out."""
    held_out, tests = set(HELD_OUT.read_text().split()), {" ".join(words(text)) for text in held_out_texts(without)}
    (out / "audio").mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    left_out = 0
    with open(out / "manifest.jsonl", "w", encoding="utf-8") as manifest:
        for clip in clips:
            name = clip.path.name
            if name in names or clip.speaker in held_out or " ".join(words(clip.text)) in tests:
                left_out += 1
                continue
            names.add(name)
            (out / "audio" / name).write_bytes(tree.read(clip.path))
            entry = {"audio": f"audio/{name}", "text": clip.text.strip(), "speaker": clip.speaker, "corpus": out.name}
            manifest.write(json.dumps(entry, ensure_ascii=False) + "\n")
    if not names:
        raise SystemExit(f"{out}: no recordings; is the layout another one?")
    print(f"{out}: {len(names)} recordings; {left_out} left out (held out, a test's text, or there twice)")


def main() -> None:
    layouts = {"librispeech": librispeech, "commonvoice": commonvoice, "beside": beside}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", choices=[*layouts, "listed"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=Path, help="for the layout `listed`")
    parser.add_argument("--min-score", type=float, default=float("-inf"), help="leaves out lines of --texts below it")
    parser.add_argument("--without", type=Path, nargs="+", default=[], metavar="MANIFEST")
    options = parser.parse_args()
    tree = open_tree(options.source)
    if options.layout == "listed":
        if options.texts is None:
            parser.error("the layout `listed` needs --texts.")
        clips = listed(tree, options.texts, options.min_score)
    else:
        clips = layouts[options.layout](tree)
    write(tree, clips, options.out, options.without)


if __name__ == "__main__":
    main()
