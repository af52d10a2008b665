"""A recording of real speech that comes with Rill: five people, a sentence each, 27 s (samples/README.md)."""

from __future__ import annotations

from pathlib import Path

from asr.errors import AudioError

NAME = "sentences.flac"


def sample() -> Path:
    """Where it is. Raises AudioError where an installation lacks it."""
    package = Path(__file__).parents[1]  # which carries it when it is installed
    for folder in (package, package.parent):
        if (found := folder / "samples" / NAME).is_file():
            return found
    raise AudioError(f"The recording samples/{NAME} is missing: install Rill again.")
