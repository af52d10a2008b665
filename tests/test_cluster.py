"""A cluster of two nodes on this computer: an archive whose worker is killed, and the service that grows and shrinks.

Alone: pytest -m cluster
"""
import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import soundfile
import websockets
from typer.testing import CliRunner

from asr import archive, cli, cluster, writers
from asr.archive import MANIFEST, MOST_ATTEMPTS, Answer, Worker
from asr.cluster import Inbox, settings
from asr.errors import RillError
from asr.service import Leave, Limits
from asr.transcribing import Options, transcribe_files
from tests.conftest import CLIPS
from tests.serving import closed, pcm, said, vosk

pytestmark = pytest.mark.cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
OPTIONS = Options(lm=False, device="cpu")
LENGTH = 30  # seconds of a recording
PATIENCE = 300  # seconds after which a test gives up; computers that test are busy
ROCK = pcm(CLIPS / "kathleen-0.flac")  # "there was nothing on the rock"


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray", reason="the cluster needs: pip install 'rill-asr[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for measure in ("HANDLE", "REPLICA"):  # how often Serve counts requests; else every 10 s
            patch.setenv(f"RAY_SERVE_{measure}_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        cluster.add_node(num_cpus=1, object_store_memory=NODE["object_store_memory"])
        yield cluster
        cluster.shutdown()


def busy_workers(nodes) -> list[int]:
    """Process ids of the actors of these nodes that are just transcribing."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            title = (process / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent in raylets and title.startswith(b"ray::MapWorker") and b".submit" in title:
            found.append(int(process.name))
    return found


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, clips):
    """Six recordings, and a file that is none."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, clip in enumerate(clips[:6]):
        samples = np.tile(np.concatenate([clip.samples, np.zeros(8000, np.float32)]), LENGTH)[:LENGTH * 16_000]
        soundfile.write(folder / f"{number}.wav", samples, 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF, and then nothing of use")
    return folder


@pytest.fixture(scope="module")
def expected(recordings):
    """What one process makes of them."""
    outcomes = transcribe_files([str(path) for path in sorted(recordings.glob("[0-9].wav"))], OPTIONS)
    return {f"{Path(each.source).stem}.{suffix}": writers.render(each.transcript, suffix)
            for each in outcomes for suffix in ("txt", "json")}


def test_archive_with_a_worker_killed(nodes, recordings, expected, tmp_path, monkeypatch, capsys):
    """Every output complete and there once; the broken file is recorded, and tried again; what is done stays."""
    monkeypatch.setattr(writers, "FORMATS", ("txt", "json"))
    output = tmp_path / "out"
    records = lambda: [json.loads(line) for line in (output / MANIFEST).read_text().splitlines()]  # noqa: E731
    failed = []
    run = threading.Thread(target=lambda: failed.append(
        archive.run([f"{recordings}/*.wav"], OPTIONS, "all", output, nodes.address)))
    run.start()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:  # until some are done, and another one is being worked on
        done = len(list(output.glob("*.json")))
        if 1 <= done < 5 and (workers := busy_workers(nodes)):
            os.kill(workers[0], signal.SIGKILL)
            break
        time.sleep(0.02)
    run.join(PATIENCE)
    assert workers and failed == [1]
    assert {path.name: path.read_text() for path in output.iterdir()} == {
        **expected, MANIFEST: (output / MANIFEST).read_text()}
    assert sorted((record["source"], record["status"]) for record in records()) == [
        *((str(recordings / f"{number}.wav"), "done") for number in range(6)),
        (str(recordings / "broken.wav"), "failed")]
    sentence = next(record["error"] for record in records() if record["status"] == "failed")
    assert sentence.startswith(f"{recordings}/broken.wav: is not sound") and sentence in capsys.readouterr().err

    written = {path: path.stat().st_mtime_ns for path in output.glob("*.*") if path.name != MANIFEST}
    soundfile.write(recordings / "broken.wav", soundfile.read(CLIPS / "kathleen-0.flac")[0], 16_000)
    again = CliRunner().invoke(cli.app, ["transcribe", "--ray", nodes.address, str(recordings), "-o", str(output),
                                         "-f", "all", "--no-lm", "--device", "cpu"])
    assert again.exit_code == 0, again.output
    assert len(records()) == 8 and records()[-1]["status"] == "done" and (output / "broken.txt").exists()
    assert {path: path.stat().st_mtime_ns for path in written} == written
    # Where nothing is missing, nothing is asked of any cluster.
    assert archive.run([f"{recordings}/*.wav"], OPTIONS, "all", output, "nowhere:1") == 0


class Deadly(Worker):
    """Does not survive one of the recordings."""

    def __init__(self, options: Options, formats: tuple[str, ...], attempts: object) -> None:
        self.attempts = attempts

    def transcribe(self, source: str) -> Answer:
        if "deadly" in source:
            os.kill(os.getpid(), signal.SIGKILL)
        return Answer(source, texts={"txt": "x"})


def test_a_recording_that_kills_its_workers(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "Worker", Deadly)
    names = [str(tmp_path / name) for name in ("a.wav", "deadly.wav", "b.wav")]
    assert archive.run(names, OPTIONS, "txt", tmp_path / "out", nodes.address) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt", MANIFEST]
    last = json.loads((tmp_path / "out" / MANIFEST).read_text().splitlines()[-1])
    assert last["status"] == "failed" and f"{MOST_ATTEMPTS} workers were lost over it" in last["error"]


def test_a_checkpoint_that_is_missing_ends_it(nodes, recordings, tmp_path):
    with pytest.raises(RillError, match=r"A worker cannot work: .*nowhere"):
        archive.run([str(recordings)], Options(checkpoint="nowhere"), "txt", tmp_path, nodes.address)


@pytest.fixture(scope="module")
def service(nodes):
    """Its port. A replica has four places, and two speakers are enough for it."""
    import ray
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch, ray.init(nodes.address, log_to_driver=False):
        for constant in ("LOOK_BACK", "UPSCALE_DELAY", "DOWNSCALE_DELAY"):
            patch.setattr(cluster, constant, 1.0)
        patch.setenv("RILL_LM", "false")
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(cluster.app({"cores": 1, "sessions": "4", "fill": 0.5, "max_replicas": 2, "device": "cpu",
                               "max_message": 64, "max_minutes": 2}), name="rill")
        yield port
        serve.shutdown()


def test_the_doors(service, greedy):
    """Vosk's client and OpenAI's, through Serve's proxy."""
    answers = asyncio.run(vosk(f"ws://127.0.0.1:{service}/ws", ROCK))
    stream = greedy.stream()
    events = stream.accept(np.frombuffer(ROCK, "<i2")) + stream.finish()
    assert said(answers) == [events[-1].text] and "rock" in events[-1].text
    with openai.OpenAI(base_url=f"http://127.0.0.1:{service}/v1", api_key="none", max_retries=0) as client:
        text = client.audio.transcriptions.create(model="whisper-1", file=CLIPS / "kathleen-0.flac").text
    assert text == greedy.transcribe(CLIPS / "kathleen-0.flac").segments[0].text
    health = httpx.get(f"http://127.0.0.1:{service}/health").json()
    assert health["status"] == "ok" and health["places"] == 4
    code, reason = closed(f"ws://127.0.0.1:{service}/ws", bytes((64 << 10) + 2))
    assert (code, reason) == (1009, "A message may have 64 KiB at most.")


def replicas() -> dict[str, int]:
    from ray import serve

    return dict(serve.status().applications["rill"].deployments["rill"].replica_states)


async def until(states: dict[str, int]) -> None:
    end = time.monotonic() + PATIENCE
    while (now := replicas()) != states and time.monotonic() < end:
        await asyncio.sleep(0.1)
    assert now == states


def test_speakers_add_a_replica_and_one_that_must_go_lets_them_finish(service):
    async def say(speaker, sound: bytes) -> dict:
        await speaker.send(sound)
        return json.loads(await asyncio.wait_for(speaker.recv(), PATIENCE))

    async def talk() -> list[dict]:
        url = f"ws://127.0.0.1:{service}/ws"
        speakers = [await websockets.connect(url, compression=None) for _ in range(3)]
        for speaker in speakers:
            await say(speaker, ROCK[:16_000])
        await until({"RUNNING": 2})
        new = await websockets.connect(url, compression=None)  # goes where there is most room
        await say(new, ROCK[:16_000])
        for speaker in speakers[1:]:
            await speaker.close()
        await until({"RUNNING": 1, "STOPPING": 1})
        answers = []
        for speaker in (speakers[0], new):
            await say(speaker, ROCK[16_000:])
            await speaker.send('{"eof": 1}')
            answers.append(json.loads(await speaker.recv()))
            await speaker.wait_closed()
            assert speaker.close_code == 1000
        await until({"RUNNING": 1})
        return answers

    one, other = asyncio.run(talk())
    assert one == other and "rock" in one["text"]


@pytest.mark.parametrize("sizes, code", [([10, 11], 1009), ([10] * 17, 1008), ([10] * 16, None)])
def test_what_may_wait_for_a_slow_reader(sizes, code):
    """Sixteen messages of ten bytes; none may be larger."""
    seen, problems = [], []
    messages = iter([{"type": "websocket.connect"}, *({"type": "websocket.receive", "bytes": bytes(n)} for n in sizes),
                     {"type": "websocket.disconnect"}])

    async def receive():
        await asyncio.sleep(0)
        return next(messages)

    async def app(scope, receive, send):
        try:
            await receive()
            await asyncio.sleep(0.05)
            while (message := await receive())["type"] == "websocket.receive":
                seen.append(message)
        except Leave as leave:
            problems.append(leave.code)

    asyncio.run(Inbox(app, Limits(message=10))({"type": "websocket"}, receive, None))
    assert problems == [code] * bool(code) and len(seen) == (0 if code else len(sizes))


def test_settings(monkeypatch):
    monkeypatch.setenv("RILL_SESSIONS", "7")
    monkeypatch.setenv("RILL_HOTWORDS", "rill, new york:12")
    chosen = settings({"int8": "true", "sessions": 9})
    assert (chosen.sessions, chosen.int8, chosen.hotwords) == (9, True, ("rill", "new york:12"))
    assert settings({}).sessions == 7
    with pytest.raises(RillError, match=r"The setting 'speakers' cannot be used .*: the settings are checkpoint, "):
        settings({"speakers": 3})
    with pytest.raises(RillError, match=r"'latency' .*live speech cannot wait"):
        settings({"latency": "offline"})


def test_without_ray(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["asr", "transcribe", "--ray", "local", "x.wav", "-o", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "asr: This needs the package 'ray': pip install 'rill-asr[ray]'.\n"
