"""English text that somebody published → OUT.txt.gz, a paragraph or a speaker's turn a line, as it was written, and an
empty line after each book, episode or dialogue.

    python recipes/en-small/fetch_text.py KIND SOURCE OUT.txt.gz [--without MANIFEST…]

SOURCE is a clone, or a git directory, of the repository that stands beside the kind:

    gutenberg     rcdm-uga/Gutenberg_Text, or any folder of Project Gutenberg's plain-text books
    changelog     thechangelog/transcripts
    talkpython    talkpython/talk-python-transcripts
    bitcoin       bitcointranscripts/bitcointranscripts
    sgd           google-research-datasets/dstc8-schema-guided-dialogue
    taskmaster    google-research-datasets/Taskmaster
    topicalchat   alexa/Topical-Chat
    wikipedia     chinapedia/wikipedia.abstract.en, whole articles of the English Wikipedia as Markdown
    prompts       a folder with a manifest.jsonl, as fetch_speech.py writes it, or with an index.jsonl, as `asr prepare
                  index` does; each text that is not of the development split is a document

Left out: repeated paragraphs, books in other languages, headers and notes; paragraphs that share eight words in a row
with a test text of a --without manifest, and whole books that share as many as a text read aloud from them would.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from published import Tree, held_out_texts, open_tree, text_of, words

Document = list[str]  # paragraphs or turns of one book, episode or dialogue, in order

RUN_WORDS = 8  # in a row that two texts share only if they are from the same place
MAX_SHARED_RUNS = 5  # of a book that no test text was read from
MIN_BOOK_WORDS = 300
ENGLISH = {
    "the",
    "of",
    "and",
    "to",
    "a",
    "in",
    "that",
    "he",
    "was",
    "it",
    "i",
    "his",
    "with",
    "as",
    "for",
    "had",
    "you",
    "not",
    "be",
    "her",
}
MIN_ENGLISH = 0.15  # of a book's words are among these twenty
MIN_LETTERS = 0.6  # of a paragraph's characters; tables and rules have fewer
MAX_TURN_WORDS = 120  # of a line that joins captions without a full stop
MIN_SENTENCE_WORDS = 8  # of an article's paragraph; shorter ones are captions and entries of lists


def gutenberg(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.suffix == ".txt":
            book = without_license(text_of(tree, path))
            said = words(book)
            if len(said) >= MIN_BOOK_WORDS and sum(word in ENGLISH for word in said) >= MIN_ENGLISH * len(said):
                paragraphs = (" ".join(part.split()).replace("_", "") for part in re.split(r"\n\s*\n", book))
                yield [re.sub(r"\[\d+\]|\{\d+\}", "", each) for each in paragraphs if is_prose(each)]


def without_license(book: str) -> str:
    """A book between Project Gutenberg's first and last lines."""
    start = re.search(r"\*\*\* ?START OF TH(E|IS) PROJECT GUTENBERG[^\n]*\n|\*END[* ]*THE SMALL PRINT![^\n]*\n", book)
    book = book[start.end() :] if start else book
    end = re.search(r"\*\*\* ?END OF TH(E|IS) PROJECT GUTENBERG|End of (the |this )?Project Gutenberg", book)
    return book[: end.start()] if end else book


def is_prose(paragraph: str) -> bool:
    letters = sum(character.isalpha() for character in paragraph)
    return (
        len(paragraph.split()) >= 3
        and re.search("[a-z]", paragraph) is not None
        and letters >= MIN_LETTERS * len(paragraph)
        and not re.match(r"\[(Illustration|Footnote|Sidenote|Transcriber)", paragraph)
        and not re.search(r"gutenberg|www\.|\.net", paragraph, re.IGNORECASE)
    )


def changelog(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.suffix == ".md" and len(path.parts) > 1:
            lines = (
                line for line in text_of(tree, path).split("\n") if not line.startswith(("**Break", "#", "```", "<"))
            )
            yield spoken_lines(re.sub(r"^\*\*[^*]+:\*\*", "", line) for line in lines)  # **Speaker:**


def bitcoin(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.suffix == ".md" and len(path.parts) > 1 and not re.search(r"\.[a-z]{2}\.md$|_index|README", path.name):
            text = re.sub(r"\A---\n.*?\n---\n", "", text_of(tree, path), flags=re.DOTALL)
            text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
            lines = (
                re.sub(r"^\s*([-*]|\d+\.)\s+", "", line)
                for line in text.split("\n")
                if not line.startswith(("#", "|", "<")) and "http" not in line
            )
            yield spoken_lines(re.sub(r"^\*{0,2}[A-Z][\w. ]{1,40}:?\*{0,2}:\s*", "", line) for line in lines)


def spoken_lines(lines: Iterator[str]) -> Document:
    """Lines of Markdown as text, without times; those of one word are headings or names."""
    texts = (plain(re.sub(r"\\?[(\[]+\d{1,2}:\d\d(:\d\d)?(\.\d+)?\\?[)\]]+", "", line)) for line in lines)
    return [text for text in texts if len(text.split()) >= 2 and re.search("[a-z]", text)]


def plain(line: str) -> str:
    """A line of Markdown without pictures, links, tags, emphasis and HTML's names of characters."""
    line = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", line)
    line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)
    return html.unescape(re.sub(r"<[^>]+>|[*`_]+|\\(?=[\[\]])", "", line)).strip()


def talkpython(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.parts[0] == "transcripts" and path.suffix == ".txt":
            turns, turn = [], ""
            for line in text_of(tree, path).split("\n"):
                turn = " ".join([turn, re.sub(r"^\s*\d+:\d+(:\d+)?(\.\d+)?", "", line)]).strip()
                if turn.endswith((".", "?", "!", '"')) or len(turn.split()) > MAX_TURN_WORDS:
                    turns.append(turn)
                    turn = ""
            yield [*turns, turn]


def sgd(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if re.fullmatch(r"dialogues_\d+\.json", path.name):
            for dialogue in json.loads(text_of(tree, path)):
                yield [turn["utterance"] for turn in dialogue["turns"]]


def taskmaster(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.parts[:2] == ("TM-4-2024", "data"):
            for dialogue in json.loads(text_of(tree, path)):
                yield [turn["text"] for turn in dialogue["utterances"] if turn.get("text")]


def topicalchat(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.parts[0] == "conversations" and path.suffix == ".json":
            for dialogue in json.loads(text_of(tree, path)).values():
                yield [turn["message"] for turn in dialogue["content"]]


def wikipedia(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.parts[0] == "Page" and path.suffix == ".md":
            parts = re.split(r"\n\s*\n", APPENDIX.split(text_of(tree, path), maxsplit=1)[0])
            yield [text for part in parts if not part.startswith(("  ", "\t")) and (text := article_text(part))]


APPENDIX = re.compile(
    r"\n\n(?:References|External links|See also|Notes|Footnotes|Bibliography|Further reading|Sources|Citations)\n"
)
PICTURE = re.compile(r"^(?:\S+\.(?:jpe?g|png|svg|gif|webm|ogg)\s+)+", re.IGNORECASE)


def article_text(paragraph: str) -> str:
    """A paragraph of an article without notes and pictures; empty where it is none, but a list, a table or a
    heading."""
    text = " ".join(paragraph.split())
    if text.startswith(("-", "[", "#", "*", ">", "+", ":")) or re.search(r"Category:|----|\|", text):
        return ""
    text = PICTURE.sub("", re.sub(r"\[(?:\d+|[a-z]|citation needed)\](?::\d+)?|[_\\]", "", text))
    sentence = len(text.split()) >= MIN_SENTENCE_WORDS and text.endswith((".", "!", "?", '"', "”", ")"))
    return text if sentence and is_prose(text) else ""


def prompts(tree: Tree) -> Iterator[Document]:
    for path in tree.paths:
        if path.name in ("manifest.jsonl", "index.jsonl"):
            for line in text_of(tree, path).splitlines():
                entry = json.loads(line)
                if entry.get("split") != "dev":
                    yield [entry["text"]]


KINDS: dict[str, Callable[[Tree], Iterator[Document]]] = {
    each.__name__: each
    for each in (gutenberg, changelog, talkpython, bitcoin, sgd, taskmaster, topicalchat, wikipedia, prompts)
}


def runs(text: str) -> set[int]:
    """Hashes of all eight words in a row; of the whole text where it is shorter."""
    said = words(text)
    return {hash(tuple(said[first : first + RUN_WORDS])) for first in range(max(1, len(said) - RUN_WORDS + 1))}


def write(documents: Iterator[Document], out: Path, whole: bool, without: list[Path]) -> None:
    """Paragraphs that no test text shares a run with, each once. `whole`: leave out whole documents, too."""
    tests = {run for text in held_out_texts(without) for run in runs(text)}
    written: set[int] = set()
    count: Counter[str] = Counter()
    with gzip.open(out, "wt", encoding="utf-8", compresslevel=5) as file:
        for document in documents:
            shared = [len(runs(paragraph) & tests) if tests else 0 for paragraph in document]
            if whole and sum(shared) > MAX_SHARED_RUNS:
                count["documents left out"] += 1
                continue
            for paragraph, shares in zip(document, shared, strict=True):
                text = " ".join(paragraph.split())
                said = words(text)
                key = hash(tuple(said))
                if not said or shares or (len(said) >= RUN_WORDS and key in written):
                    count["paragraphs left out"] += 1
                    continue
                written.add(key)
                file.write(text + "\n")
                count["lines"] += 1
                count["words"] += len(said)
            file.write("\n")
    print(f"{out}: " + ", ".join(f"{number:,} {what}" for what, number in count.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", type=Path, nargs="+", default=[], metavar="MANIFEST")
    options = parser.parse_args()
    write(KINDS[options.kind](open_tree(options.source)), options.out, options.kind == "gutenberg", options.without)


if __name__ == "__main__":
    main()
