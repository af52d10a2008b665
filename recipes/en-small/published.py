"""Published files, read alike from a folder and from a git directory; and texts as they are compared."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol


class Tree(Protocol):
    """Files by their paths, in order."""

    paths: list[PurePosixPath]

    def read(self, path: PurePosixPath) -> bytes: ...


class FolderTree:
    """The files of a folder, without those of a clone's .git."""

    def __init__(self, root: Path) -> None:
        self._root = root
        found = (path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file())
        self.paths = [PurePosixPath(path.as_posix()) for path in found if path.parts[0] != ".git"]

    def read(self, path: PurePosixPath) -> bytes:
        return (self._root / path).read_bytes()


class GitTree:
    """The files of a git directory's HEAD. Files that a partial clone lists but lacks have no size and are left out."""

    def __init__(self, git_dir: Path) -> None:
        git = ("git", f"--git-dir={git_dir}")
        self._blobs: dict[PurePosixPath, str] = {}
        listing = subprocess.run([*git, "ls-tree", "-r", "-l", "-z", "HEAD"], check=True, capture_output=True).stdout
        for entry in listing.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            facts, path = entry.split("\t", 1)
            _, kind, blob, size = facts.split()
            if kind == "blob" and size.isdigit() and int(size):
                self._blobs[PurePosixPath(path)] = blob
        self.paths = list(self._blobs)
        self._reader = subprocess.Popen([*git, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self, path: PurePosixPath) -> bytes:
        requests, answers = self._reader.stdin, self._reader.stdout
        assert requests and answers
        requests.write(self._blobs[path].encode() + b"\n")
        requests.flush()
        size = int(answers.readline().split()[2])  # "HASH blob SIZE", the content, a line feed
        return answers.read(size + 1)[:-1]


def open_tree(source: Path) -> Tree:
    """A folder's files; those of HEAD where it is a git directory, or a clone that is not checked out."""
    if not source.is_dir():
        raise SystemExit(f"{source} is no folder: give one that was unpacked or cloned.")
    if (source / "HEAD").is_file() and (source / "objects").is_dir():
        return GitTree(source)
    is_not_checked_out = [path.name for path in source.iterdir()] == [".git"]
    return GitTree(source / ".git") if is_not_checked_out else FolderTree(source)


def text_of(tree: Tree, path: PurePosixPath) -> str:
    """A text file with line feeds alone; what is not UTF-8 is read as Windows-1252."""
    content = tree.read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def words(text: str) -> list[str]:
    """A text without case and punctuation."""
    return re.findall(r"[^\W_]+", text.lower().replace("'", "").replace("’", ""))


def held_out_texts(manifests: Iterable[Path]) -> list[str]:
    """The texts of all entries of JSONL manifests that are not in the split `train`."""
    entries = (json.loads(line) for path in manifests for line in path.read_text("utf-8").split("\n") if line)
    return [entry["text"] for entry in entries if entry.get("split") != "train"]
