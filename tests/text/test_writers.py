import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import RillError
from asr.text.results import Final, Transcript, Word
from asr.text.writers import FORMATS, LINE_CHARS, MAX_CUE_S, LiveWriter, cues, render, write


def final(text: str, start: float = 0.0, each: float = 0.3, gap: float = 0.1) -> Final:
    words = tuple(
        Word(word, start + at * (each + gap), start + at * (each + gap) + each, 0.9)
        for at, word in enumerate(text.split())
    )
    return Final(words, words[0].start, words[-1].end)


def parse(text: str, format: str) -> list[tuple[float, float, list[str]]]:
    """Cues of an SRT or WebVTT file, as strictly as a player that takes nothing but the grammar."""
    assert text == "" or text.endswith("\n")
    if format == "vtt":
        assert text.startswith("WEBVTT\n\n")
        text = text[len("WEBVTT\n\n") :]
    found = []
    for number, block in enumerate(text.removesuffix("\n\n").split("\n\n") if text else [], 1):
        lines = block.split("\n")
        if format == "srt":
            assert lines.pop(0) == str(number)
        stamp = r"(\d{2,}):([0-5]\d):([0-5]\d)" + ("," if format == "srt" else r"\.") + r"(\d{3})"
        match = re.fullmatch(f"{stamp} --> {stamp}", lines.pop(0))
        assert match
        h1, m1, s1, ms1, h2, m2, s2, ms2 = map(int, match.groups())
        if format == "vtt":
            assert not any(re.search(r"<|>|&(?!amp;|lt;|gt;)", line) for line in lines)
            lines = [line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for line in lines]
        found.append(((h1 * 60 + m1) * 60 + s1 + ms1 / 1000, (h2 * 60 + m2) * 60 + s2 + ms2 / 1000, lines))
    return found


HELLO = Transcript((final("hello there", 0.5), final("good bye", 3.0)), 5.0)


def test_txt():
    assert render(HELLO, "txt") == "hello there\ngood bye\n"


def test_tsv():
    assert render(HELLO, "tsv") == "start\tend\ttext\n500\t1200\thello there\n3000\t3700\tgood bye\n"


def test_srt():
    assert render(HELLO, "srt") == (
        "1\n00:00:00,500 --> 00:00:01,500\nhello there\n\n2\n00:00:03,000 --> 00:00:04,000\ngood bye\n\n"
    )


def test_vtt():
    assert render(HELLO, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nhello there\n\n00:00:03.000 --> 00:00:04.000\ngood bye\n\n"
    )


def test_vtt_escapes_and_srt_does_not():
    transcript = Transcript((final("r&d <b> -->"),), 2.0)
    assert "r&amp;d &lt;b&gt; --&gt;\n" in render(transcript, "vtt")
    assert "r&d <b> -->\n" in render(transcript, "srt")


def test_json_is_the_transcript_readable():
    transcript = Transcript((final("žluťoučký kůň"),), 2.0)
    text = render(transcript, "json")
    assert json.loads(text) == transcript.to_dict()
    assert "žluťoučký" in text and "\n  " in text


def test_hours_beyond_99():
    assert "\n123:25:45,678 -->" in render(Transcript((final("late", 444345.678),), 444346.0), "srt")


@pytest.mark.parametrize(
    ("format", "expected"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("tsv", "start\tend\ttext\n")]
)
def test_nothing_said(format, expected):
    assert render(Transcript((), 3.0), format) == expected
    assert render(Transcript((Final((), 0.0, 0.0),), 3.0), format) == expected


def test_unknown_format_names_the_choices(tmp_path):
    for action in (
        lambda: render(HELLO, "doc"),
        lambda: write(HELLO, tmp_path / "talk"),
        lambda: LiveWriter(tmp_path / "talk.doc"),
    ):
        with pytest.raises(RillError, match="txt, srt, vtt, tsv, json"):
            action()
    assert list(tmp_path.iterdir()) == []


# Cues


def shape(found):
    return [(round(cue.start, 3), round(cue.end, 3), list(cue.lines)) for cue in found]


def test_a_pause_ends_a_cue():
    before, after = final("so that was the first part of it"), final("and here is the second", 3.2 + 0.5)
    assert [cue.lines for cue in cues(before.words + after.words)] == [
        ("so that was the first part of it",),
        ("and here is the second",),
    ]


def test_a_full_cue_is_cut_at_a_short_pause():
    before, after = final(" ".join(["word"] * 10), each=0.2), final(" ".join(["next"] * 8), 2.9 + 0.35, each=0.2)
    assert [cue.lines[0].split()[0] for cue in cues(before.words + after.words)] == ["word", "next"]


def test_a_short_word_before_a_pause_does_not_flash_up():
    words = (Word("so", 0.0, 0.2, 1.0), *final("we begin", 0.8).words)
    assert shape(cues(words)) == [(0.0, 1.5, ["so we begin"])]


def test_lines_and_cues_are_balanced():
    two_lines = final("the quick brown fox jumps over the lazy dog today", each=0.2)  # 49 characters
    assert [cue.lines for cue in cues(two_lines.words)] == [("the quick brown fox jumps", "over the lazy dog today")]
    three_lines = final(" ".join(["word"] * 19), each=0.2, gap=0.05)  # 94 characters
    assert {len(" ".join(cue.lines).split()) for cue in cues(three_lines.words)} == {9, 10}


def test_slow_speech_is_cut_at_seven_seconds():
    found = cues(final("a b c d e f g h i j", each=0.9).words)
    assert len(found) == 2 and all(cue.end - cue.start <= MAX_CUE_S for cue in found)


def test_shortest_display_yields_to_the_next_segment():
    transcript = Transcript((final("yes", 1.0), final("no", 1.6)), 5.0)
    assert [cue[:2] for cue in parse(render(transcript, "srt"), "srt")] == [(1.0, 1.6), (1.6, 2.6)]


def test_a_word_longer_than_a_line_is_split():
    found = cues([Word("x" * 100, 0.0, 1.0, 1.0)])
    assert [len(line) for cue in found for line in cue.lines] == [42, 42, 16]


@st.composite
def segments(draw):
    now, found = 0.0, []
    for _ in range(draw(st.integers(0, 4))):
        words = []
        for _ in range(draw(st.integers(1, 40))):
            now += draw(st.sampled_from([0.0, 0.0, 0.04, 0.1, 0.3, 0.5, 0.8, 3.0, 9.0]))
            end = now + draw(
                st.sampled_from([0.0, 0.04, 0.2, 0.2, 0.4, 1.0, 8.0, 1e5])
                if not draw(st.integers(0, 3))
                else st.just(0.24)
            )
            text = draw(st.text("abcdefghé&<>'", min_size=1, max_size=12) | st.text("xy", min_size=38, max_size=130))
            words.append(Word(text, now, end, draw(st.floats(0, 1))))
            now = end
        found.append(Final(tuple(words), words[0].start, words[-1].end))
    return found


@settings(max_examples=150, deadline=None)
@given(segments(), st.sampled_from(["srt", "vtt"]))
def test_subtitles_keep_every_word_and_every_limit(found, format):
    parsed = parse(render(Transcript(tuple(found), 0.0), format), format)
    shown = "".join("".join(lines) for _, _, lines in parsed).replace(" ", "")
    assert shown == "".join(word.text for final in found for word in final.words)
    long_free = [word.text for final in found for word in final.words if len(word.text) <= LINE_CHARS]
    lines_words = iter([word for _, _, lines in parsed for line in lines for word in line.split(" ")])
    assert all(word in lines_words for word in long_free)  # whole, in order
    for start, end, lines in parsed:
        assert 0 <= end - start <= MAX_CUE_S + 0.0011
        assert 1 <= len(lines) <= 2 and all(1 <= len(line) <= LINE_CHARS for line in lines)
    for (start, end, _), (following, _, _) in pairwise(parsed):
        assert start <= following and end <= following
        assert end - start >= 0.998 or following - end <= 0.0011  # short only if the next cue leaves no room


@settings(max_examples=60, deadline=None)
@given(segments())
def test_cues_start_with_their_first_word(found):
    for segment in found:
        starts = {word.start for word in segment.words if len(word.text) <= LINE_CHARS}
        split = any(len(word.text) > LINE_CHARS for word in segment.words)
        assert split or all(cue.start in starts for cue in cues(segment.words))


# Files


@pytest.mark.parametrize("format", FORMATS)
def test_write_replaces_at_once_and_leaves_nothing_else(tmp_path, format):
    path = tmp_path / "new" / f"talk.v2.{format}"
    for transcript in (Transcript((), 1.0), HELLO):
        write(transcript, path)
        assert path.read_text("utf-8") == render(transcript, format)
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "talk.txt"
    write(HELLO, path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(Transcript((), 1.0), str(path))
    assert path.read_text() == "hello there\ngood bye\n" and list(tmp_path.iterdir()) == [path]


def expected_live(found: list[Final], format: str) -> str:
    text = render(Transcript(tuple(found), found[-1].end if found else 0.0), format)
    if format == "json":
        whole = json.loads(text)
        return {"segments": whole["segments"], "duration": whole["duration"]}
    return text


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=25, deadline=None)
@given(found=segments())
def test_live_file_is_complete_after_every_final(tmp_path_factory, format, found):
    path = tmp_path_factory.mktemp("live") / f"talk.{format}"
    path.write_text("an older and much longer file\n" * 1000)
    writer = LiveWriter(path)
    load = json.loads if format == "json" else str
    for count in range(len(found) + 1):
        text = path.read_bytes().decode("utf-8")
        assert load(text) == expected_live(found[:count], format)
        if count < len(found):
            writer.add(found[count])
            writer.add(Final((), 0.0, 0.0))
    writer.close()
    assert path.read_bytes().decode("utf-8") == text


def test_live_json_is_indented_like_the_rest(tmp_path):
    path = tmp_path / "talk.json"
    writer = LiveWriter(path)
    for segment in HELLO.segments:
        writer.add(segment)
    writer.close()
    dictionary = {"segments": HELLO.to_dict()["segments"], "duration": 3.7}
    assert path.read_text() == json.dumps(dictionary, indent=2) + "\n"


@pytest.mark.e2e
@pytest.mark.parametrize("format", FORMATS)
def test_a_killed_session_leaves_a_valid_file(tmp_path, format):
    path = tmp_path / f"talk.{format}"
    script = (
        "import os, sys; from asr.text.results import *; from asr.text.writers import LiveWriter\n"
        "writer = LiveWriter(sys.argv[1])\n"
        "for at in (1.0, 5.0): writer.add(Final((Word('hello', at, at + 0.4, 0.9),), at, at + 0.4))\n"
        "os._exit(9)"
    )  # as kill -9: nothing is flushed
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    found = [Final((Word("hello", at, at + 0.4, 0.9),), at, at + 0.4) for at in (1.0, 5.0)]
    text = path.read_text("utf-8")
    assert (json.loads(text) if format == "json" else text) == expected_live(found, format)


@pytest.mark.parametrize("format", FORMATS)
def test_work_per_final_does_not_grow(tmp_path, format):
    writer = LiveWriter(tmp_path / f"talk.{format}")
    sizes = []

    class Counting:
        def __init__(self, file):
            self.file = file

        def seek(self, at):
            self.file.seek(at)

        def write(self, data):
            sizes.append(len(data))
            return self.file.write(data)

        def close(self):
            self.file.close()

    writer._file = Counting(writer._file)
    for count in range(2000):
        writer.add(final("the same words again", start=100_000 + 3.0 * count))
    writer.close()
    assert len(sizes) == 2000 and max(sizes[100:]) <= max(sizes[1:100]) + 8  # numbers gain digits


def test_a_short_write_is_finished(tmp_path):
    path = tmp_path / "talk.txt"
    writer = LiveWriter(path)

    class Slow:
        def __init__(self, file):
            self.file = file
            self.seek, self.close = file.seek, file.close

        def write(self, data):
            return self.file.write(data[:3])

    writer._file = Slow(writer._file)
    for segment in HELLO.segments:
        writer.add(segment)
    writer.close()
    assert path.read_text() == "hello there\ngood bye\n"


def sentences(text: str, start: float = 0.0) -> Final:
    """Words as written; raw, they have neither marks nor capitals."""
    said = final(text, start)
    return Final(
        tuple(Word(word.text.strip(",.?").lower(), word.start, word.end, 0.9, word.text) for word in said.words),
        said.start,
        said.end,
        True,
    )


LONG = sentences(
    "Yes. The people of the town had not seen the river so high before, but they stayed. When the water "
    "came, it was night. Nobody was hurt, and that was luck."
)


def test_cues_end_with_sentences_and_clauses():
    shown = [" ".join(cue.lines) for cue in cues(LONG.words)]
    assert " ".join(shown) == LONG.text
    assert all(text[-1] in ",." for text in shown)


def test_lines_end_with_marks_where_they_fit():
    music = "Her mother wished her to learn music, and Catherine was sure she should like it."
    assert [cue.lines for cue in cues(sentences(music).words)] == [
        ("Her mother wished her to learn music,", "and Catherine was sure she should like it.")
    ]
    first, second = "It was disposed of to a bookseller.", "It was even advertised."
    assert [cue.lines for cue in cues(sentences(f"{first} {second}").words)] == [(first, second)]


def test_a_cue_does_not_begin_a_sentence_that_it_cannot_end():
    talk = sentences(
        "It was even advertised. Neither the author nor the public have any other concern than to read those parts."
    )
    assert " ".join(cues(talk.words)[0].lines) == "It was even advertised."


def test_sentences_follow_on_and_long_pauses_make_paragraphs(tmp_path):
    talk = Transcript((sentences("One two."), sentences("Three.", 1.5), sentences("Four.", 9.0)), 10.0)
    assert render(talk, "txt") == "One two. Three.\n\nFour.\n"
    assert talk.text + "\n" == render(talk, "txt")
    writer = LiveWriter(tmp_path / "live.txt")
    for segment in talk.segments:
        writer.add(segment)
    assert (tmp_path / "live.txt").read_text(encoding="utf-8") == render(talk, "txt")


def test_json_has_raw_words_and_written_ones():
    word, *_ = json.loads(render(Transcript((sentences("Yes. No."),), 2.0), "json"))["segments"][0]["words"]
    assert (word["word"], word["text"]) == ("yes", "Yes.")
    assert "text" not in final("yes").words[0].to_dict()
