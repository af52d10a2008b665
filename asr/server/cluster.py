"""The service on a cluster: `serve run asr.cluster:app` (Ray Serve, https://docs.ray.io/en/latest/serve/).

    clients ──► load balancer ──► Serve's proxy on each machine ──► replicas, each all that `asr serve` is

A replica is one process with one model, many speakers and a few cores. A socket stays on the replica that took it.
When speakers fill the replicas, new ones are started; when they have gone, some are stopped: those get nobody new, and
go on until their last speaker has left. Settings come from the environment (RILL_SESSIONS=64) or behind the name:

    serve run asr.cluster:app sessions=64 max_replicas=16         (in a config for `serve deploy`: `args:`)
"""
from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel, Field, ValidationError, field_validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.errors import RillError
from asr.model.latency import Latency
from asr.server import application
from asr.server.access import read_tokens
from asr.server.service import GRACE, POLICY, Leave, Limits, Service

if TYPE_CHECKING:
    from ray.serve import Application

TOO_LARGE = 1009  # close code: RFC 6455, section 7.4
UNREAD = 16  # messages of the largest size that may wait to be recognised: Serve's proxy holds nobody up
LOOK_BACK = 20.0  # seconds whose mean number of speakers counts; more than the 10 s between Serve's counts
UPSCALE_DELAY, DOWNSCALE_DELAY = 5.0, 300.0  # seconds of too many, or too few, until the number of replicas changes
DRAIN_CHECK = 1.0  # seconds between looks at whether a replica that is to stop has become empty
VARIABLE = "RILL_"  # + a setting's name in capitals


class Settings(BaseModel, extra="forbid"):
    """Of the application. What a replica bears is as for `asr serve`, where the same names are explained."""

    checkpoint: str | None = None  # on each machine, as are all files
    latency: str = "balanced"
    lm: bool = True
    hotwords: tuple[str, ...] = ()  # several with commas between
    device: str = "auto"  # cuda: each replica has a GPU
    engine: str = "auto"
    int8: bool | None = None
    cores: int = Field(2, ge=1)  # of each replica
    sessions: int = Field(40, ge=1)  # what a replica takes at the same time: speakers, recordings and other requests
    uploads: int = Field(2, ge=1)  # recordings among them
    max_message: int = Field(1024, ge=1)  # KiB
    max_upload: int = Field(100, ge=1)  # MiB
    max_minutes: float = Field(60, gt=0)  # of a session; so long may a replica live that is to stop
    idle: float = Field(60, ge=1)  # seconds
    token_file: Path | None = None
    cors: tuple[str, ...] = ()  # several with commas between
    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(64, ge=1)
    fill: float = Field(0.7, gt=0, le=1)  # share of `sessions` in use to which replicas are added and removed

    @field_validator("hotwords", "cors", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("latency")
    @classmethod
    def _live(cls, value: str) -> str:
        if not Latency.parse(value).live:
            raise ValueError("live speech cannot wait for full context: choose fast, balanced, accurate or C,R")
        return value


def settings(args: dict[str, Any]) -> Settings:
    """The given ones, else the environment's, else the defaults. Raises RillError."""
    environment = {name: os.environ[VARIABLE + name.upper()] for name in Settings.model_fields
                   if VARIABLE + name.upper() in os.environ}
    try:
        return Settings(**{**environment, **args})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise RillError(f"The setting '{name}' cannot be used ({first['msg']}): the settings are "
                        f"{', '.join(Settings.model_fields)}.") from error


def app(args: dict[str, Any]) -> Application:
    """What `serve run` and `serve deploy` start. Raises RillError."""
    from ray import serve

    chosen = settings(args)

    def build() -> FastAPI:  # on the replica
        return create_app(chosen)

    deployment = serve.deployment(
        name="rill",
        ray_actor_options={"num_cpus": chosen.cores, "num_gpus": int(chosen.device == "cuda")},
        # Serve itself finds a replica with a free place, so that a client is turned away only where none has one.
        max_ongoing_requests=chosen.sessions, max_queued_requests=chosen.sessions,
        autoscaling_config={"min_replicas": chosen.min_replicas, "max_replicas": chosen.max_replicas,
                            "target_ongoing_requests": chosen.fill * chosen.sessions, "look_back_period_s": LOOK_BACK,
                            "upscale_delay_s": UPSCALE_DELAY, "downscale_delay_s": DOWNSCALE_DELAY},
        # A replica that is to stop waits for its sockets, whose length is limited: nobody's words are cut off.
        graceful_shutdown_wait_loop_s=DRAIN_CHECK, graceful_shutdown_timeout_s=60 * chosen.max_minutes + GRACE)
    return deployment(serve.ingress(build)()).bind()


def create_app(chosen: Settings) -> FastAPI:
    """A replica's application: `application.create_app`, with the limits that Uvicorn sets there. No
    demo: its page asks for many things, which would go to different replicas."""
    import torch

    from asr.inference.recognizer import load

    torch.set_num_threads(max(1, chosen.cores // 2))  # as in `application.run`
    sys.setswitchinterval(application.SWITCH_INTERVAL)
    limits = Limits(chosen.sessions, chosen.uploads, chosen.max_message << 10, chosen.max_upload << 20,
                    60 * chosen.max_minutes, chosen.idle)
    recognizer = load(chosen.checkpoint, latency=chosen.latency, hotwords=chosen.hotwords, lm=chosen.lm,
                      device=chosen.device, engine=chosen.engine, int8=chosen.int8)
    torch.set_num_threads(1)
    app = application.create_app(Service(recognizer, limits, threads=chosen.cores),
                            application.Settings(cors=chosen.cors, demo=False), read_tokens(chosen.token_file))
    app.add_middleware(Inbox, limits=limits)
    return app


class Inbox:
    """What a socket may send before it is recognised: behind Serve's proxy no client feels that others are slower."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        limits = self.limits
        messages: asyncio.Queue[Message] = asyncio.Queue()
        problem: Leave | None = None
        unread = 0  # bytes

        async def take_in() -> None:
            nonlocal problem, unread
            message: Message = {"type": ""}
            while message["type"] != "websocket.disconnect" and not problem:
                message = await receive()
                size = _size(message)
                unread += size
                if size > limits.message:
                    problem = Leave(TOO_LARGE, f"A message may have {limits.message >> 10} KiB at most.")
                elif unread > UNREAD * limits.message:
                    problem = Leave(POLICY, "Too much sound waits: send no more until it is answered.")
                messages.put_nowait(message)

        async def hand_on() -> Message:
            nonlocal unread
            message = await messages.get()
            unread -= _size(message)
            if problem:
                raise problem
            return message

        taking = asyncio.create_task(take_in())
        try:
            await self.app(scope, hand_on, send)
        finally:
            taking.cancel()
            with suppress(asyncio.CancelledError):
                await taking


def _size(message: Message) -> int:
    return len(message.get("bytes") or message.get("text") or "")
