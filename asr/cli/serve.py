"""`asr serve`: live speech and recordings over the network."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from asr.cli.options import (
    AllowHosts,
    Certificate,
    CertificateKey,
    Checkpoint,
    Device,
    DeviceOption,
    Engine,
    EngineName,
    Hotwords,
    LatencyOption,
    NoLM,
    Plain,
    parse_latency,
)


def serve(
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other computers in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 2700,
    latency: LatencyOption = "balanced",
    no_lm: NoLM = False,
    hotword: Hotwords = None,
    plain: Plain = False,
    checkpoint: Checkpoint = None,
    device: DeviceOption = Device.auto,
    engine: Engine = EngineName.auto,
    int8: Annotated[
        bool | None,
        typer.Option(
            "--int8/--no-int8",
            help="8-bit weights: half the work, as accurate. The default where ONNX Runtime computes LSTMs on the CPU.",
        ),
    ] = None,
    sample_rate: Annotated[
        float,
        typer.Option(
            min=1000,
            max=768_000,
            metavar="HZ",
            help="Of Vosk's clients that do not say theirs; 8000 as in Vosk's server.",
        ),
    ] = 8000,
    max_sessions: Annotated[int, typer.Option(min=1, metavar="N", help="Live sessions at the same time.")] = 64,
    max_uploads: Annotated[int, typer.Option(min=1, metavar="N", help="Recordings at the same time.")] = 4,
    max_message: Annotated[int, typer.Option(min=1, metavar="KIB", help="Size of a WebSocket message.")] = 1024,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MIB", help="Size of a request.")] = 100,
    max_minutes: Annotated[float, typer.Option(min=0.1, help="Length of a session, and of a recording.")] = 240,
    idle: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="A session ends when its client has sent nothing for so long."),
    ] = 60,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Bearer tokens, one a line: every request must have one. No demo then."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Other computers may use the server without a token.")
    ] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Web pages that may use the server, such as https://example.org; * is all. May be "
            "given several times.",
        ),
    ] = None,
    allow_host: AllowHosts = None,
    wyoming: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT", help="Also speak Home Assistant's protocol there, such as tcp://0.0.0.0:10300."
        ),
    ] = None,
    ssl_certfile: Certificate = None,
    ssl_keyfile: CertificateKey = None,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Without the page at /demo.")] = False,
) -> None:
    """Serve many clients at once: the protocols of Vosk, OpenAI, Deepgram and Home Assistant, the browser demo.

    On SIGTERM or Ctrl-C the server finalizes and delivers open utterances, then exits.
    """
    chosen = parse_latency(latency, live=True)
    from asr.server.listening import listen

    with closing(listen(host, port)) as listener:  # says what is wrong before anything is loaded, which takes seconds
        from asr.inference.recognizer import load
        from asr.model.hardware import cores
        from asr.server.options import ServeOptions
        from asr.server.process import run_server

        options = ServeOptions(
            host=host,
            port=port,
            sessions=max_sessions,
            uploads=max_uploads,
            max_message=max_message,
            max_upload=max_upload,
            max_minutes=max_minutes,
            idle=idle,
            sample_rate=sample_rate,
            token_file=token_file,
            no_token=no_token,
            cors=tuple(cors or ()),
            allow_host=tuple(allow_host or ()),
            wyoming=wyoming,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
        )
        run_server(
            lambda: load(
                checkpoint,
                latency=chosen,
                hotwords=hotword or (),
                lm=not no_lm,
                device=device.value,
                engine=engine.value,
                int8=int8,
                threads=max(1, cores() // 2),
                punctuate=not plain,
            ),
            options,
            listener,
            partial(print, flush=True),
            None if no_demo or token_file else mount_demo,
        )


def mount_demo(*arguments: Any, **options: Any) -> None:
    """As `hosting.mount`, which loads Gradio, for seconds, only when it is called."""
    from asr.demo import hosting

    hosting.mount(*arguments, **options)
