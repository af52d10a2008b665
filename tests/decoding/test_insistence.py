"""Edits between firm words and the sentence that begins with them."""

import pytest

from asr.decoding.insistence import corrections


@pytest.mark.parametrize(
    ("firm", "sentence", "edits"),
    [
        ("", "and so on", 0),
        ("and", "and so on", 0),
        ("and so on", "and so on", 0),
        ("and so", "an so on", 1),
        ("and so", "so on", 1),
        ("and on", "and so on", 1),  # "so" for "on", or "so" before it
        ("and so on", "and", 2),
        ("and so on", "", 3),
        ("a b c d", "a x c y and more", 2),
    ],
)
def test_the_nearest_beginning_counts(firm, sentence, edits):
    assert corrections(firm.split(), sentence.split()) == edits
