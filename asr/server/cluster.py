"""The service on a cluster: `serve run asr.cluster:app` (Ray Serve, https://docs.ray.io/en/latest/serve/).

    clients ──► load balancer ──► Serve's proxy on each machine ──► replicas, each all that `asr serve` is

A replica is one process with one model, many live sessions and a few cores. A socket stays on the replica that accepted
it. When sessions fill the replicas, Serve starts new ones. When sessions have ended, it stops some: these accept no new
client, and go on until their last session has ended. Options come from the environment (RILL_SESSIONS=64) or behind the
name:

    serve run asr.cluster:app sessions=64 max_replicas=16         (in a config for `serve deploy`: `args:`)
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import Field, ValidationError, field_validator
from starlette import status
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.errors import RillError
from asr.model.latency import Latency
from asr.server import application
from asr.server.access import read_tokens
from asr.server.options import ServiceOptions
from asr.server.process import SWITCH_INTERVAL_S
from asr.server.service import SHUTDOWN_GRACE_S, Service, SessionClosed

if TYPE_CHECKING:
    from ray.serve import Application

MAX_UNREAD_MESSAGES = 16  # of the largest size, that a socket may send before they are read
LOOK_BACK_S = 20.0  # whose mean number of requests counts; longer than the 10 s between Serve's counts
UPSCALE_DELAY_S, DOWNSCALE_DELAY_S = 5.0, 300.0  # of too many, or too few requests, before replicas change
DRAIN_INTERVAL_S = 1.0  # from one check whether a stopping replica is empty to the next
PREFIX = "RILL_"  # of environment variables; an option's name in capitals follows


class ClusterOptions(ServiceOptions, frozen=True, extra="forbid"):
    """Of the application. Those of a replica are as for `asr serve`, which explains them."""

    sessions: int = Field(40, ge=1)  # that a replica takes at the same time, with recordings and other requests
    uploads: int = Field(2, ge=1)  # recordings among them
    max_minutes: float = Field(60, gt=0)  # of a session; a replica that stops may need so long
    idle: float = Field(60, ge=1)
    allow_host: tuple[str, ...] = ("*",)  # a load balancer has any name
    checkpoint: str | None = None  # a folder on each machine; all files must be there
    latency: str = "balanced"
    lm: bool = True
    hotwords: tuple[str, ...] = ()  # several with commas between
    device: str = "auto"  # cuda: each replica has a GPU
    engine: str = "auto"
    int8: bool | None = None
    cores: int = Field(2, ge=1)  # of each replica
    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(64, ge=1)
    fill: float = Field(0.7, gt=0, le=1)  # share of `sessions` in use at which the number of replicas is right

    @field_validator("hotwords", "cors", "allow_host", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("latency")
    @classmethod
    def _live(cls, value: str) -> str:
        Latency.parse_live(value)
        return value


def read_options(args: dict[str, Any]) -> ClusterOptions:
    """The given options, else the environment's, else the defaults. Raises RillError."""
    environment = {
        name: os.environ[PREFIX + name.upper()]
        for name in ClusterOptions.model_fields
        if PREFIX + name.upper() in os.environ
    }
    try:
        return ClusterOptions(**{**environment, **args})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise RillError(
            f"The setting '{name}' cannot be used ({first['msg']}): the settings are "
            f"{', '.join(ClusterOptions.model_fields)}."
        ) from error


def app(args: dict[str, Any]) -> Application:
    """What `serve run` and `serve deploy` start. Raises RillError."""
    from ray import serve

    options = read_options(args)

    def build() -> FastAPI:  # on the replica
        return create_app(options)

    deployment = serve.deployment(
        name="rill",
        ray_actor_options={"num_cpus": options.cores, "num_gpus": int(options.device == "cuda")},
        # Serve finds a replica with room, so that a client is refused only where no replica has any.
        max_ongoing_requests=options.sessions,
        max_queued_requests=options.sessions,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.fill * options.sessions,
            "look_back_period_s": LOOK_BACK_S,
            "upscale_delay_s": UPSCALE_DELAY_S,
            "downscale_delay_s": DOWNSCALE_DELAY_S,
        },
        # A replica that stops waits for its sessions, whose length is limited, so that they lose nothing.
        graceful_shutdown_wait_loop_s=DRAIN_INTERVAL_S,
        graceful_shutdown_timeout_s=options.session_s + SHUTDOWN_GRACE_S,
    )
    return deployment(serve.ingress(build)()).bind()


def create_app(options: ClusterOptions) -> FastAPI:
    """A replica's application: `application.create_app`, with the limits that Uvicorn enforces for `asr serve`. It has
    no demo: the page makes many requests, which would go to different replicas."""
    from asr.inference.recognizer import load
    from asr.model.hardware import set_threads

    set_threads(1)  # as in `process.run_server`
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    recognizer = load(
        options.checkpoint,
        latency=options.latency,
        hotwords=options.hotwords,
        lm=options.lm,
        device=options.device,
        engine=options.engine,
        int8=options.int8,
        threads=max(1, options.cores // 2),
    )
    service = Service(recognizer, options, threads=options.cores)
    app = application.create_app(service, read_tokens(options.token_file))
    app.add_middleware(InboxMiddleware, options=options)
    return app


class InboxMiddleware:
    """Bounds what a socket sends before the service reads it: Serve's proxy reads as fast as the client sends."""

    def __init__(self, app: ASGIApp, options: ServiceOptions) -> None:
        self.app, self.options = app, options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        max_message = self.options.message_bytes
        messages: asyncio.Queue[Message] = asyncio.Queue()
        problem: SessionClosed | None = None
        unread = 0  # bytes

        async def fill() -> None:
            nonlocal problem, unread
            message: Message = {"type": ""}
            while message["type"] != "websocket.disconnect" and not problem:
                message = await receive()
                size = _size(message)
                unread += size
                if size > max_message:
                    problem = SessionClosed(
                        status.WS_1009_MESSAGE_TOO_BIG, f"A message may have {self.options.max_message} KiB at most."
                    )
                elif unread > MAX_UNREAD_MESSAGES * max_message:
                    problem = SessionClosed(
                        status.WS_1008_POLICY_VIOLATION, "Too much audio waits: send no more until it is answered."
                    )
                messages.put_nowait(message)

        async def receive_next() -> Message:
            nonlocal unread
            message = await messages.get()
            unread -= _size(message)
            if problem:
                raise problem
            return message

        filling = asyncio.create_task(fill())
        try:
            await self.app(scope, receive_next, send)
        finally:
            filling.cancel()
            with suppress(asyncio.CancelledError):
                await filling


def _size(message: Message) -> int:
    return len(message.get("bytes") or message.get("text") or "")
