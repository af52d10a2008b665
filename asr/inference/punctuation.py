"""The tagger of a checkpoint by itself, for text of any origin."""

from __future__ import annotations

import os

from asr.model import checkpoint, integrity
from asr.text.punctuator import FILE, Punctuator


def load_punctuator(name: str | os.PathLike[str] | None = None) -> Punctuator:
    """The tagger of a checkpoint, or of the one that is shipped.

        asr.load_punctuator().punctuate("how are you i am fine")     # "How are you? I am fine."

    Raises CheckpointError where the checkpoint has none.
    """
    folder = checkpoint.find(name)
    integrity.check(folder, checkpoint.read_config(folder / integrity.CONFIG).files, FILE)
    return Punctuator.load(folder / FILE)
