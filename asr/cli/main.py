"""The `asr` command: it assembles the commands and turns errors into one line.

Each command imports what it needs when it runs, so that help answers at once.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from asr import __version__
from asr.cli import config
from asr.cli.bench import bench
from asr.cli.demo import demo
from asr.cli.doctor import doctor
from asr.cli.evaluate import evaluate
from asr.cli.export import export
from asr.cli.listen import listen
from asr.cli.lm import lm
from asr.cli.models import models
from asr.cli.output import accept_any_text, complain, describe
from asr.cli.prepare import prepare
from asr.cli.punctuate import punctuate
from asr.cli.serve import serve
from asr.cli.train import train
from asr.cli.transcribe import transcribe
from asr.cli.tune import tune
from asr.errors import RillError

EXTRAS = {
    "torch": "train",
    "torchaudio": "train",
    "onnx": "train",
    "scipy": "train",
    "lhotse": "train",
    "tensorboard": "train",
    "fastapi": "serve",
    "fastapi_offline": "serve",
    "uvicorn": "serve",
    "multipart": "serve",
    "prometheus_client": "serve",
    "wyoming": "wyoming",
    "ray": "ray",
    "pyarrow": "ray",
    "pynput": "type",
}  # package → the extra that installs it

app = typer.Typer(
    help="Rill: live and offline speech recognition.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (transcribe, listen, demo, serve, doctor, bench, evaluate, export, prepare, train, tune, lm, punctuate):
    app.command()(command)
app.add_typer(models, name="models")


def show_version(asked: bool) -> None:
    if asked:
        print(f"Rill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Rill: live and offline speech recognition. Defaults of yours: ~/.config/rill/config.toml."""
    context.default_map = config.defaults(context.command.commands)  # type: ignore[attr-defined]


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(f"warning: {message}")


def main() -> None:
    """Runs the command. An error that a user can act on is one line on stderr and status 1; Ctrl-C is status 130."""
    accept_any_text()
    warnings.showwarning = show_warning
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except RillError as error:
        complain(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        complain(f"This needs the package '{error.name}': pip install 'rill-asr[{extra}]'.")
    except OSError as error:
        complain(describe(error))
    sys.exit(1)
