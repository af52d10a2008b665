"""What Ray itself costs: handing out recordings (Ray Data), and passing on live sound (Ray Serve). No model runs.

    python benchmarks/cluster.py [--haproxy]

On a cluster of this computer alone. Recordings: empty ones, from the first answer to the last. Sound: messages of
0.1 s, each answered, as Vosk's clients send them; at first one client, for the delay, then many as fast as they go, for
what proxy and replica pass on with a core's worth of processor time. The same without Ray is beside it. --haproxy:
Serve's other proxy, which RAY_SERVE_ENABLE_HA_PROXY=1 chooses.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.inference import archive
from asr.inference.files import Options

BLOCK = bytes(3200)  # 0.1 s
SECONDS = 5.0  # of passing on
CLIENTS = 32
TICKS = os.sysconf("SC_CLK_TCK")


class Idle(archive.Worker):
    """Has nothing to do."""

    def __init__(self, options: Options, formats: tuple[str, ...], attempts: object) -> None:
        self.attempts = attempts

    def transcribe(self, source: str) -> archive.Answer:
        return archive.Answer(source)


def hand_out(count: int) -> float:
    """Recordings a second."""
    import ray

    with ray.init("local", log_to_driver=False):
        answers = archive.hand_out(Idle, [f"/{number}.wav" for number in range(count)], Options(), ("txt",), None)
        next(answers)
        begin = time.perf_counter()
        return sum(1 for _ in answers) / (time.perf_counter() - begin)


async def answer(connection: WebSocket) -> None:
    await connection.accept()
    try:
        while True:
            await connection.receive_bytes()
            await connection.send_text('{"partial": "there was nothing on the"}')
    except WebSocketDisconnect:
        pass


def application() -> Starlette:
    return Starlette(routes=[WebSocketRoute("/", answer)])


async def talk(url: str, until: float) -> list[float]:
    """Seconds from each message to its answer."""
    delays = []
    async with websockets.connect(url, compression=None) as connection:
        while time.perf_counter() < until:
            begin = time.perf_counter()
            await connection.send(BLOCK)
            await connection.recv()
            delays.append(time.perf_counter() - begin)
    return delays


async def crowd(url: str, clients: int) -> list[float]:
    until = time.perf_counter() + SECONDS
    return [delay for delays in await asyncio.gather(*(talk(url, until) for _ in range(clients))) for delay in delays]


def busy(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def process(title: bytes) -> int:
    """Of the process whose command line has this in it."""
    return next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if title in path.read_bytes() and path.parent.stat().st_uid == os.getuid()
    )


def report(name: str, url: str, pids: list[int]) -> None:
    alone = asyncio.run(crowd(url, 1))
    before = [busy(pid) for pid in pids]
    together = asyncio.run(crowd(url, CLIENTS))
    rates = [f"{len(together) / (busy(pid) - start):.0f}" for pid, start in zip(pids, before, strict=True)]
    print(
        f"| {name} | {1e3 * np.median(alone):.1f} ms | {len(together) / SECONDS:.0f} | {' | '.join(rates)} |",
        flush=True,
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def pass_on(proxy: bytes) -> None:
    import ray
    from ray import serve

    print(
        "| | delay | messages a second | by a core of the proxy | by a core of the replica |\n"
        "| --- | ---: | ---: | ---: | ---: |"
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application(), port=port, log_level="error", ws="websockets-sansio"))
    threading.Thread(target=server.run, daemon=True).start()
    time.sleep(2)
    report("Uvicorn, in the clients' process", f"ws://127.0.0.1:{port}/", [os.getpid()] * 2)
    server.should_exit = True
    port = free_port()
    with ray.init("local", log_to_driver=False):
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        deployment = serve.deployment(max_ongoing_requests=2 * CLIENTS)(serve.ingress(application)())
        serve.run(deployment.bind())
        report("Ray Serve", f"ws://127.0.0.1:{port}/", [process(proxy), process(b"ray::ServeReplica")])
        serve.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--haproxy", action="store_true")
    args = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = str(int(args.haproxy))
    if args.recordings:
        print(f"Ray Data hands out {hand_out(args.recordings):.0f} recordings a second.\n", flush=True)
    pass_on(b"/bin/haproxy" if args.haproxy else b"ray::ProxyActor")


if __name__ == "__main__":
    main()
