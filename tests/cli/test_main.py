"""The command itself: help, version, and errors as one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from asr import __version__
from asr.cli.output import describe
from tests.conftest import Asr


@pytest.mark.e2e
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["transcribe", "--help"],
        ["evaluate", "--help"],
        ["listen", "--help"],
        ["doctor", "--help"],
        ["train", "--help"],
        ["--version"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['asr', *sys.argv[1:]]; from asr.cli.main import main\n"
        "try: main()\nfinally: print('heavy:', {'torch', 'numpy', 'av', 'librosa', 'gradio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0 and "heavy: set()" in done.stdout


def test_version(asr: Asr) -> None:
    assert asr("--version") == (0, f"Rill {__version__}\n", "")


def test_unknown_options_are_usage_errors(asr: Asr) -> None:
    assert asr("transcribe", "a.wav", "--speed", "3")[0] == 2
    assert asr("transcribe")[0] == 2


def test_only_an_error_of_the_output_is_called_one() -> None:
    assert describe(OSError(28, "No space left on device")) == "output: No space left on device."
    assert describe(PermissionError(13, "Permission denied", "talk.srt")) == "talk.srt: Permission denied."
    broken = OSError("Could not load this library: libx.so")
    broken.__cause__ = OSError("libx.so: undefined symbol: y")
    assert describe(broken) == "Could not load this library: libx.so (libx.so: undefined symbol: y)."
