import pytest

from asr.model.latency import PRESETS, Latency


@pytest.mark.parametrize(
    "text, expected",
    [
        ("fast", (8, 4)),
        ("balanced", (16, 8)),
        ("accurate", (32, 12)),
        ("offline", (0, 0)),
        ("16,8", (16, 8)),
        (" 5 , 0 ", (5, 0)),
        ((16, 8), (16, 8)),
        ([1, 0], (1, 0)),
        (Latency(3, 2), (3, 2)),
    ],
)
def test_parse(text, expected):
    latency = Latency.parse(text)
    assert (latency.chunk, latency.look_ahead) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slow",
        "16",
        "16,8,4",
        "16,",
        "a,b",
        "0,4",
        "-1,4",
        "4,-1",
        "1.5,2",
        None,
        16,
        (),
        (1, 2, 3),
        ("a", "b"),
        (0, 8),
        (8, -1),
        (float("inf"), 1),
        (float("nan"), 1),
    ],
)
def test_what_is_no_latency_names_the_choices(text):
    with pytest.raises(ValueError, match="fast, balanced, accurate, offline"):
        Latency.parse(text)


def test_seconds_are_those_of_the_design():
    """Chunk and look-ahead at 40 ms a frame, and 22 ms front end."""
    for name, seconds in (("fast", 0.48), ("balanced", 0.96), ("accurate", 1.76)):
        assert PRESETS[name].seconds(0.04) == pytest.approx(seconds + 0.022)


def test_only_full_context_is_not_live():
    assert [name for name, latency in PRESETS.items() if not latency.live] == ["offline"]
