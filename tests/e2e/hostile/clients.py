"""A real server, and clients that mean harm: broken messages, broken HTTP, hostile uploads, and leaving at any time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import websockets

from tests.conftest import CLIPS
from tests.e2e.hostile.corpus import damaged
from tests.e2e.hostile.figures import Budget, Figures
from tests.e2e.hostile.victim import memory
from tests.support.protocols import DEEPGRAM, DEMO, VOSK
from tests.support.serving import PATIENCE, connect, free_port, pcm, said, vosk

ROOT = Path(__file__).parents[3]
ROCK = "there was nothing on the rock"
EVERY = 25  # inputs, after which the server must be well
AT_ONCE = 6
TRANSCRIPTIONS = "/v1/audio/transcriptions"
REALTIME = "/v1/realtime?intent=transcription"
DEEP = "[" * 50_000
VALUES: list[object] = [
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**30, "", "x" * 70_000, "\ud800", "\0", "../../etc/passwd",
    [], {}, [[]] * 50, {"a": {"b": {}}}, ["rill"] * 3000, "\u202e\x1b[2J", [None], "fast", "1:1", "rill:1e400",
]  # fmt: skip
KEYS = [
    "config", "sample_rate", "phrase_list", "words", "eof", "reset", "rate", "latency", "hotwords", "finish", "type",
    "session", "audio", "input", "format", "transcription", "language", "prompt", "turn_detection", "model", "\ud800",
]  # fmt: skip
TYPES = [
    "session.update", "transcription_session.update", "input_audio_buffer.append", "input_audio_buffer.commit",
    "input_audio_buffer.clear", "KeepAlive", "Finalize", "CloseStream", "Configure", "nothing",
]  # fmt: skip
PATHS = [
    "/", "/ws", "/v1/models", "/v1/models/x", TRANSCRIPTIONS, "/v1/listen", "/v1/realtime", "/health",
    "/metrics", "/docs",
    "/openapi.json", "/demo", "/demo/live", "/demo/config", "/demo/gradio_api/upload", "/demo/gradio_api/queue/join",
    "/demo/gradio_api/call/x", "/demo/gradio_api/file=/etc/passwd", "/demo/transcript", "/%2e%2e/%2e%2e/etc/passwd",
    "/demo/static/..%2f..%2f..%2fetc/passwd", "/\ufffd", "//", "/" + "a" * 9000, "*",
]  # fmt: skip
QUERIES = [
    "encoding=linear16", "encoding=mulaw", "encoding=x", "sample_rate=16000", "sample_rate=nan", "sample_rate=1e9",
    "sample_rate=", "sample_rate=1000", "utterances=true", "smart_format=true", "keyterm=rill", "keyterm=%00",
    "keyterm=%ff", "keywords=" + "x" * 5000, "language=de", "summarize=v2", "url=http://127.0.0.1:9/",
]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "\x00", "A" * 5000]


class Attacked:
    """`asr serve` as a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int, wyoming: int) -> None:
        self.process, self.port, self.wyoming = process, port, wyoming
        self.figures = Figures("clients of a server")
        self.log: list[str] = []
        assert process.stderr
        self.reader = threading.Thread(target=self.log.extend, args=(process.stderr,), daemon=True)
        self.reader.start()

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def transcribes(self) -> bool:
        """Whether it hears a good client's words."""
        answers = asyncio.run(vosk(self.url("/ws", "ws"), pcm(CLIPS / "kathleen-0.flac")))
        return said(answers) == [ROCK]


@contextmanager
def attacked() -> Iterator[Attacked]:
    wyoming = free_port()
    command = [sys.executable, "-m", "asr.cli", "serve", "--port", "0", "--wyoming", f"tcp://127.0.0.1:{wyoming}"]
    limits = ["--max-sessions", "8", "--max-minutes", "1", "--max-upload", "8", "--idle", "3"]
    with subprocess.Popen(
        [*command, *limits],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            assert process.stdout
            found = re.search(r"ws://127.0.0.1:(\d+)/ws", process.stdout.readline())
            assert found, process.stderr and process.stderr.read()
            yield Attacked(process, int(found[1]), wyoming)
        finally:
            process.kill()


def attack_serving(chance: random.Random, folder: Path, budget: Budget) -> Figures:
    """All protocols and pages of a real server, which must be well in between, and at the end still hear every word."""
    with attacked() as server:
        figures, pid = server.figures, server.process.pid
        for number in budget.rounds():
            figures.inputs += 1
            try:
                asyncio.run(asyncio.wait_for(_clients(chance, server), PATIENCE))
            except (TimeoutError, asyncio.TimeoutError):
                figures.note("hangs", f"round {number}: clients wait for {PATIENCE} s")
            if server.process.poll() is not None:
                figures.note("crashes", f"round {number}: status {server.process.returncode}\n{''.join(server.log)}")
                return figures
            if number % EVERY == EVERY - 1 and not _well(server):
                figures.note("hangs", f"after round {number} /health does not answer")
            figures.measured(*memory(pid))
        if not server.transcribes():
            figures.note("wrong", "a good client does not get its words at the end")
        server.process.send_signal(signal.SIGTERM)
        try:
            if server.process.wait(PATIENCE):
                figures.note("wrong", f"SIGTERM: status {server.process.returncode}")
        except subprocess.TimeoutExpired:
            figures.note("hangs", "SIGTERM does not end it")
            server.process.kill()
        server.reader.join(PATIENCE)
        log = "".join(server.log)
        for trace in re.findall(r"Traceback.*?(?=\nTraceback|\Z)", log, re.DOTALL):
            figures.note("tracebacks", trace[-2000:])
        (folder / "server.log").write_text(log, errors="replace")
    return figures


def _well(server: Attacked) -> bool:
    try:
        return httpx.get(server.url("/health"), timeout=PATIENCE).status_code == 200
    except httpx.TransportError:
        return False


async def _clients(chance: random.Random, server: Attacked) -> None:
    """Several at once; `taken` counts the answers that were no refusal."""
    kinds = [_socket, _socket, _raw, _upload, _wyoming]
    found = await asyncio.gather(*(chance.choice(kinds)(chance, server) for _ in range(AT_ONCE)))
    server.figures.inputs += AT_ONCE - 1
    server.figures.taken += sum(found)


# ---- WebSockets -----------------------------------------------------------------------------------------------


def _value(chance: random.Random, depth: int = 0) -> object:
    if depth < 4 and chance.random() < 0.4:
        return {chance.choice(KEYS): _value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(VALUES)


def _message(chance: random.Random, begin: str, end: str) -> str | bytes:
    kind = chance.randrange(9)
    if kind == 0:
        return begin
    if kind == 1:
        return end
    if kind == 2:
        return json.dumps({"type": chance.choice(TYPES), chance.choice(KEYS): _value(chance)})
    if kind == 3:
        return json.dumps({chance.choice(KEYS): _value(chance)})
    if kind == 4:  # JSON that is none, or hardly
        text = chance.choice([begin, end, DEEP, '{"config": ' + DEEP, '{"a":1}{', "NaN", '"\\ud800"', "\0", "{" * 10])
        return text[: chance.randrange(len(text) + 1)]
    if kind == 5:
        return chance.randbytes(chance.choice([0, 1, 3, 1000, 70_000]))
    if kind == 6:
        return damaged(chance)[1][:100_000]
    if kind == 7:
        return bytes(chance.choice([2, 32_000, 2 << 20]))
    speech = pcm(CLIPS / "kathleen-0.flac")
    return speech[: 2 * chance.randrange(len(speech) // 2)]


async def _socket(chance: random.Random, server: Attacked) -> bool:
    """One conversation of a few messages; most clients vanish at its end, and some read to the server's."""
    realtime = (REALTIME, '{"type": "session.update", "session": {"type": "transcription"}}', "{}")
    protocols = [*((each.path, each.begin, each.end) for each in (VOSK, DEMO, DEEPGRAM)), realtime]
    path, begin, end = chance.choice(protocols)
    if chance.random() < 0.2:
        path += chance.choice(["?", "&"]) + chance.choice(
            ["encoding=x", "sample_rate=nan", "language=%00", "a=%ff", "x" * 500]
        )
    with suppress(websockets.WebSocketException, OSError, EOFError):
        async with connect(server.url(path, "ws")) as client:
            if chance.random() < 0.7:
                await client.send(begin)
            for _ in range(chance.randrange(8)):
                await client.send(_message(chance, begin, end))
            leaving = chance.randrange(4)
            if leaving == 0:
                client.transport.abort()
            elif leaving == 1:
                await client.close(chance.choice([1000, 1001, 1011, 4999]), "\u20ac" * 30)
            elif leaving == 2:
                await client.send(end)
                async for _ in client:
                    pass
            return True
    return False


# ---- HTTP -----------------------------------------------------------------------------------------------------


async def _sent(port: int, data: bytes, chance: random.Random) -> bytes:
    """What comes back for these bytes, sent at once or in pieces; some clients leave without reading."""
    answer = b""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        pieces = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0, 0, 1, 3])))
        with suppress(OSError):
            for first, last in zip([0, *pieces], [*pieces, len(data)], strict=True):
                writer.write(data[first:last])
                await writer.drain()
            if chance.random() < 0.3:
                writer.transport.abort()
            else:
                if chance.random() < 0.5 and writer.can_write_eof():
                    writer.write_eof()
                with suppress(asyncio.TimeoutError, TimeoutError):  # it may wait for the rest, for ten seconds
                    answer = await asyncio.wait_for(reader.read(1000), 1.0)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return answer


async def _raw(chance: random.Random, server: Attacked) -> bool:
    """A request by hand, with whatever may be wrong with it."""
    method, path = chance.choice(METHODS), chance.choice(PATHS)
    host = chance.choice([f"127.0.0.1:{server.port}"] * 5 + ["evil.example", "", "\x80", "a" * 3000])
    bodies = [b"", b"{}", DEEP.encode(), chance.randbytes(300), json.dumps(_value(chance)).encode()]
    gradio = {"data": [_value(chance)], "fn_index": chance.randrange(3), "session_hash": "x", chance.choice(KEYS): 1}
    body = chance.choice([*bodies, b'{"data": [NaN, -1e999]}', json.dumps(gradio).encode()])
    lengths = [f"Content-Length: {len(body)}"] * 4
    lengths += [f"Content-Length: {n}" for n in (-1, 10**20, 9 << 20, "x")] + ["Transfer-Encoding: chunked"]
    headers = [f"Host: {host}", chance.choice(lengths), "Content-Type: application/json"]
    extras = [
        "Origin: null", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Upgrade: websocket",
        "Connection: Upgrade", "Expect: 100-continue", "Authorization: Bearer \xe9", "Cookie: " + "a=b;" * 2000,
        "Range: bytes=0-,1-", "X: \x00", "Content-Length: 3", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x",
    ]  # fmt: skip
    headers += chance.sample(extras, chance.choice([0, 0, 1, 2, 4]))
    lines = [f"{method} {path} HTTP/{chance.choice(['1.1', '1.1', '1.0', '9.9', ''])}", *headers, "", ""]
    data = "\r\n".join(lines).encode("utf-8") + body
    if chance.random() < 0.2:
        data = chance.randbytes(chance.randrange(1, 3000))
    return b" 200 " in (await _sent(server.port, data, chance))[:20]


async def _upload(chance: random.Random, server: Attacked) -> bool:
    """A hostile recording, with hostile fields."""
    name, recording = damaged(chance)
    name = chance.choice([name, "\x1b[31m", "../" * 50, "a" * 5000, '"\r\nX: y', ""])
    fields = {"model": "en-small"}
    for key in chance.sample(
        ["model", "language", "prompt", "response_format", "temperature", "stream", "include[]"], 2
    ):
        if chance.random() < 0.5:
            fields[key] = chance.choice(["", "x" * 5000, "nan", "\0", "json", "srt", "true", "rill, " * 500, "en"])
    query = "&".join(chance.sample(QUERIES, chance.randrange(4)))
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        with suppress(httpx.TransportError, UnicodeError):
            if chance.random() < 0.3:
                answer = await client.post(server.url(f"/v1/listen?{query}"), content=recording)
            else:
                files = {chance.choice(["file", "file", "f"]): (name, recording)}
                answer = await client.post(server.url(TRANSCRIPTIONS), data=fields, files=files)
            if answer.status_code >= 500 and answer.status_code != 503:
                server.figures.note("wrong", f"{name}, {fields}: {answer.status_code} {answer.text[:500]}")
            return answer.status_code == 200
    return False


# ---- Wyoming --------------------------------------------------------------------------------------------------


async def _wyoming(chance: random.Random, server: Attacked) -> bool:
    """Events of Home Assistant's protocol, some with lies about what follows."""
    data = b""
    for _ in range(chance.randrange(1, 6)):
        kind = chance.choice(["describe", "transcribe", "audio-start", "audio-chunk", "audio-stop", "ping", "x"])
        about: object = chance.choice([{"rate": 16_000, "width": 2, "channels": 1}, _value(chance)])
        payload = chance.randbytes(chance.choice([0, 2, 3, 3200]))
        event = {"type": kind, "data": about, "payload_length": chance.choice([len(payload)] * 4 + [-1, 10**12, "x"])}
        data += json.dumps(event).encode() + b"\n" + payload
    if chance.random() < 0.2:
        data = chance.choice([DEEP.encode(), b"\n" * 1000, chance.randbytes(500), b"{" + b"a" * 100_000])
    return bool(await _sent(server.wyoming, data, chance))
