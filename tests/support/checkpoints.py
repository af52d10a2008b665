"""What a checkpoint's config.json lists, and which of its files are otherwise."""

import shutil
from pathlib import Path

from asr.model import checkpoint, integrity
from asr.model.integrity import CONFIG, FileFacts


def listed(folder: Path) -> dict[str, FileFacts]:
    return checkpoint.read_config(folder / CONFIG).files


def wrong(folder: Path) -> list[str]:
    """The files that `asr doctor` names."""
    files = listed(folder)
    return [name for name in files if integrity.damage(folder, name, files[name], mapped=True)]


def only_config(folder: Path) -> Path:
    """A folder with the shipped checkpoint's config.json alone, so that every file which it lists is wrong there."""
    folder.mkdir()
    shutil.copy(checkpoint.find() / CONFIG, folder)
    return folder
