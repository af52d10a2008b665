"""The manifest of an archive: what is done, what is not, and under which names. (With a cluster: test_cluster.)"""

import json
import signal
import socket
from pathlib import Path

import pytest

from asr.errors import RillError
from asr.inference import archive
from asr.inference.archive import MANIFEST, Answer, Manifest
from asr.inference.files import Options


@pytest.fixture
def manifest(tmp_path):
    def reopened():
        return Manifest(tmp_path)

    return reopened


def test_done_failed_and_gone(manifest, tmp_path):
    first = manifest()
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").touch()
        first.add(Answer(f"/x/{name}.wav", 1.0), [f"{name}.txt"])
    first.add(Answer("/x/c.wav", error="/x/c.wav: is empty."), [])
    first.close()
    (tmp_path / "b.txt").unlink()
    again = manifest()
    has = {name: again.has(f"/x/{name}.wav", [f"{name}.txt"]) for name in "abcd"}
    assert has == {"a": True, "b": False, "c": False, "d": False}
    assert not again.has("/x/a.wav", ["a.txt", "a.srt"])  # another format is work to do
    lines = [json.loads(line) for line in (tmp_path / MANIFEST).read_text(encoding="utf-8").splitlines()]
    assert [line["status"] for line in lines] == ["done", "done", "failed"]
    assert lines[2] == {
        "source": "/x/c.wav",
        "status": "failed",
        "outputs": [],
        "seconds": 0.0,
        "error": "/x/c.wav: is empty.",
        "warnings": [],
    }


def test_a_line_that_was_cut_off_costs_that_line_only(manifest, tmp_path):
    (tmp_path / "a.txt").touch()
    first = manifest()
    first.add(Answer("/x/a.wav", 1.0), ["a.txt"])
    first.close()
    with open(tmp_path / MANIFEST, "a", encoding="utf-8") as file:
        file.write('{"source": "/x/b.wav", "sta')
    second = manifest()
    assert second.has("/x/a.wav", ["a.txt"]) and "/x/b.wav" not in second.outputs
    second.add(Answer("/x/b.wav", 1.0), ["b.txt"])
    second.close()
    assert set(manifest().outputs) == {"/x/a.wav", "/x/b.wav"}


def test_names_stay_as_the_archive_grows(manifest):
    first = manifest()
    assert first.names({"/x/talk.wav": Path("talk")}) == {"/x/talk.wav": "talk"}
    first.add(Answer("/x/talk.wav", 1.0), ["talk.srt"])
    first.close()
    names = manifest().names({"/x/talk.wav": Path("x/talk"), "/x/talk.mp3": Path("x/talk")})
    assert names == {"/x/talk.wav": "talk", "/x/talk.mp3": "x/talk"}
    with pytest.raises(RillError, match=r"/x/talk\.wav and /y/Talk\.mp3 would both .*talk: give another --output\."):
        manifest().names({"/y/Talk.mp3": Path("Talk")})


def test_a_name_that_is_not_utf8(manifest):
    first = manifest()
    first.add(Answer("/x/\udcfc.wav", 1.0), ["\udcfc.txt"])
    first.close()
    assert manifest().outputs == {"/x/\udcfc.wav": ["\udcfc.txt"]}


def test_the_manifest_of_something_else(manifest, tmp_path):
    (tmp_path / MANIFEST).write_text('{"audio": "a.wav", "text": "hello"}\n')
    with pytest.raises(RillError, match=r"manifest\.jsonl is not of an archive's transcripts: give another --output"):
        manifest()


def test_several_formats_of_one_recording_have_one_name(manifest):
    first = manifest()
    first.add(Answer("/x/talk.wav", 1.0), ["talk.txt"])
    first.add(Answer("/x/talk.wav", 1.0), ["talk.srt"])
    assert first.outputs == {"/x/talk.wav": ["talk.txt", "talk.srt"]}


@pytest.mark.e2e
def test_nobody_at_the_address(tmp_path):
    """Said at once, and what the process does at SIGTERM stays."""
    pytest.importorskip("ray", reason="pip install 'rill-asr[ray]'")
    handler = signal.getsignal(signal.SIGTERM)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(RillError, match=rf"No Ray cluster answers at '{address}' .*refused.*: start one with"):
            archive.transcribe_archive({"x.wav": Path("x")}, Options(), ("txt",), tmp_path, address)
    assert signal.getsignal(signal.SIGTERM) == handler
