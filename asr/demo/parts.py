"""What several tabs of the page have."""

from __future__ import annotations

import shutil
from html import escape

from asr.audio.sample import sample
from asr.demo.limits import upload_folder
from asr.errors import RillError


def example_recording() -> str:
    """The recording that comes with Rill, where Gradio may read it."""
    return str(shutil.copy(sample(), upload_folder()))


def alert(error: RillError) -> str:
    """HTML."""
    return f"<p class='notice' role='alert'>{escape(str(error))}</p>"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
