"""A cluster of two nodes on this computer: an archive whose workers are killed, a service that grows and shrinks."""

import asyncio
import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import soundfile
import websockets
from typer.testing import CliRunner

import asr
from asr.audio.inputs import expand
from asr.cli import main
from asr.cli.transcribe import transcribe_on_cluster
from asr.errors import RillError
from asr.inference import archive
from asr.inference.archive import MANIFEST, Answer, Worker
from asr.inference.files import Options, transcribe_file
from asr.server import cluster
from asr.server.cluster import ClusterOptions, InboxMiddleware, read_options
from asr.server.service import SessionClosed
from asr.text import writers
from tests.conftest import CLIPS
from tests.support.serving import closed, free_port, pcm, said, vosk

LIMIT = 420  # seconds for all of this; then what runs fails, and what comes after it every half minute
PATIENCE = 150  # seconds that one thing may take
BUSY = {  # computers that test are busy: what Ray would take for dead is only slow
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_failure_threshold": "30",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # How often Serve counts requests; else every 10 s.
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
}
OPTIONS = Options(lm=False, device="cpu", punctuate=False)
LENGTH = 20  # seconds of a recording
ROCK = pcm(CLIPS / "kathleen-0.flac")  # "there was nothing on the rock"
CONFIG = '{"config": {"sample_rate": 16000}}'


@pytest.fixture(scope="module", autouse=True)
def in_time(request):
    """Nothing here waits for ever, whatever Ray does."""

    def too_long(*_):
        raise SystemExit(f"The cluster's tests take longer than {LIMIT} s.")  # other exceptions get lost inside Ray

    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        stderr = os.dup(2)
    handler = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 30)
    faulthandler.dump_traceback_later(LIMIT + 90, exit=True, file=stderr)  # where Python itself waits
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    os.close(stderr)


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray", reason="the cluster needs: pip install 'rill-asr[ray]'")
    import psutil  # Ray brings it
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, archive.sigterm_kept():
        for name, value in BUSY.items():
            patch.setenv(name, value)
        others = psutil.Process().children()
        cluster = Cluster()
        try:
            for _ in range(2):
                cluster.add_node(wait=False, num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
            cluster.wait_for_nodes(PATIENCE)
            yield cluster
        finally:
            ours = [
                each
                for child in psutil.Process().children()
                if child not in others
                for each in (child, *child.children(recursive=True))
            ]
            cluster.shutdown()
            left = psutil.wait_procs(ours, 30)[1]
            for process in left:
                process.kill()
        assert not left


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, clips):
    """Four recordings, a file that is none, and one whose name says what becomes of workers."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, clip in zip(("0", "1", "2", "3", "deadly"), clips, strict=False):
        samples = np.tile(np.concatenate([clip.samples, np.zeros(8000, np.float32)]), LENGTH)[: LENGTH * 16_000]
        soundfile.write(folder / f"{name}.wav", samples, 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF, and then nothing of use")
    return folder


def test_an_archive_whose_workers_are_killed(nodes, recordings, greedy, tmp_path, monkeypatch, capsys):
    """One half-way through a recording, and all that try another one. Every output is complete and there once; what
    failed is recorded, and tried again; what is done stays."""
    monkeypatch.setattr(writers, "FORMATS", ("txt", "json"))
    monkeypatch.setattr(archive, "MAX_ATTEMPTS", 2)
    output, killed, handler = tmp_path / "out", tmp_path / "killed", signal.getsignal(signal.SIGTERM)

    class Mortal(Worker):
        def transcribe(self, source: str) -> Answer:
            def die(*_: object) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            if Path(source).stem == "deadly":
                die()
            if Path(source).stem == "2" and not killed.exists():
                killed.touch()
                transcribe_file(source, self.options, on_progress=die)  # with the first words
            return super().transcribe(source)

    def files() -> dict[str, str]:
        return {path.name: path.read_text() for path in output.iterdir() if path.name != MANIFEST}

    def records() -> list[dict]:
        return [json.loads(line) for line in (output / MANIFEST).read_text().splitlines()]

    def expected(*names: str) -> dict[str, str]:
        """What one process makes of them."""
        return {
            f"{name}.{suffix}": writers.render(greedy.transcribe(recordings / f"{name}.wav"), suffix)
            for name in names
            for suffix in ("txt", "json")
        }

    with monkeypatch.context() as patch:
        patch.setattr(archive, "Worker", Mortal)
        places, _ = expand([f"{recordings}/*.wav"])
        assert transcribe_on_cluster(places, 0, OPTIONS, writers.FORMATS, output, nodes.address, None) == 2
    assert killed.exists() and signal.getsignal(signal.SIGTERM) == handler
    assert files() == expected("0", "1", "2", "3")
    assert sorted((Path(record["source"]).stem, record["status"]) for record in records()) == [
        *((str(number), "done") for number in range(4)),
        ("broken", "failed"),
        ("deadly", "failed"),
    ]
    errors = {Path(record["source"]).stem: record["error"] for record in records()}
    assert errors["broken"].startswith(f"{recordings}/broken.wav: is not audio")
    assert errors["deadly"].startswith(f"{recordings}/deadly.wav: every worker was lost over it")
    assert set(capsys.readouterr().err.splitlines()) >= {f"asr: {errors[name]}" for name in ("broken", "deadly")}

    written = {path: path.stat().st_mtime_ns for path in output.iterdir() if path.name != MANIFEST}
    (recordings / "broken.wav").write_bytes((recordings / "0.wav").read_bytes())
    names = [str(recordings / f"{name}.wav") for name in ("0", "1", "2", "3", "broken")]
    again = CliRunner().invoke(
        main.app,
        [
            "transcribe",
            "--ray",
            nodes.address,
            *names,
            "-o",
            str(output),
            "-f",
            "all",
            "--no-lm",
            "--device",
            "cpu",
            "--plain",
        ],
    )
    assert again.exit_code == 0, again.output
    assert [(Path(record["source"]).stem, record["status"]) for record in records()[6:]] == [("broken", "done")]
    assert files() == expected("0", "1", "2", "3", "broken")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    # Where nothing is missing, nothing is asked of any cluster.
    assert archive.transcribe_archive(expand(names)[0], OPTIONS, writers.FORMATS, output, "nowhere:1") == 0


def test_a_checkpoint_that_is_missing_ends_it(nodes, recordings, tmp_path):
    with pytest.raises(RillError, match=r"A worker cannot work: .*nowhere"):
        archive.transcribe_archive(
            {str(recordings / "0.wav"): Path("0")}, Options(checkpoint="nowhere"), ("txt",), tmp_path, nodes.address
        )


@pytest.fixture(scope="module")
def service(nodes):
    """Its port. A replica has four places, and two speakers are enough for it."""
    import ray
    from ray import serve

    port = free_port()
    with pytest.MonkeyPatch.context() as patch, archive.sigterm_kept(), ray.init(nodes.address, log_to_driver=False):
        for constant in ("LOOK_BACK_S", "UPSCALE_DELAY_S", "DOWNSCALE_DELAY_S"):
            patch.setattr(cluster, constant, 1.0)
        patch.setenv("RILL_LM", "false")
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(
            cluster.app(
                {
                    "cores": 1,
                    "sessions": "4",
                    "fill": 0.5,
                    "max_replicas": 2,
                    "device": "cpu",
                    "max_message": 64,
                    "max_minutes": 2,
                }
            ),
            name="rill",
        )
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
    written = asr.load(lm=False, device="cpu", threads=1)
    assert text == written.transcribe(CLIPS / "kathleen-0.flac").text
    health = httpx.get(f"http://127.0.0.1:{service}/health", timeout=PATIENCE).json()
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
    def connect():
        return websockets.connect(
            f"ws://127.0.0.1:{service}/ws", compression=None, open_timeout=PATIENCE, ping_interval=None
        )

    async def say(speaker, message: bytes | str) -> dict:
        await speaker.send(message)
        return json.loads(await asyncio.wait_for(speaker.recv(), PATIENCE))

    async def talk() -> list[dict]:
        speakers = [await connect() for _ in range(3)]
        for speaker in speakers:
            await speaker.send(CONFIG)
            await say(speaker, ROCK[:16_000])
        await until({"RUNNING": 2})
        new = await connect()  # goes where there is most room
        await new.send(CONFIG)
        await say(new, ROCK[:16_000])
        for speaker in speakers[1:]:
            await speaker.close()
        await until({"RUNNING": 1, "STOPPING": 1})
        answers = []
        for speaker in (speakers[0], new):
            await say(speaker, ROCK[16_000:])
            answers.append(await say(speaker, '{"eof": 1}'))
            await asyncio.wait_for(speaker.wait_closed(), PATIENCE)
            assert speaker.close_code == 1000
        await until({"RUNNING": 1})
        return answers

    one, other = asyncio.run(talk())
    assert one == other and "rock" in one["text"]


@pytest.mark.parametrize("sizes, code", [([1024, 1025], 1009), ([1024] * 17, 1008), ([1024] * 16, None)])
def test_what_may_wait_for_a_slow_reader(sizes, code):
    """Sixteen messages of a KiB; none may be larger."""
    seen, problems = [], []
    messages = iter(
        [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "bytes": bytes(n)} for n in sizes),
            {"type": "websocket.disconnect"},
        ]
    )

    async def receive():
        await asyncio.sleep(0)
        return next(messages)

    async def app(scope, receive, send):
        try:
            await receive()
            await asyncio.sleep(0.05)
            while (message := await receive())["type"] == "websocket.receive":
                seen.append(message)
        except SessionClosed as closed:
            problems.append(closed.code)

    asyncio.run(InboxMiddleware(app, ClusterOptions(max_message=1))({"type": "websocket"}, receive, None))
    assert problems == [code] * bool(code) and len(seen) == (0 if code else len(sizes))


def test_options(monkeypatch):
    monkeypatch.setenv("RILL_SESSIONS", "7")
    monkeypatch.setenv("RILL_HOTWORDS", "rill, new york:12")
    chosen = read_options({"int8": "true", "sessions": 9})
    assert (chosen.sessions, chosen.int8, chosen.hotwords) == (9, True, ("rill", "new york:12"))
    assert read_options({}).sessions == 7
    with pytest.raises(RillError, match=r"The setting 'speakers' cannot be used .*: the settings are .*checkpoint, "):
        read_options({"speakers": 3})
    with pytest.raises(RillError, match=r"'latency' .*live stream cannot wait for full context"):
        read_options({"latency": "offline"})


def test_without_ray(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["asr", "transcribe", "--ray", "local", __file__, "-o", str(tmp_path)])
    with pytest.raises(SystemExit):
        main.main()
    assert capsys.readouterr().err == "asr: This needs the package 'ray': pip install 'rill-asr[ray]'.\n"
