"""Dataclasses from JSON or TOML: every key is known, none is missing, and each value is of its field's kind."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

LARGEST = 1e15  # of any number, sizes of files in bytes included; NaN and infinity are not below it
KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}

T = TypeVar("T")


class SchemaError(ValueError):
    """Part of a sentence, without its full stop, that names the key by its path and says what is wrong with it."""


def build(kind: type[T], data: Any, where: str = "") -> T:
    """A dataclass from nested mappings, which may have numbers, texts, truth values, lists of these, dataclasses and
    mappings to dataclasses. `where` is the path of keys that leads here. Raises SchemaError.
    """
    if not isinstance(data, Mapping):
        raise SchemaError(f"{_quoted(where)} must hold keys and values, not {data!r:.60}")
    hints = get_type_hints(kind)
    known = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise SchemaError(f"unknown key '{_path(where, key)}': known here are {', '.join(known)}")
    for name, each in known.items():
        if name not in data and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            raise SchemaError(f"the key '{_path(where, name)}' is missing")
    values = {key: _value(hints[key], value, _path(where, key)) for key, value in data.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise SchemaError(f"{_quoted(where)}: {error}" if where else str(error)) from error


def check_range(section: Any, least: float, most: float, *names: str) -> None:
    """For a dataclass's `__post_init__`. Raises ValueError that names the field whose value is out of range."""
    for name in names:
        if not least <= getattr(section, name) <= most:
            raise ValueError(
                f"{name} must be " + (f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}")
            )


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is dict and isinstance(value, Mapping):
        return {str(key): _value(get_args(kind)[1], each, _path(where, key)) for key, each in value.items()}
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if item is str and isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
            return tuple(value)  # a vocabulary's 100 000 words need no path each
        if isinstance(value, (list, tuple)):
            return tuple(_value(item, each, where) for each in value)
        raise SchemaError(f"'{where}' is {value!r:.60}, which is not a list, each item {KINDS[item]}")
    if kind is Any:
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
    if kind is float and number:
        return float(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise SchemaError(f"'{where}' is {value!r:.60}, which is not {KINDS.get(kind, 'keys and values')}")


def _path(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _quoted(where: str) -> str:
    return f"'{where}'" if where else "it"
