"""What clients ask for, in several protocols."""

import math

from asr.server.parameters import logprobs, prompt_phrases
from asr.text.results import Word


def test_a_prompts_short_phrases_are_expected_and_prose_is_not():
    prompt = "Rill, New York; LSTM\nThis is a talk about the weather in spring. Kaldi!"
    assert [phrase.strip() for phrase in prompt_phrases(prompt)] == ["Rill", "New York", "LSTM", "Kaldi"]
    assert prompt_phrases(None) == prompt_phrases("") == prompt_phrases(" , .") == prompt_phrases(3) == []


def test_probabilities_have_the_shape_of_openais_tokens():
    words = [Word("hé", 0, 1, 0.5, "Hé,"), Word("you", 1, 2, 0.0)]
    assert logprobs(words) == [
        {"token": "Hé,", "bytes": [72, 195, 169, 44], "logprob": round(math.log(0.5), 4)},
        {"token": " you", "bytes": [32, 121, 111, 117], "logprob": round(math.log(1e-3), 4)},
    ]
