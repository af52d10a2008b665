"""`asr demo`: live captions, recordings and a look inside the network, in the browser."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from asr.cli.options import AllowHosts, Certificate, CertificateKey, Checkpoint, Engine, EngineName, Int8
from asr.cli.output import complain
from asr.cli.signals import stopping
from asr.errors import RillError


def demo(
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other computers in; browsers then want https.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    checkpoint: Checkpoint = None,
    engine: Engine = EngineName.auto,
    int8: Int8 = False,
    share: Annotated[
        bool, typer.Option("--share", help="Also at a public https address, through Gradio's servers.")
    ] = False,
    allow_host: AllowHosts = None,
    ssl_certfile: Certificate = None,
    ssl_keyfile: CertificateKey = None,
) -> None:
    """Recognize speech in the browser: live from the microphone, and recordings. Ctrl-C ends."""
    if bool(ssl_keyfile) != bool(ssl_certfile):
        raise RillError("--ssl-certfile and --ssl-keyfile go together: give both, or neither.")
    from asr.server.listening import listen

    listen(host, port).close()  # says that it is taken before anything is loaded, which takes seconds
    from asr.inference.recognizer import load
    from asr.model.checkpoint import find

    find(checkpoint)  # a missing one is said at once
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, checkpoint, device="cpu", engine=engine.value, int8=int8)
        from asr.demo import hosting  # and with it Gradio, which takes longer than a recognizer

    from starlette.middleware import Middleware

    from asr.server.origins import OriginMiddleware

    page = hosting.serve(
        loading.result(),
        host,
        port,
        share=share,
        ssl_keyfile=str(ssl_keyfile) if ssl_keyfile else None,
        ssl_certfile=str(ssl_certfile) if ssl_certfile else None,
        middleware=[Middleware(OriginMiddleware, hosts=["*"] if share else [*(allow_host or ()), host])],
    )
    scheme = "https" if ssl_certfile else "http"
    shared = f", for everybody {page.share_url}" if page.share_url else ""
    with stopping() as stop:
        print(f"Rill's demo: {scheme}://{host}:{port}{shared}. Ctrl-C ends.", flush=True)
        if share and not page.share_url:
            complain("Gradio's servers gave no public address: the page is on this computer alone; try again later.")
        stop.wait()
    page.close(verbose=False)
