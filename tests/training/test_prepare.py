"""Own recordings and published corpora to prepared folders: what is kept, what is dropped and why, and what is said."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.errors import RillError
from asr.training.data import TargetEncoder, token_sets
from asr.training.prepare import load_prepared, prepare
from asr.training.recipe import DataConfig
from asr.training.sources import RawUtterance, readers
from tests.conftest import CLIPS, Asr, Clip
from tests.support.training import write_manifest

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, 50 * RATE).astype(np.float32)


def source(
    name: str, samples: np.ndarray, text: str, speaker: str | None = None, split: str | None = None
) -> RawUtterance:
    return RawUtterance(name, lambda: samples, text, speaker, "own", split)


def texts(folder: Path, split: str = "train") -> list[str]:
    return [cut.supervisions[0].text for cut in load_prepared(folder, split)]


def dropped(folder: Path) -> dict[str, str]:
    """Names and reasons, as the folder tells them."""
    with open(folder / "dropped.tsv", encoding="utf-8", newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}


def named(clips: list[Clip], name: str) -> Clip:
    return next(clip for clip in clips if clip.path.stem == name)


def test_index(tmp_path: Path, clips: list[Clip]) -> None:
    manifest = write_manifest(tmp_path / "index.jsonl", ("kathleen-0", "commonvoice-5"), ("commonvoice-1",))
    for path in (manifest, tmp_path):  # the manifest itself, or the folder that has it
        out = tmp_path / f"out {path.name}"
        report = prepare(readers("index")(path), out)
        assert texts(out) == ["there was nothing on the rock", "i wish they were rabbits"]
        assert texts(out, "dev") == ["i'll talk to you tonight"]
        assert report.utterances == {("train", "kathleen"): 1, ("train", "commonvoice1"): 1, ("dev", "commonvoice1"): 1}
        cut = load_prepared(out, "train")[0]
        expected = named(clips, "kathleen-0").samples
        np.testing.assert_allclose(cut.load_audio()[0], expected, atol=1.5 / 32768)
        assert cut.recording.sampling_rate == RATE and cut.duration == len(expected) / RATE
        assert report.seconds["train", "kathleen"] == cut.duration


def test_folder(tmp_path: Path, clips: list[Clip]) -> None:
    mine = tmp_path / "mine"
    for name, samples, rate, text in (
        ("ann/a.wav", clips[0].samples, RATE, "One two, THREE!\n"),
        ("ann/b.flac", clips[1].samples, RATE, None),
        ("bob/c.wav", np.repeat(clips[2].samples, 3), 48_000, "four"),
        ("d.ogg", clips[3].samples, RATE, "five"),
    ):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(mine / name, samples, rate)
        if text:
            (mine / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    prepare(readers("folder")(mine), tmp_path / "out")
    cuts = {cut.supervisions[0].text: cut for cut in load_prepared(tmp_path / "out", "train")}
    assert {text: cut.supervisions[0].speaker for text, cut in cuts.items()} == {
        "one two three": "ann",
        "four": "bob",
        "five": None,
    }
    assert cuts["four"].num_samples == len(clips[2].samples)
    assert dropped(tmp_path / "out") == {"ann/b.flac": "no text"}


@pytest.mark.parametrize(
    ("name", "delimiter", "columns"),
    [
        ("a.csv", ",", ("path", "sentence", "client_id")),  # Common Voice
        ("a.tsv", "\t", ("wav", "transcript", "speaker_id")),
        ("a.jsonl", "", ("audio_filepath", "text", "speaker")),
    ],
)  # NeMo
def test_table(tmp_path: Path, clips: list[Clip], name: str, delimiter: str, columns: tuple[str, ...]) -> None:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", clips[number].samples, RATE)
    rows = [
        ("0.wav", 'He said, "no"', "ann", "dev"),
        ("1.wav", "yes", "", "train"),
        ("gone.wav", "perhaps", "bob", ""),
        (str(tmp_path / "2.wav"), "Grüße", "bob", ""),
    ]
    with open(tmp_path / name, "w", encoding="utf-8-sig", newline="") as file:  # with a byte order mark, as Excel does
        table = [dict(zip((*columns, "split"), row, strict=True)) for row in rows]
        if delimiter:
            writer = csv.DictWriter(file, (*columns, "split"), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(table)
        else:
            file.write("\n".join(map(json.dumps, table)))
    prepare(readers("table")(tmp_path / name), tmp_path / "out", language="de")
    assert texts(tmp_path / "out", "dev") == ["he said no"] and texts(tmp_path / "out") == ["yes", "grüße"]
    assert [cut.supervisions[0].speaker for cut in load_prepared(tmp_path / "out", "train")] == [None, "bob"]
    assert dropped(tmp_path / "out") == {"gone.wav": "unreadable"}


def test_noise_is_cut_into_pieces(tmp_path: Path) -> None:
    sound = np.concatenate([NOISE[: 20 * RATE], np.zeros(20 * RATE, np.float32), NOISE[20 * RATE :]])
    (tmp_path / "noises").mkdir()
    soundfile.write(tmp_path / "noises" / "street.wav", sound, RATE)
    (tmp_path / "noises" / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "n.jsonl").write_text(
        '{"audio": "noises/street.wav", "start": 320000}\n'
        '{"audio": "noises/street.wav", "start": 400000, "samples": 80000}',
        "utf-8",
    )
    prepare(readers("noise")(tmp_path / "noises"), tmp_path / "a")
    prepare(readers("noise")(tmp_path / "n.jsonl"), tmp_path / "b")
    assert [cut.duration for cut in load_prepared(tmp_path / "a", "train")] == [20, 20, 10]
    assert dropped(tmp_path / "a") == {"broken.wav@0": "unreadable", "street.wav@320000": "no sound"}
    assert [cut.duration for cut in load_prepared(tmp_path / "b", "train")] == [20, 10]
    assert dropped(tmp_path / "b") == {"street.wav@320000": "no sound", "street.wav@400000": "no sound"}
    assert texts(tmp_path / "a") == [""] * 3


def test_librispeech(tmp_path: Path, clips: list[Clip]) -> None:
    for part, speaker, number in (("train-clean-5", 19, 1), ("dev-clean-2", 84, 2)):
        folder = tmp_path / "LibriSpeech" / part / str(speaker) / "7"
        folder.mkdir(parents=True)
        soundfile.write(folder / f"{speaker}-7-0000.flac", clips[number].samples, RATE)
        (folder / f"{speaker}-7.trans.txt").write_text(f"{speaker}-7-0000 {clips[number].text.upper()}\n", "utf-8")
    report = prepare(readers("librispeech")(tmp_path / "LibriSpeech"), tmp_path / "out")
    assert texts(tmp_path / "out") == [clips[1].text] and texts(tmp_path / "out", "dev") == [clips[2].text]
    assert report.speakers == {("train", "librispeech"): {"19"}, ("dev", "librispeech"): {"84"}}


def test_ljspeech_comes_with_its_numbers_in_words(tmp_path: Path, clips: list[Clip]) -> None:
    (tmp_path / "lj" / "wavs").mkdir(parents=True)
    soundfile.write(tmp_path / "lj" / "wavs" / "LJ1.wav", clips[1].samples, RATE)
    (tmp_path / "lj" / "metadata.csv").write_text("LJ1|Born in 1811.|Born in eighteen eleven.\n", "utf-8")
    prepare(readers("ljspeech")(tmp_path / "lj"), tmp_path / "out")
    assert texts(tmp_path / "out") == ["born in eighteen eleven"]


@pytest.mark.e2e  # Lhotse's recipe starts processes
def test_commonvoice_as_it_is_packed(tmp_path: Path, clips: list[Clip]) -> None:
    folder = tmp_path / "cv" / "en"
    (folder / "clips").mkdir(parents=True)
    columns = (
        "client_id",
        "path",
        "sentence",
        "up_votes",
        "down_votes",
        "age",
        "gender",
        "accents",
        "variant",
        "locale",
        "segment",
    )
    said = {"train": '"No," said he.', "dev": 'An "open quotation', "test": "Nothing"}
    for number, (split, sentence) in enumerate(said.items()):
        soundfile.write(folder / "clips" / f"{number}.mp3", clips[number].samples, RATE)
        row = (f"s{number}", f"{number}.mp3", sentence, "2", "0", "", "", "", "", "en", "")
        (folder / f"{split}.tsv").write_text("\t".join(columns) + "\n" + "\t".join(row) + "\n", "utf-8")
    prepare(readers("commonvoice")(tmp_path / "cv"), tmp_path / "out")
    assert [texts(tmp_path / "out", each) for each in said] == [["no said he"], ["an open quotation"], ["nothing"]]
    prepare(readers("table")(folder / "dev.tsv"), tmp_path / "table")  # its clips are found, its quotation marks kept
    assert texts(tmp_path / "table") == ["an open quotation"]


def test_speechocean762_as_it_is_packed(tmp_path: Path, clips: list[Clip]) -> None:
    folder = tmp_path / "speechocean762"
    for split, number in (("train", 1), ("test", 2)):
        (folder / split).mkdir(parents=True)
        wave = folder / "WAVE" / f"SPEAKER000{number}" / f"{number}.WAV"
        wave.parent.mkdir(parents=True)
        soundfile.write(wave, clips[number].samples, RATE)
        (folder / split / "wav.scp").write_text(f"{number}\t{wave.relative_to(folder)}\ngone no.WAV\n", "utf-8")
        (folder / split / "text").write_text(f"{number}\t{clips[number].text.upper()}\ngone A\n", "utf-8")
        (folder / split / "utt2spk").write_text(f"{number}\t000{number}\n", "utf-8")
    report = prepare(readers("speechocean762")(folder), tmp_path / "out")
    assert texts(tmp_path / "out") == [clips[1].text] and texts(tmp_path / "out", "test") == [clips[2].text]
    assert report.speakers["train", "speechocean762"] == {"0001"}
    assert dropped(tmp_path / "out") == {"gone": "unreadable"}


def test_a_manifest_with_bad_lines_is_read_without_them(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "index.jsonl", ("kathleen-0",), ())
    with open(manifest, "a", encoding="utf-8") as file:
        file.write('{"audio": "gone.flac", "text": "a"}\n' + json.dumps({"audio": str(CLIPS / "commonvoice-3.flac")}))
    prepare(readers("index")(manifest), tmp_path / "out")
    assert texts(tmp_path / "out") == ["there was nothing on the rock"]
    assert dropped(tmp_path / "out") == {"gone.flac@0": "unreadable", "commonvoice-3.flac@0": "no text"}


@pytest.mark.parametrize(
    ("language", "digits", "kept"), [("en", True, ["room twelve b"]), ("en", False, []), ("xx", True, [])]
)  # which num2words does not know
def test_numbers_are_spelled_out_or_dropped(
    tmp_path: Path, clips: list[Clip], language: str, digits: bool, kept: list[str]
) -> None:
    sources = [source("numbers", clips[1].samples, "Room 12 B"), source("none", clips[2].samples, "room")]
    prepare(sources, tmp_path / "out", language=language, digits=digits)
    assert texts(tmp_path / "out") == [*kept, "room"]


def test_why_an_utterance_is_dropped(tmp_path: Path, clips: list[Clip]) -> None:
    clip = clips[1].samples
    soundfile.write(tmp_path / "cut.flac", clip, RATE)
    whole = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "mine.csv").write_text("audio,text\ncut.flac,the second half is gone\n", "utf-8")
    nan = clip.copy()
    nan[5] = np.nan
    report = prepare(
        [
            source("good", clip, "it is good"),
            source("again", clip.copy(), "It is good!"),
            source("same sound", clip, "it is another"),
            source("empty", clip[:0], "a"),
            source("silent", np.zeros(RATE, np.float32), "a"),
            source("nan", nan, "a b c"),
            source("short", clip[:3000], "a"),
            source("long", NOISE[: 31 * RATE], "word " * 31),
            source("no text", clip, " … "),
            source("digits", clip, "room 12 b"),
            source("fast", clip, "word " * 60),
            source("slow", NOISE[: 20 * RATE], "word"),
            *readers("table")(tmp_path / "mine.csv"),
        ],
        tmp_path / "out",
        digits=False,
    )
    assert texts(tmp_path / "out") == ["it is good", "it is another"]
    assert {name: reason.split(":")[0] for name, reason in dropped(tmp_path / "out").items()} == {
        "again": "double",
        "empty": "no sound",
        "silent": "no sound",
        "nan": "no sound",
        "short": "shorter than 0.2 s",
        "long": "longer than 30 s",
        "no text": "no text",
        "digits": "digits",
        "fast": "too fast",
        "slow": "too slow",
        "cut.flac": "unreadable",
    }
    assert len(report.dropped) == 11 and report.utterances.total() == 2


@pytest.mark.parametrize(
    ("language", "said", "written"),
    [
        ("el", "Καλημέρα, τι κάνεις σήμερα;", "καλημέρα τι κάνεις σήμερα"),
        ("ka", "გამარჯობა, როგორ ხარ?", "გამარჯობა როგორ ხარ"),
        ("hi", "नमस्ते, आप कैसे हैं?", "नमस्ते आप कैसे हैं"),
    ],
)
def test_another_alphabet(tmp_path: Path, clips: list[Clip], language: str, said: str, written: str) -> None:
    report = prepare([source("a", clips[0].samples, said)], tmp_path / "out", language=language)
    cuts = load_prepared(tmp_path / "out", "train")
    assert texts(tmp_path / "out") == [written] and set(report.characters) == set(written)
    tokens = token_sets(cuts, DataConfig((), ()))
    targets = TargetEncoder(tokens, DataConfig((), ())).targets(written)["characters"]
    assert "".join(tokens["characters"].symbols[index] for index in targets) == f"{written} "
    assert 0 not in targets  # the blank is no character


def test_dev_is_a_share_of_the_speakers_and_stays_so(tmp_path: Path) -> None:
    rng = random.Random(0)
    sources = [
        source(f"{speaker}-{number}", NOISE[rng.randrange(9999) :][:4000], "word", f"s{speaker}")
        for speaker in range(30)
        for number in range(2)
    ]

    def speakers(name: str, chosen: list[RawUtterance]) -> set[str]:
        prepare(chosen, tmp_path / name, dev=0.3)
        split = {
            each: {cut.supervisions[0].speaker for cut in load_prepared(tmp_path / name, each)}
            for each in ("train", "dev")
        }
        assert not split["train"] & split["dev"]
        return split["dev"]

    first = speakers("a", sources)
    assert 5 <= len(first) <= 13
    rng.shuffle(sources)
    assert speakers("b", sources) == first
    assert speakers("c", sources[:30]) == first & {each.speaker for each in sources[:30]}


@pytest.mark.parametrize("speakers", [[None] * 5, ["ann"] * 5, ["ann", "bob"] * 2, ["ann", "ben", "bob", "bea"]])
@pytest.mark.parametrize("dev", [0.01, 0.9])
def test_few_speakers_have_a_dev_too(tmp_path: Path, speakers: list[str | None], dev: float) -> None:
    sources = [source(f"{number}", NOISE[number:][:4000], "word", speaker) for number, speaker in enumerate(speakers)]
    report = prepare(sources, tmp_path / "out", dev=dev)
    assert len(texts(tmp_path / "out", "dev")) + len(texts(tmp_path / "out")) == len(sources)
    if len(set(speakers)) > 1:
        assert not report.speakers["train", "own"] & report.speakers["dev", "own"]


def test_dev_is_not_the_one_who_says_most(tmp_path: Path) -> None:
    many = [source(f"{number}", NOISE[number:][:4000], "word", "alice") for number in range(9)]
    prepare([*many, source("hello", NOISE[99:][:4000], "word")], tmp_path / "out", dev=0.01)
    assert len(texts(tmp_path / "out", "dev")) == 1 and len(texts(tmp_path / "out")) == 9


def test_one_speaker_in_train_and_dev_is_told(tmp_path: Path, asr: Asr) -> None:
    (tmp_path / "mine" / "ann").mkdir(parents=True)
    for number in range(3):
        soundfile.write(tmp_path / "mine" / "ann" / f"{number}.wav", NOISE[number:][:RATE], RATE)
        (tmp_path / "mine" / "ann" / f"{number}.txt").write_text("a word", "utf-8")
    status, out, _ = asr("prepare", "folder", tmp_path / "mine", tmp_path / "out", "--dev", 0.1)
    assert status == 0 and "mine: ann is heard in train and dev, so errors on dev will look too good.\n" in out


def test_a_split_that_is_named_is_kept(tmp_path: Path) -> None:
    sources = [source(f"{number}", NOISE[number:][:RATE], "word of mouth", split="train") for number in range(9)]
    prepare(sources, tmp_path / "out", dev=0.9)
    assert len(texts(tmp_path / "out")) == 9 and not (tmp_path / "out" / "dev.jsonl.gz").exists()


def test_the_command_reports(tmp_path: Path, asr: Asr) -> None:
    manifest = write_manifest(tmp_path / "index.jsonl", ("kathleen-0", "commonvoice-5"), ("commonvoice-1",))
    with open(manifest, "a", encoding="utf-8") as file:
        file.write(json.dumps({"audio": str(CLIPS / "commonvoice-3.flac"), "text": "[/b] 7 of 9"}))
    status, out, _ = asr("prepare", "index", manifest, tmp_path / "out", "--drop-digits")
    rows = [line.split() for line in out.splitlines()]
    assert status == 0
    assert ["train", "kathleen", "0.00", "1", "–"] in rows and ["dev", "commonvoice1", "0.00", "1", "–"] in rows
    said = {*"there was nothing on the rock i wish they were rabbits i'll talk to you tonight"} - {" "}
    assert f"characters: {' '.join(sorted(said))}\n" in out
    assert "dropped 1: digits: not known how they were said (such as commonvoice-3.flac@0)" in out
    assert f"every one of them: {tmp_path / 'out' / 'dropped.tsv'}\n" in out


def test_several_sources(tmp_path: Path, asr: Asr) -> None:
    for name, clip in (("a", "kathleen-0"), ("b", "commonvoice-5")):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name / "index.jsonl", (clip,), ())
    assert asr("prepare", "index", tmp_path / "a", tmp_path / "b", tmp_path / "out")[0] == 0
    assert texts(tmp_path / "out") == ["there was nothing on the rock", "i wish they were rabbits"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("index",), "Give at least one source and the folder to write"),
        (("index", "{tmp}/empty", "{tmp}/out"), "holds neither index.jsonl nor manifest.jsonl"),
        (("index", "{tmp}/gone.jsonl", "{tmp}/out"), "gone.jsonl cannot be read"),
        (("folder", "{tmp}/empty", "{tmp}/out"), "talk.wav needs talk.txt"),
        (("table", "{tmp}/columns.csv", "{tmp}/out"), "columns.csv has no column audio or path or file"),
        (("table", "{tmp}/header.csv", "{tmp}/out"), "header.csv has no rows"),
        (("table", "{tmp}/list.jsonl", "{tmp}/out"), "list.jsonl cannot be read"),
        (("table", "{tmp}/latin.csv", "{tmp}/out"), "latin.csv cannot be read"),
        (("table", "{tmp}/missing.csv", "{tmp}/out"), "Nothing could be used: see {tmp}/out/dropped.tsv"),
        (("librispeech", "{tmp}/empty", "{tmp}/out"), "Lhotse's recipe 'librispeech' cannot read {tmp}/empty"),
        (("callhome_egyptian", "{tmp}/empty", "{tmp}/out"), "Lhotse's recipe 'callhome_egyptian' cannot read"),
        (("wishes", "{tmp}/empty", "{tmp}/out"), "'wishes' is not a kind of source: use index, folder, table, noise,"),
        (("kaldi", "{tmp}/empty", "{tmp}/out"), "holds no wav.scp"),
        (("kaldi", "{tmp}/cut", "{tmp}/out"), "{tmp}/cut has `segments`, which are not read"),
        (("noise", "{tmp}/empty", "{tmp}/done"), "{tmp}/done holds prepared data already"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, asr: Asr, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "done").mkdir()
    (tmp_path / "cut").mkdir()
    for name in ("wav.scp", "segments"):
        (tmp_path / "cut" / name).touch()
    (tmp_path / "done" / "train.jsonl.gz").touch()
    (tmp_path / "columns.csv").write_text("sound,words\n1.wav,a\n", "utf-8")
    (tmp_path / "header.csv").write_text("audio,text\n", "utf-8")
    (tmp_path / "list.jsonl").write_text('["1.wav", "a"]\n', "utf-8")
    (tmp_path / "latin.csv").write_bytes("audio,text\n1.wav,Grüße\n".encode("latin-1"))
    (tmp_path / "missing.csv").write_text("audio,text\n1.wav,a\n", "utf-8")
    status, out, err = asr("prepare", *(each.format(tmp=tmp_path) for each in arguments))
    assert status == 1 and not out and said.format(tmp=tmp_path) in err
    assert err.startswith("asr: ") and err.count("\n") == 1


def test_a_missing_split_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RillError, match=r"no prepared split 'dev'.*--dev"):
        load_prepared(tmp_path, "dev")
