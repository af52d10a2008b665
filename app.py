"""The browser demo: `python app.py`, then open the address it prints."""

from __future__ import annotations

import argparse
import sys

from asr.errors import RillError


def main() -> None:
    parser = argparse.ArgumentParser(description="Live speech recognition in the browser.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other computers in; browsers want https")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--checkpoint", help="folder of a checkpoint; the one that is shipped by default")
    parser.add_argument("--engine", choices=["auto", "torch", "onnx"], default="auto", help="what runs the model")
    parser.add_argument("--int8", action="store_true", help="8-bit weights: about half the work, as accurate")
    parser.add_argument("--share", action="store_true", help="also at a public https address, through Gradio's servers")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name by which browsers reach this computer, beside localhost and IP addresses",
    )
    parser.add_argument("--ssl-keyfile", metavar="PEM", help="with --ssl-certfile: serve https")
    parser.add_argument("--ssl-certfile", metavar="PEM")
    options = parser.parse_args()
    if bool(options.ssl_keyfile) != bool(options.ssl_certfile):
        parser.error("--ssl-keyfile and --ssl-certfile go together.")
    try:
        from starlette.middleware import Middleware

        from asr.demo import hosting
        from asr.inference.recognizer import load
        from asr.server.origins import OriginMiddleware

        recognizer = load(options.checkpoint, device="cpu", engine=options.engine, int8=options.int8)
        hosts = ["*"] if options.share else [*options.allow_host, options.host]
        hosting.serve(
            recognizer,
            options.host,
            options.port,
            share=options.share,
            ssl_keyfile=options.ssl_keyfile,
            ssl_certfile=options.ssl_certfile,
            middleware=[Middleware(OriginMiddleware, hosts=hosts)],
        )
    except RillError as error:
        sys.exit(f"app.py: {error}")


if __name__ == "__main__":
    main()
