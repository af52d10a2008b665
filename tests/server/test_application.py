"""The server as a whole: who may use it, what it says about itself, how it starts and ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import openai
import pytest
import websockets

from asr.errors import RillError
from asr.inference.batching import BatchRunner
from asr.server import access, application, process
from asr.server.access import read_tokens
from asr.server.listening import listen
from asr.server.options import ServeOptions
from asr.server.process import run_server
from asr.server.service import Busy
from tests.conftest import CLIPS
from tests.support.serving import PATIENCE, closed, connect, numbers, pcm, rest, running, said, silence, until, vosk

ROCK = pcm(CLIPS / "kathleen-0.flac")
get = partial(httpx.get, timeout=PATIENCE)
TOKENS = (b"a secret of sixteen", "ein schlüssel von sechzehn".encode())


@pytest.fixture(scope="module")
def server(recognizer):
    with running(recognizer, ServeOptions(cors=("https://example.org",))) as here:
        yield here


@pytest.fixture(scope="module")
def guarded(recognizer):
    with running(recognizer, tokens=TOKENS) as here:
        yield here


def test_health(server):
    answer = get(server.url("/health"))
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "version": application.__version__,
        "model": "en-small",
        "sessions": 0,
        "places": 64,
    }


def test_metrics_follow_what_happens(server, monkeypatch):
    monkeypatch.setattr(BatchRunner, "preview_interval_steps", 1)  # under load there are fewer
    before = numbers(server)
    asyncio.run(vosk(server.url("/ws", "ws"), ROCK + silence(1.5), 3200))
    closed(server.url("/ws", "ws"), "{")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.service, "closing", True)
        with pytest.raises(Busy), server.service.upload():
            pass
    after = numbers(server)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown("rill_audio_seconds_total,vosk") == pytest.approx(len(ROCK) / 32_000 + 1.5)
    assert grown("rill_finals_total") == grown("rill_final_latency_seconds_count") == 1
    assert 0 < grown("rill_final_latency_seconds_sum") < PATIENCE
    assert grown("rill_ended_total,1000") == grown("rill_ended_total,1007") == 1
    assert grown("rill_refused_total,closing") == 1
    assert grown("rill_model_seconds_total,live") > 0 < grown("rill_model_seconds_total,second")
    assert grown("rill_batch_size_count,live") >= 18 and grown("rill_model_delay_seconds_count,second") >= 1
    assert after["rill_sessions,vosk"] == after["rill_queue,live"] == after["rill_dropped_seconds_total"] == 0
    assert after["rill_real_time_factor"] > 0 and after["process_resident_memory_bytes"] > 1e8


def test_the_page_of_the_api_reads_well(server):
    assert get(server.url("/"), follow_redirects=True).url.path == "/docs"
    page = get(server.url("/openapi.json")).json()
    paths = {path: next(iter(methods.values())) for path, methods in page["paths"].items()}
    assert set(paths) == {"/v1/models", "/v1/models/{name}", "/v1/audio/transcriptions", "/health", "/metrics"}
    for operation in paths.values():
        assert operation["summary"] and operation["tags"][0] in {tag["name"] for tag in page["tags"]}
        assert {"200", "400", "401", "403", "404", "405", "503"} <= set(operation["responses"])
        assert "422" not in operation["responses"]
    schemas = page["components"]["schemas"]
    form = next(schema for name, schema in schemas.items() if name.startswith("Body"))["properties"]
    assert {"file", "model", "stream", "timestamp_granularities[]"} <= set(form)
    assert all(field.get("description") for field in form.values())
    assert "phrase_list" in page["info"]["description"]


def test_the_page_of_the_api_knows_every_answer(server):
    """Other methods have 405 and say which there are; errors have the shape that is documented."""
    page = get(server.url("/openapi.json")).json()
    for path, methods in page["paths"].items():
        documented = next(iter(methods.values()))["responses"]
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            answer = httpx.request(method, server.url(path), timeout=PATIENCE)
            assert str(answer.status_code) in documented, (method, path)
            if method.lower() not in methods:
                assert answer.status_code == 405 and answer.headers["Allow"] == ", ".join(map(str.upper, methods))
            if answer.status_code >= 400 and method != "HEAD":
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
                assert documented[str(answer.status_code)]["content"]["application/json"]["schema"]


def test_a_token_opens_every_protocol(guarded):
    for token in TOKENS:
        answer = get(guarded.url("/v1/models"), headers={"Authorization": b"bearer " + token})
        assert answer.status_code == 200
    bearer = {"Authorization": "Bearer a secret of sixteen"}
    assert asyncio.run(vosk(guarded.url("/ws", "ws"), b"", headers=bearer)) == [{"text": ""}]
    with openai.OpenAI(base_url=guarded.url("/v1"), api_key="a secret of sixteen", max_retries=0) as client:
        assert client.models.list().data


@pytest.mark.parametrize(
    "header",
    [
        None,
        "a secret of sixteen",
        "Bearer",
        "Bearer a secret of sixtee",
        "Bearer a secret of sixteen2",
        "Basic a secret of sixteen",
    ],
)
def test_without_the_token_every_path_is_refused(guarded, header):
    headers = {"Authorization": header} if header else {}
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/"):
        answer = get(guarded.url(path), headers=headers)
        assert answer.status_code == 401 and "Bearer" in answer.headers["www-authenticate"]
        assert "token" in answer.json()["error"]["message"]
    assert get(guarded.url("/health")).status_code == 200
    with pytest.raises(websockets.InvalidStatus, match="401"):
        closed(guarded.url("/ws", "ws"), headers=headers)


def test_a_wrong_key_is_openais_own_error(guarded):
    with (
        openai.OpenAI(base_url=guarded.url("/v1"), api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="token"),
    ):
        client.audio.transcriptions.create(model="en-small", file=("a.wav", bytes(1 << 22)))


def test_token_files(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"{'one' * 6}\n\n  {'two' * 6}  \n", encoding="utf-8")
    assert read_tokens(path) == [b"one" * 6, b"two" * 6] and read_tokens(None) == []
    path.write_text(f"{'one' * 6}\ntwo\n")
    with pytest.raises(RillError, match=r"tokens is shorter than 16 characters: .*openssl"):
        read_tokens(path)
    path.write_text(" \n")
    with pytest.raises(RillError, match="empty"):
        read_tokens(path)
    with pytest.raises(RillError, match=r"missing.*cannot be read"):
        read_tokens(tmp_path / "missing")


def test_pages_of_other_sites_must_be_allowed(server, guarded):
    """CORS where an option says so, and nowhere else; the same for sockets, which CORS does not protect."""
    for here, origin, allowed in (
        (server, "https://example.org", True),
        (server, "https://evil.example", False),
        (guarded, "https://example.org", False),
    ):
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        answer = httpx.options(here.url("/v1/models"), headers=headers)
        assert (answer.headers.get("access-control-allow-origin") == origin) == allowed
    url = server.url("/ws", "ws")
    assert closed(url, '{"eof": 1}', headers={"Origin": "https://example.org"})[0] == 1000
    assert closed(url, '{"eof": 1}', headers={"Origin": f"http://127.0.0.1:{server.port}"})[0] == 1000
    code, reason = closed(url, '{"eof": 1}', headers={"Origin": "https://evil.example"})
    assert code == 1008 and "https://evil.example" in reason and "--cors" in reason


def test_unknown_paths_and_methods_are_errors_of_the_same_shape(server):
    for answer in (get(server.url("/nowhere")), get(server.url("/v1/audio/transcriptions"))):
        assert answer.status_code in (404, 405) and answer.json()["error"]["message"]
        assert (answer.status_code == 405) == (answer.headers.get("Allow") == "POST")
    with pytest.raises(websockets.InvalidStatus):
        closed(server.url("/nowhere", "ws"))


@pytest.mark.parametrize(
    "sent",
    [[b""], [b"G"], [b"GET /health HTTP/1.1\r\nHost: x\r\n"], [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /he"]],
)
def test_a_connection_that_completes_no_request_is_closed(server, monkeypatch, sent):
    monkeypatch.setattr(process, "REQUEST_TIMEOUT_S", 0.5)
    with socket.create_connection(("127.0.0.1", server.port)) as idle:
        idle.settimeout(PATIENCE)
        for number, part in enumerate(sent):
            assert not number or b" 200 OK" in idle.recv(10_000)
            idle.sendall(part)
        with suppress(ConnectionResetError):
            while idle.recv(10_000):
                pass


def test_a_body_that_drips_is_not_waited_for(recognizer, monkeypatch):
    monkeypatch.setattr(access, "MIN_BODY_BYTES_PER_S", 1e9)
    with (
        running(recognizer, ServeOptions(idle=0.5)) as server,
        socket.create_connection(("127.0.0.1", server.port)) as drip,
    ):
        drip.settimeout(0.1)
        drip.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        answer = b""
        until_then = time.monotonic() + PATIENCE
        while not answer and time.monotonic() < until_then:
            drip.sendall(b"x")
            with suppress(TimeoutError):
                answer = drip.recv(10_000)
        assert b" 408 " in answer


def test_an_overloaded_server_accepts_no_recording(server, monkeypatch):
    monkeypatch.setattr(server.service.batcher, "lag", 2.0 * PATIENCE)
    with pytest.raises(Busy, match="keep up"), server.service.upload():
        pass


def test_no_recording_is_accepted_during_a_shutdown(server, monkeypatch):
    monkeypatch.setattr(server.service, "closing", True)
    answer = get(server.url("/health"))
    assert answer.status_code == 503 and answer.json()["status"] == "closing"
    answer = httpx.post(
        server.url("/v1/audio/transcriptions"),
        data={"model": "en-small"},
        files={"file": ("a.flac", (CLIPS / "kathleen-0.flac").read_bytes())},
    )
    assert answer.status_code == 503 and "shutting down" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_computers_need_a_token(host, tmp_path, monkeypatch):
    with (
        pytest.raises(RillError, match=rf"--host {host} .*--token-file FILE, or --no-token"),
        listen(host, 0) as listener,
    ):
        run_server(lambda: pytest.fail("loaded"), ServeOptions(host=host), listener, on_ready=print)
    tokens = tmp_path / "tokens"
    tokens.write_text("a secret of sixteen\n")
    for options in (
        ServeOptions(host=host, no_token=True),
        ServeOptions(host=host, token_file=tokens),
        ServeOptions(),
    ):
        with pytest.raises(RillError, match="the model is asked for"), listen(options.host, 0) as listener:
            run_server(ask, options, listener, on_ready=print)


def ask():
    raise RillError("the model is asked for")


def test_idle_connections_of_one_client_do_no_harm(recognizer):
    """More than the server serves at the same time; its health, and whatever else, is still told."""
    with running(recognizer, ServeOptions(sessions=1)) as server, ExitStack() as connections:
        for _ in range(150):
            connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert get(server.url("/health")).status_code == get(server.url("/v1/models")).status_code == 200
        until(lambda: len(server.server.server_state.connections) <= process.MAX_IDLE_CONNECTIONS + 1)


def test_an_address_that_cannot_be_used():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RillError, match=rf"Port {port}.*--port"):
            listen("127.0.0.1", port)
    with pytest.raises(RillError, match="host"):
        listen("no such host.invalid", 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("wrong", ["missing", "alone", "swapped"])
def test_a_certificate_that_cannot_be_used(certificate, wrong, tmp_path):
    pair = {
        "missing": (tmp_path / "a.pem", tmp_path / "b.pem"),
        "alone": (certificate[0], None),
        "swapped": certificate[::-1],
    }[wrong]
    options = ServeOptions(ssl_certfile=pair[0], ssl_keyfile=pair[1])
    with (
        pytest.raises(RillError, match="--ssl-keyfile go together" if wrong == "alone" else "PEM"),
        listen("127.0.0.1", 0) as listener,
    ):
        run_server(lambda: pytest.fail("loaded"), options, listener, on_ready=print)


@pytest.mark.e2e
def test_the_command_over_tls_until_sigterm(certificate, tmp_path):
    """As a process of its own: it prints its addresses, serves over https and wss, and delivers the last final."""
    tokens = tmp_path / "tokens"
    tokens.write_text("a secret of sixteen\n")
    command = [
        sys.executable,
        "-m",
        "asr.cli",
        "serve",
        "--port",
        "0",
        "--no-demo",
        "--token-file",
        str(tokens),
        "--ssl-certfile",
        str(certificate[0]),
        "--ssl-keyfile",
        str(certificate[1]),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"Serving 64 speakers: .* wss://127.0.0.1:(\d+)/ws, .* https://127.0.0.1:\1/v1", line)
            assert found, line + process.stderr.read()
            port = int(found[1])
            trust = ssl.create_default_context(cafile=certificate[0])
            assert get(f"https://127.0.0.1:{port}/health", verify=trust).json()["status"] == "ok"

            async def talk():
                bearer = {"Authorization": "Bearer a secret of sixteen"}
                async with connect(f"wss://127.0.0.1:{port}/ws", ssl=trust, additional_headers=bearer) as client:
                    await client.send('{"config": {"sample_rate": 16000}}')
                    await client.send(ROCK)
                    first = await asyncio.wait_for(client.recv(), PATIENCE)
                    process.send_signal(signal.SIGTERM)
                    return [json.loads(first), *await rest(client)]

            assert said(asyncio.run(talk())) == ["there was nothing on the rock"]
            assert process.wait(PATIENCE) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
