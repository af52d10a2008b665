"""Recordings in an object store: found, read and named as files of this computer are."""

import warnings
from pathlib import Path

import pytest

from asr.audio import remote
from asr.audio.inputs import absolute, expand, opened
from asr.errors import AudioError, RillError
from asr.inference.files import Options, transcribe_files
from tests.conftest import CLIPS
from tests.support.store import store

pytest.importorskip("pyarrow", reason="pip install 'rill-asr[ray]' brings the file systems of object stores")

ROCK = (CLIPS / "kathleen-0.flac").read_bytes()
OBJECTS = {
    f"talks/{key}": ROCK
    for key in (
        "monday/one.flac",
        "monday/two & 50% #1?.flac",
        "monday/notes.txt",
        "tuesday/deep/three.MP3",
        "four.flac",
        ".trash/gone.flac",
    )
}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, store(OBJECTS) as address:
        patch.setenv("AWS_ENDPOINT_URL", address)
        for name, value in {
            "ACCESS_KEY_ID": "me",
            "SECRET_ACCESS_KEY": "secret",
            "DEFAULT_REGION": "us-east-1",
            "EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(f"AWS_{name}", value)
        remote._connect.cache_clear()
        yield "s3://talks"
    remote._connect.cache_clear()


@pytest.mark.parametrize(
    "name, found",
    [
        ("", ["four.flac", "monday/one.flac", "monday/two & 50% #1?.flac", "tuesday/deep/three.MP3"]),
        ("/monday/", ["monday/one.flac", "monday/two & 50% #1?.flac"]),
        ("/monday/one.flac", ["monday/one.flac"]),
        ("/monday/two & 50% #1?.flac", ["monday/two & 50% #1?.flac"]),
        ("/monday/*", ["monday/notes.txt", "monday/one.flac", "monday/two & 50% #1?.flac"]),
        ("/*/one.flac", ["monday/one.flac"]),
        ("/t*/**/*.MP3", ["tuesday/deep/three.MP3"]),
        ("/**/*.flac", [".trash/gone.flac", "four.flac", "monday/one.flac", "monday/two & 50% #1?.flac"]),
        ("/nothing.flac", ["nothing.flac"]),
    ],
)
def test_folders_patterns_and_names(bucket, name, found):
    paths, errors = expand([bucket + name])
    assert (list(paths), errors) == ([f"{bucket}/{key}" for key in found], [])


def test_what_gives_no_recording_is_said(bucket):
    assert expand([f"{bucket}/*.wav"]) == ({}, [f"{bucket}/*.wav: matches no file; check the path."])


def test_a_recording_is_read_whole_and_bears_its_name(bucket):
    with opened(f"{bucket}/monday/two & 50% #1?.flac") as file:
        assert file.name == f"{bucket}/monday/two & 50% #1?.flac" and file.seekable()
        file.seek(4)
        assert file.read(100) == ROCK[4:104]
    with pytest.raises(AudioError, match=r"gone\.flac: cannot be read"), opened(f"{bucket}/gone.flac"):
        pass


def test_a_store_that_does_not_answer(bucket, monkeypatch):
    class Deaf:
        def get_file_info(self, _):
            raise OSError("no answer\nand much more")

    monkeypatch.setattr(remote, "_connect", lambda _: Deaf())
    with pytest.raises(RillError, match=r"s3://talks/x: the store cannot be asked \(no answer\); check"):
        expand(["s3://talks/x"])


def test_names_of_outputs(bucket):
    for name in (bucket, f"{bucket}/", f"{bucket}/**/*.flac"):
        assert expand([name])[0][f"{bucket}/monday/two & 50% #1?.flac"] == Path("monday/two & 50% #1?")
    assert expand([f"{bucket}/four.flac"])[0] == {f"{bucket}/four.flac": Path("four")}
    assert absolute("s3://a/x") == "s3://a/x" and absolute("x") == str(Path("x").absolute())


def test_transcribed_as_the_file_is(bucket):
    keys = ("four.flac", "monday/notes.txt", "none.mp3")
    sources = [str(CLIPS / "kathleen-0.flac"), *(f"{bucket}/{key}" for key in keys)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local, there, notes, none = transcribe_files(sources, Options(lm=False, device="cpu"))
    assert there.transcript == local.transcript == notes.transcript and local.transcript.text
    assert none.error.startswith(f"{bucket}/none.mp3: cannot be read (")
