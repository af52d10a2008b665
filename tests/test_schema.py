"""Dataclasses from mappings: what is wrong is named by its path."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from asr.schema import SchemaError, build, check_range


@dataclass(frozen=True)
class Inner:
    size: int = 1
    share: float = 0.5
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "share")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    others: dict[str, Inner] = field(default_factory=dict)
    on: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def test_values_of_every_kind() -> None:
    data = {
        "name": "a",
        "inner": {"size": 3.0, "share": 1, "names": ["x"]},
        "others": {"b": {"size": 2}},
        "on": True,
        "facts": {"any": [None]},
    }
    built = build(Outer, data)
    assert built == Outer("a", Inner(3, 1.0, ("x",)), {"b": Inner(2)}, True, {"any": [None]})
    assert isinstance(built.inner.size, int) and isinstance(built.inner.share, float)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "it must hold keys and values, not []"),
        ({}, "the key 'name' is missing"),
        ({"name": 1}, "'name' is 1, which is not a text"),
        ({"name": "a", "nam": 1}, "unknown key 'nam': known here are name, inner, others, on, facts"),
        ({"name": "a", "inner": 3}, "'inner' must hold keys and values, not 3"),
        ({"name": "a", "inner": {"size": 1.5}}, "'inner.size' is 1.5, which is not a whole number"),
        ({"name": "a", "inner": {"size": True}}, "'inner.size' is True, which is not a whole number"),
        ({"name": "a", "inner": {"share": float("nan")}}, "'inner.share' is nan, which is not a number"),
        ({"name": "a", "inner": {"share": 2.0}}, "'inner': share must be from 0 to 1"),
        ({"name": "a", "inner": {"names": "x"}}, "'inner.names' is 'x', which is not a list, each item a text"),
        ({"name": "a", "others": {"b": {"sise": 1}}}, "unknown key 'others.b.sise': known here are size, share, names"),
        ({"name": "a", "others": []}, "'others' is [], which is not keys and values"),
        ({"name": "a", "on": 1}, "'on' is 1, which is not true or false"),
    ],
)
def test_what_is_wrong_is_named(data: Any, said: str) -> None:
    with pytest.raises(SchemaError) as caught:
        build(Outer, data)
    assert str(caught.value) == said
