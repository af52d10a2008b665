import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.storage import Words

TEXT = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


def words(*each: str) -> Words:
    return Words(np.frombuffer("\n".join(each).encode(), np.uint8))


@given(st.lists(TEXT, min_size=1))
def test_words_are_a_list_of_strings(expected):
    found = words(*expected)
    assert list(found) == expected == found[:] and len(found) == len(expected)
    assert [found[place] for place in range(len(found))] == expected
    assert found[-1] == expected[-1] and found[-1] in found and found.index(expected[0]) == 0
    for beyond in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            found[beyond]


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="utf-8"):
        Words(np.frombuffer(b"caf\xe9\nau", np.uint8))
