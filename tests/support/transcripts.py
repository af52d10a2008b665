"""What was said, as the demo's tests show and write it, and the clips that they play."""

from __future__ import annotations

from pathlib import Path

from asr.text.results import Final, Transcript, Word

CLIPS = Path(__file__).parents[1] / "clips"
ONE, OTHER = CLIPS / "kathleen-1.flac", CLIPS / "ljspeech-1.flac"
TRANSCRIPT = Transcript((Final((Word("hello", 0.5, 0.9, 0.75), Word("<b>", 1.0, 1.2, 0.25)), 0.5, 1.2),), 2.0)
