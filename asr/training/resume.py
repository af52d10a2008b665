"""The state of a training on disk: replaced as a whole, read again to resume."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from asr.atomic import replacing
from asr.errors import TrainingError

REASON_CHARACTERS = 120  # of why a state cannot be used


def write_state(path: Path, state: dict[str, Any]) -> None:
    with replacing(path) as part:
        torch.save(state, part)


@contextmanager
def reading_state(path: Path, device: torch.device, remedy: str) -> Iterator[dict[str, Any]]:
    """What `write_state` wrote, to be taken over inside the block. Raises TrainingError where there is none; where it
    cannot be read or taken over, the error ends with `remedy`."""
    try:
        yield torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{path} is not there, so there is nothing to resume: leave out --resume.") from error
    except (RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:REASON_CHARACTERS]
        raise TrainingError(f"{path} does not fit ({reason}): {remedy}") from error
