"""A server on a free port of this computer, on a thread of the test, and what Vosk's own client does."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import soundfile
import websockets
from prometheus_client.parser import text_string_to_metric_families

from asr.inference.recognizer import Recognizer
from asr.server.application import MountDemo, create_app
from asr.server.options import ServeOptions
from asr.server.process import Server, listen
from asr.server.service import Service

RATE = 16_000
PATIENCE = 120  # seconds after which a test gives up; computers that test are busy
connect = partial(websockets.connect, compression=None, open_timeout=PATIENCE)


@dataclass
class Running:
    port: int
    service: Service
    server: Server

    def url(self, path: str = "", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def shut_down(self) -> None:
        """As SIGTERM does."""
        self.server.loop.call_soon_threadsafe(self.server.shut_down)


@contextmanager
def running(
    recognizer: Recognizer,
    options: ServeOptions | None = None,
    tokens: tuple[bytes, ...] = (),
    mount_demo: MountDemo | None = None,
    wyoming: socket.socket | None = None,
) -> Iterator[Running]:
    options = options or ServeOptions()
    with closing(listen("127.0.0.1", 0)) as listener:
        service = Service(recognizer, options, max_model_delay=PATIENCE)
        server = Server(create_app(service, tokens, mount_demo), service, options, lambda: None, wyoming)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until(lambda: server.started)
        here = Running(listener.getsockname()[1], service, server)
        yield here
        if thread.is_alive():
            here.shut_down()
            thread.join(PATIENCE)
        assert not thread.is_alive()


def numbers(server: Running) -> dict[str, float]:
    """All that /metrics says, by name and labels."""
    families = text_string_to_metric_families(httpx.get(server.url("/metrics"), timeout=PATIENCE).text)
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true: Callable[[], bool]) -> None:
    """Waits for it."""
    last = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < last
        time.sleep(0.01)


def pcm(path: Path) -> bytes:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return samples.tobytes()


def silence(seconds: float, rate: int = RATE) -> bytes:
    return bytes(2 * round(seconds * rate))


async def vosk(
    url: str, audio: bytes, block: int = 8000, config: object = None, headers: dict[str, str] | None = None
) -> list[dict]:
    """Vosk's test client: config, then a message and its answer in turn, then eof and its answer; all the answers."""
    answers = []
    async with connect(url, additional_headers=headers) as client:
        await client.send(json.dumps({"config": {"sample_rate": 16000.0} if config is None else config}))
        for first in range(0, len(audio), block):
            await client.send(audio[first : first + block])
            answers.append(json.loads(await asyncio.wait_for(client.recv(), PATIENCE)))
        await client.send('{"eof" : 1}')
        answers.append(json.loads(await asyncio.wait_for(client.recv(), PATIENCE)))
        assert await rest(client) == [] and client.close_code == 1000
    return answers


async def rest(client: websockets.ClientConnection) -> list[dict]:
    """All messages until the server closes, whyever it does."""
    messages = []
    with suppress(websockets.ConnectionClosed):
        while True:
            messages.append(json.loads(await asyncio.wait_for(client.recv(), PATIENCE)))
    return messages


def said(answers: list[dict]) -> list[str]:
    """The finals among Vosk's answers."""
    return [answer["text"] for answer in answers if answer.get("text")]


def closed(url: str, *messages: str | bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Send these, read whatever comes, and return how the server closed: code and reason."""

    async def talk() -> tuple[int, str]:
        async with connect(url, additional_headers=headers) as client:
            with suppress(websockets.ConnectionClosed):
                for message in messages:
                    await client.send(message)
            await rest(client)
            return client.close_code, client.close_reason

    return asyncio.run(talk())
