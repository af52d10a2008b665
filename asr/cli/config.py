"""Defaults of the user's own, in `~/.config/rill/config.toml`: keys are the names of options.

    latency = "fast"          # of every command that has this option

    [transcribe]              # of one command
    format = "srt"
    hotword = ["rill", "new york:12"]

Options on the command line win over a command's section, and this one over keys above all sections. An unknown key is
an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.errors import RillError


def path() -> Path:
    """Where the file is, there or not: below XDG_CONFIG_HOME where that is set, else in the home folder's `.config`. A
    user without a home folder has none."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(folder) / "rill" / "config.toml"


def defaults(commands: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each command: parameter → default. Raises RillError that names the file and the key."""
    file = path()
    known = {name: dict(_options(command)) for name, command in commands.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in commands}
    data = _read(file)
    for key, value in data.items():
        if isinstance(value, dict):
            continue
        having = [name for name, options in known.items() if _named(key) in options]
        if not having:
            raise RillError(f"{file}: no command has the option '{key}': correct it, see `asr --help`.")
        for name in having:
            option = known[name][_named(key)]
            found[name][option.name] = _checked(option, value, f"{file}: '{key}'")
    for section, values in data.items():
        if not isinstance(values, dict):
            continue
        if section not in known:
            raise RillError(f"{file}: there is no command '{section}': correct it, see `asr --help`.")
        for key, value in values.items():
            if _named(key) not in known[section]:
                raise RillError(f"{file}: 'asr {section}' has no option '{key}': see `asr {section} --help`.")
            option = known[section][_named(key)]
            found[section][option.name] = _checked(option, value, f"{file}: '{section}.{key}'")
    return found


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RillError(f"{file} cannot be read as TOML ({error}): correct it.") from error


def _named(key: str) -> str:
    return key.replace("_", "-")


def _options(command: Any) -> Iterator[tuple[str, Any]]:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            for name in parameter.opts:
                if name.startswith("--"):
                    yield name[2:], parameter


def _checked(option: Any, value: Any, where: str) -> Any:
    """The value, if it is of the option's kind; its exact form is checked when the command takes it."""
    items = value if option.multiple and isinstance(value, list) else [value]
    if option.is_flag and not isinstance(value, bool):
        raise RillError(f"{where} is true or false, not {value!r:.60}.")
    if option.multiple and not isinstance(value, list):
        raise RillError(f"{where} is a list, not {value!r:.60}.")
    if not option.is_flag and not all(
        isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in items
    ):
        raise RillError(f"{where} is a text or a number, not {value!r:.60}.")
    return value
