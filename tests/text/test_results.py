"""Alternatives of several segments together."""

import pytest

from asr.text.results import Alternative, Final, Word, join_alternatives


def said(text, confidence=1.0):
    return Alternative(tuple(Word(word, i, i + 1, 0.5) for i, word in enumerate(text.split())), confidence)


def segment(*alternatives):
    return Final.of(alternatives[0].words, alternatives=alternatives)


def test_the_likeliest_combinations():
    first = segment(said("a", 0.6), said("b", 0.4))
    plain = Final.of(said("and").words)
    second = segment(said("c", 0.5), said("d", 0.3), said("e", 0.2))
    found = join_alternatives([first, plain, second], 4)
    assert [each.text for each in found] == ["a and c", "b and c", "a and d", "a and e"]
    weights = [0.30, 0.20, 0.18, 0.12]
    assert [each.confidence for each in found] == pytest.approx([weight / sum(weights) for weight in weights])


def test_of_a_long_recording():
    unsure = segment(said("yes", 0.5001), said("no", 0.4999))
    found = join_alternatives([unsure] * 3000, 2)  # whose probability is less than the least number
    assert [each.text.split().count("no") for each in found] == [0, 1]
    assert sum(each.confidence for each in found) == pytest.approx(1)


def test_of_nothing():
    assert join_alternatives([], 3) == [Alternative((), 1.0)]
