import pytest

from asr.text.labels import (
    CAPITAL,
    COMMA,
    IGNORE,
    LOWER,
    MIXED,
    NONE,
    PERIOD,
    QUESTION,
    UPPER,
    Spelling,
    case_of,
    documents,
    label,
)

SHOWN = {NONE: "", COMMA: ",", PERIOD: ".", QUESTION: "?", IGNORE: "~"}
CASES = {LOWER: "l", CAPITAL: "C", UPPER: "U", MIXED: "M", IGNORE: "_"}


def shown(*paragraphs: str, language: str = "en", abbreviations=()) -> str:
    found = label(paragraphs, language, dict.fromkeys(abbreviations, ""))
    return " ".join(word + SHOWN[mark] + "/" + CASES[case] for word, mark, case, _ in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So, my friends in Paris ask.", "so,/_ my/l friends/l in/l paris/C ask./l"),
        ("Who? Me! Yes; no", "who?/_ me./_ yes./_ no~/_"),
        ("I use GitHub and NASA's API.", "i/_ use/l github/M and/l nasa's/U api./U"),
        ("It's McDonald's iPhone.", "it's/_ mcdonald's/M iphone./M"),
        ('He said, "Go home."', "he/_ said,/l go/_ home./l"),
        ("One thing -- this one - works.", "one/_ thing,/l this/_ one,/l works./_"),
        (
            "We paid $250 for 21st-century art.",
            "we/_ paid/l two/l hundred/l and/l fifty/l dollars/l for/l twenty/l first/l century/l art./l",
        ),
        ("Well... I think so... Then we left.", "well,/_ i/_ think/l so./l then/_ we/l left./l"),
        ("See example.com, e.g. there, J. Doe.", "see/_ example/l dot/l com,/l e/l g/l there,/l j/C doe./C"),
        ("ο Νίκος ήρθε;", "ο/_ νίκος/C ήρθε./l"),
    ],
)
def test_label(text, expected):
    assert shown(text) == expected


def test_abbreviations_end_no_sentence_but_at_a_paragraphs_end():
    assert shown("I met Mr. Smith.", abbreviations=["mr"]) == "i/_ met/l mr/C smith./C"
    assert shown("I met Mr.", abbreviations=["mr"]) == "i/_ met/l mr./C"


def test_sentences_do_not_cross_paragraphs():
    assert shown("A title", "Then text.") == "a/_ title~/l then/_ text./l"


def test_scripts_without_case_and_other_signs():
    assert shown("شكرا، كيف حالك؟", language="ar") == "شكرا,/_ كيف/l حالك?/l"
    assert shown("नमस्ते। आप कैसे हैं?", language="hi") == "नमस्ते./_ आप/_ कैसे/l हैं?/l"


@pytest.mark.parametrize(
    ("form", "case"),
    [
        ("word", LOWER),
        ("Word", CAPITAL),
        ("I'm", CAPITAL),
        ("API", UPPER),
        ("O'Brien", MIXED),
        ("3d", LOWER),
        ("", LOWER),
    ],
)
def test_case_of(form, case):
    assert case_of(form) == case


def test_spelling_is_learned_from_text():
    spelling = Spelling("en")
    for _ in range(30):
        spelling.add("Yesterday Dr. Smith gave his iPhone to Dr. Jones and left.")
        spelling.add("شكرا، كيف حالك؟")
    assert spelling.abbreviations() == {"dr": "Dr."}
    assert spelling.forms() == {"iphone": "iPhone"}
    assert spelling.marks() == ["", "،", ".", "؟"]


def test_an_empty_line_ends_a_document():
    assert list(documents(["a\n", " b \n", "\n", "\n", "c"])) == [["a", "b"], ["c"]]
    assert list(documents([])) == []
