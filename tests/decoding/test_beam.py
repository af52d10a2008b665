"""Beam search on hand-made emissions, a lexicon of a dozen words and a bigram model that fit on a page."""

from copy import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.beam import MOST_UNKNOWN, BeamDecoder, LanguageModel
from asr.decoding.g2p import G2P
from asr.decoding.hotwords import Hotword
from asr.decoding.lexicon import Lexicon
from asr.decoding.ngram import FILE, UNKNOWN
from asr.decoding.tree import LexiconTree
from asr.errors import CheckpointError, HotwordError
from asr.model.checkpoint import DecodingConfig
from asr.model.tokens import TokenSet
from tests.support.language import bigram_model

SYMBOLS = ("-", "|", *["AA", "AE", "AH", "B", "D", "G", "IH", "K", "L", "N", "OW", "R", "S", "T", "UW", "W"])
TOKENS = TokenSet(SYMBOLS, "-", "|", (0.5, 0.2, *[0.3 / 16] * 16))
LEXICON = [
    ("a", "AH"),
    ("cat", "K AE T"),
    ("cats", "K AE T S"),
    ("dog", "D AA G"),
    ("two", "T UW"),
    ("to", "T UW"),
    ("too", "T UW"),
    ("sat", "S AE T"),
    ("know", "N OW"),
    ("no", "N OW"),
    ("not", "N AA T"),
    ("in", "IH N"),
]
BIGRAMS = {("to", "a"): -0.2, ("two", "cats"): -0.2, ("cat", "sat"): -0.2, ("no", "dog"): -0.1, ("know", "a"): -0.1}


class TinyModel(LanguageModel):
    """log10 scores: those above, else -1; -3 for a word after itself."""

    def __init__(self, entries=LEXICON):
        self.head, self.tokens = "phonemes", TOKENS
        lexicon = Lexicon([(word, spelling.split()) for word, spelling in entries], TOKENS)
        known = {pair: score for pair, score in BIGRAMS.items() if set(pair) <= set(lexicon.words)}
        again = {(word, word): -3.0 for word in [UNKNOWN, *lexicon.words]}
        self.ngram = bigram_model(lexicon.words, again | known, -1.0)
        self.lexicon = LexiconTree.build(lexicon, self.ngram)


def decoder(hotwords=(), spellings=None, entries=LEXICON, **options) -> BeamDecoder:
    plain = {"prior_scale": 0.0, "lm_weight": 1.0, "margin": 0.0}
    config = SimpleNamespace(decoding=DecodingConfig(**plain | options), tokens={"phonemes": TOKENS})
    language_model = TinyModel(entries)
    known = {word: [(*(SYMBOLS.index(s) for s in spelling.split()), 1)] for word, spelling in (spellings or {}).items()}
    for word in (word for hotword in hotwords for word in hotword.phrase):
        known.setdefault(word, language_model.lexicon.of(word))
    checkpoint = SimpleNamespace(config=config, seconds_per_frame=0.04)
    return BeamDecoder(checkpoint, language_model, hotwords, known.__getitem__)


def emissions(said: str, sure: float = 0.95) -> dict[str, np.ndarray]:
    """One frame for each symbol; `X/Y` makes two symbols as likely as one another but for a shade in favor of X."""
    rows = []
    for symbols in said.split():
        chosen = [SYMBOLS.index(symbol) for symbol in symbols.split("/")]
        row = np.full(len(SYMBOLS), (1 - sure) / (len(SYMBOLS) - len(chosen)))
        row[chosen] = sure / len(chosen) * np.linspace(1.02, 0.98, len(chosen))[: len(chosen)]
        rows.append(row)
    return {"phonemes": np.log(np.array(rows or np.zeros((0, len(SYMBOLS))), np.float32))}


def text(words) -> str:
    return " ".join(word.text for word in words)


@pytest.mark.parametrize(
    "said, expected",
    [
        ("K AE T |", "cat"),
        ("- K K - AE T - | -", "cat"),
        ("K AE T S |", "cats"),
        ("K AE T | S AE T |", "cat sat"),
        ("D AA G | | | K AE T | -", "dog cat"),
        ("- - -", ""),
        ("| |", ""),
        ("K/B AE T |", "cat"),
        ("B/K AE T |", "cat"),  # there is no "bat"
        ("T UW | K AE T S |", "two cats"),
        ("T UW | AH |", "to a"),  # homophones: the language model knows
        ("N OW | D AA G |", "no dog"),
        ("N OW | AH |", "know a"),
    ],
)
def test_known_results(said, expected):
    assert text(decoder().decode(emissions(said))) == expected


def test_no_frames():
    assert decoder().decode(emissions("")) == []


def test_the_last_word_needs_no_boundary_of_its_own():
    assert text(decoder().decode(emissions("K AE T | S AE T -"))) == "cat sat"


def test_times_and_confidence():
    words = decoder().decode(emissions("- - K AE AE T - | - S AE T |"))
    assert [(w.text, round(w.start, 6), round(w.end, 6)) for w in words] == [("cat", 0.08, 0.24), ("sat", 0.36, 0.48)]
    assert all(0.9 < w.confidence <= 1 for w in words)
    (unsure,) = decoder().decode(emissions("K/B AE/IH T/N |"))
    assert 0 <= unsure.confidence < 0.6


def test_offsets_move_times_but_never_below_zero():
    (word,) = decoder(start_offset=-0.1, end_offset=0.05).decode(emissions("K AE T |"))
    assert (word.start, word.end) == (0.0, pytest.approx(0.17))


def test_dividing_by_the_priors_lifts_rare_tokens():
    """A spoken token that loses to blank by less than blank's prior is heard with priors, and not without."""
    said = emissions("K AE T -/S - |")
    assert text(decoder().decode(said)) == "cat"
    assert text(decoder(prior_scale=1.0).decode(said)) == "cats"


said_paths = st.lists(
    st.sampled_from(["K AE T |", "K AE T S |", "D AA G |", "S AE T |", "AH |", "IH N |", "- -", "|"]),
    min_size=1,
    max_size=6,
).map(" ".join)
SHARED = decoder()


def test_words_that_hardly_beat_silence_are_not_said():
    """One of its sounds and its end are as likely as silence; the others are surer by about 6 each."""
    quiet = emissions("K/- AE T |/- - -")
    for margin, expected in ((5.0, ["cat"]), (15.0, [])):
        heard = decoder(margin=margin)
        assert [word.text for word in heard.decode(quiet)] == expected
        session = heard.session()
        session.accept(emissions("K/- AE"))
        assert [word.text for word in session.words(emissions("T |/- - -"))] == expected


@settings(max_examples=60)
@given(said=said_paths, data=st.data())
def test_a_session_says_what_the_whole_says_for_any_split(said, data):
    symbols = said.split()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(symbols)), max_size=4)))
    session = SHARED.session()
    assert session.words(None) == []
    for start, end in zip([0, *cuts], [*cuts, len(symbols)], strict=True):
        if start < end:
            session.accept(emissions(" ".join(symbols[start:end])))
        session.words(emissions("K AE T"))  # looking changes nothing
    got, expected = session.words(None), SHARED.decode(emissions(said))
    assert [w.text for w in got] == [w.text for w in expected]
    np.testing.assert_allclose([(w.start, w.end) for w in got], [(w.start, w.end) for w in expected])


def test_a_preview_continues_what_was_committed():
    session = decoder().session()
    session.accept(emissions("T UW | K AE"))
    assert text(session.words(emissions("T S |"))) in ("two cats", "to cats", "too cats")
    assert text(session.words(emissions("T |"))).split()[1] == "cat"
    session.accept(emissions("T S |"))
    assert text(session.words(None)) == "two cats"


def test_words_settle_with_their_tokens():
    session = decoder().session()
    assert session.settled(5, None) == []
    session.accept(emissions("- K AE T | - S AE T |"))
    for end, said in ((3, ""), (4, "cat"), (8, "cat"), (9, "cat sat")):
        assert text(session.settled(end, None)) == said


def test_what_follows_judges_the_words_that_settle():
    session = decoder().session()
    session.accept(emissions("N OW | -"))
    assert text(session.settled(4, emissions("D AA G |"))) == "no"
    assert text(session.settled(4, emissions("AH |"))) == "know"
    assert text(session.settled(1, emissions("AH |"))) == ""


def test_firm_words_stay_where_others_are_hardly_likelier():
    heard = emissions("T UW | K AE T S |")
    assert text(decoder().decode(heard)) == "two cats"
    for firm, said in (("to cats", "to cats"), ("too", "too cats"), ("dog", "two cats"), ("two dog", "two cats")):
        (found,) = decoder().nbest(heard, 1, firm.split())
        assert text(found.words) == said
        assert found.confidence == 1
    (found,) = decoder(lm_weight=5.0).nbest(heard, 1, ["to", "cats"])  # now "two" is much likelier
    assert text(found.words) == "two cats"


def test_the_sentence_that_keeps_firm_words_comes_once_and_first():
    heard = emissions("T UW | K AE T S |")
    found = decoder().nbest(heard, 3, ["too", "cats"])
    assert [text(each.words) for each in found][:2] == ["too cats", "two cats"]
    assert len({text(each.words) for each in found}) == len(found) == 3
    assert sorted((each.confidence for each in found), reverse=True) == [each.confidence for each in found]


def test_a_hot_word_can_be_firm():
    hot = decoder([Hotword(("doc",), 4.0)], {"doc": "D AA G"})
    heard = emissions("D AA G | S AE T |")
    assert text(hot.decode(heard)) == text(hot.nbest(heard, 1, ["doc", "sat"])[0].words) == "doc sat"
    assert text(hot.nbest(heard, 1, ["dog", "sat"])[0].words) == "doc sat"


def test_two_sessions_do_not_disturb_one_another():
    one, two = SHARED.session(), SHARED.session()
    for first, second in (("K AE T |", "D AA G |"), ("S AE T |", "T UW |")):
        one.accept(emissions(first))
        two.accept(emissions(second))
    assert text(one.words(None)) == "cat sat" and text(two.words(None)).startswith("dog t")


def test_a_hot_homophone_wins():
    said = emissions("T UW | K AE T S |")
    assert text(decoder([Hotword(("too",), 8.0)]).decode(said)) == "too cats"


def test_a_word_out_of_the_lexicon_comes_out_when_it_is_hot():
    said, spelling = emissions("K AE T | B L OW R G | S AE T |"), {"blorg": "B L OW R G"}
    assert "blorg" not in text(decoder().decode(said))
    assert text(decoder([Hotword(("blorg",))], spelling).decode(said)) == "cat blorg sat"
    assert "blorg" not in text(decoder([Hotword(("blorg",))], spelling).decode(emissions("K AE T | D AA G |")))


def test_a_phrase_is_worth_its_bonus_only_as_a_whole():
    spellings = {"blorg": "B L OW R G", "wun": "W AH N"}
    phrase = [Hotword(("too", "dog"), 3.0)]
    assert text(decoder(phrase).decode(emissions("T UW | D AA G |"))) == "too dog"
    assert text(decoder(phrase).decode(emissions("T UW | K AE T S |"))) == "two cats"
    both = [Hotword(("blorg", "wun"))]
    assert text(decoder(both, spellings).decode(emissions("B L OW R G | W AH N | D AA G |"))) == "blorg wun dog"


def test_an_unfinished_phrase_at_the_end_earns_nothing():
    """All homophones score alike there, so any lent bonus that were kept would decide."""
    entries = [("two", "T UW"), ("too", "T UW")]
    plain = text(decoder(entries=entries).decode(emissions("T UW |")))
    other = "too" if plain == "two" else "two"
    phrase = [Hotword((other, other), 6.0)]
    search = decoder(phrase, entries=entries)
    assert text(search.decode(emissions("T UW | T UW |"))) == f"{other} {other}"
    state, lent = search.automaton.step(0, search.words.index(other))
    assert lent == pytest.approx(3.0) and search.automaton.arrays.lent[state] == pytest.approx(3.0)

    def best(heard: BeamDecoder) -> float:
        found = heard.search(10)
        found.accept(emissions("T UW |")["phonemes"])
        return found.best().score

    assert best(search) == pytest.approx(best(decoder(entries=entries)))  # paid back at the end


def test_many_homophones_are_quiet_and_hot_ones_go_first(capfd):
    entries = [(f"too{i}", "T UW") for i in range(10)]
    assert text(decoder(entries=entries).decode(emissions("T UW |"))).startswith("too")
    assert text(decoder([Hotword(("too9",))], entries=entries).decode(emissions("T UW |"))) == "too9"
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_too_many_hot_words_out_of_the_lexicon():
    names = [f"blorg{i}" for i in range(MOST_UNKNOWN + 1)]
    spellings = dict.fromkeys(names, "B L OW R G")
    decoder([Hotword((name,)) for name in names[:-1]], spellings)
    with pytest.raises(HotwordError, match=f"More than {MOST_UNKNOWN}"):
        decoder([Hotword((name,)) for name in names], spellings)


# The shipped language model.


def spoken(recognizer, words: str) -> dict[str, np.ndarray]:
    """Emissions of these words' phonemes, from the lexicon or else the letter-to-sound network."""
    tokens, model = recognizer.engine.language_model.tokens, recognizer.engine.language_model
    path = []
    for word in words.split():
        network = G2P.load(recognizer.engine.checkpoint.optional("pronunciation.safetensors"))
        spelling = (model.lexicon.of(word) or [[*map(tokens.symbols.index, network.pronounce(word, n=1)[0]), 1]])[0]
        for token in spelling:
            path += [token, token, tokens.blank_index]
    probabilities = np.full((len(path), len(tokens)), 0.05 / (len(tokens) - 1), np.float32)
    probabilities[np.arange(len(path)), path] = 0.95
    return {model.head: np.log(probabilities)}


@pytest.mark.parametrize(
    "hot, said", [("blorptastic", "the blorptastic house"), ("zarvox quimby", "ask zarvox quimby now")]
)
def test_invented_hot_words_with_the_shipped_model(recognizer, hot, said):
    emission = spoken(recognizer, said)
    assert hot not in text(recognizer.engine.decoder(()).decode(emission))
    assert text(recognizer.engine.decoder(recognizer.engine.parse_hotwords([hot])).decode(emission)) == said


def test_plain_words_with_the_shipped_model(recognizer, capfd):
    said = "i would like two cups of tea"
    assert text(recognizer.engine.decoder(()).decode(spoken(recognizer, said))) == said
    assert capfd.readouterr().err == ""


def test_real_speech_through_a_session(recognizer, clips):
    """A session's words are those of the whole once it is finished; before, the end alone is searched more narrowly,
    and the neural language model is not asked."""
    search, unjudged = recognizer.engine.decoder(()), copy(recognizer.engine.decoder(()))
    unjudged.rescorer = None
    for clip in clips[:6]:
        mel = recognizer.engine.frontend(torch.from_numpy(clip.samples))
        (emission,) = recognizer.engine.emissions([mel], recognizer.latency)
        session = search.session()
        for start in range(0, len(emission[recognizer.engine.head]), 16):
            session.accept({head: values[start : start + 16] for head, values in emission.items()})
        got, expected = text(session.words(None)).split(), text(unjudged.decode(emission)).split()
        assert got[: len(expected) - 2] == expected[:-2]
        assert session.finish() == search.decode(emission)


def test_a_checkpoint_without_language_model(recognizer):
    bare = SimpleNamespace(config=recognizer.engine.checkpoint.config, path="bare", optional=lambda name: None)
    with pytest.raises(CheckpointError, match=r"bare has no ngram.safetensors"):
        LanguageModel(bare)


def test_a_language_model_that_is_none(recognizer, tmp_path):
    (tmp_path / FILE).write_bytes(b"not a language model" * 100)
    paths = {FILE: tmp_path / FILE, "lexicon.txt": recognizer.engine.checkpoint.optional("lexicon.txt")}
    with pytest.raises(CheckpointError, match=r"ngram.safetensors is damaged"):
        LanguageModel(SimpleNamespace(config=recognizer.engine.checkpoint.config, path=tmp_path, optional=paths.get))
