"""Where the demo's page runs: `serve` on its own, `mount` as part of a server; with its theme, icon and guards.

The live tab's audio has a route of its own (`live`); style and script of the page are in `static/`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import FileResponse
from starlette.routing import Route

from asr.demo.json_bodies import JSONMiddleware
from asr.demo.limits import Limits, StorageMiddleware, upload_folder
from asr.demo.live import OpenSlot, routes
from asr.demo.page import NO_LIMITS, STATIC, build
from asr.errors import RillError
from asr.inference.recognizer import Recognizer
from asr.model.hardware import set_threads

ICON = STATIC / "icon.svg"
SANS = ("Inter", "ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def serve(
    recognizer: Recognizer,
    host: str,
    port: int,
    *,
    share: bool = False,
    ssl_keyfile: str | None = None,
    ssl_certfile: str | None = None,
    middleware: Sequence[Middleware] = (),
) -> gr.Blocks:
    """Run the page until it is `close()`d, with `middleware` around it; `local_url` is its address, and `share_url` the
    public one, None where Gradio's servers cannot be reached.

    Raises RillError where host, port or certificate cannot be used.
    """
    set_threads(1)  # several sessions share the cores better than several threads share one session
    for name in (ssl_keyfile, ssl_certfile):
        if name and not Path(name).is_file():
            raise RillError(f"There is no file '{name}': give --ssl-keyfile and --ssl-certfile a PEM file each.")
    page = build(recognizer)
    middleware = [*middleware, *_guards(NO_LIMITS)]
    try:
        with redirect_stdout(io.StringIO()):  # what it says of public addresses, quiet or not
            page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                share=share,
                ssl_keyfile=ssl_keyfile,
                ssl_certfile=ssl_certfile,
                ssl_verify=False,
                quiet=True,
                favicon_path=ICON,
                max_file_size=NO_LIMITS.max_upload_bytes,
                app_kwargs={"routes": routes(recognizer), "middleware": middleware},
                **_appearance(),
            )
    except Exception as error:  # of several kinds
        if not page.is_running:
            raise RillError(f"The page cannot start ({error}): check --host, --port and the certificate.") from error
        page.close(verbose=False)
        raise RillError(
            f"This computer cannot reach its own page at {page.local_url}: take that address out of the proxy's "
            f"settings, with NO_PROXY=localhost,127.0.0.1."
        ) from error
    return page


def mount(
    app: Starlette,
    recognizer: Recognizer,
    path: str,
    *,
    open_slot: OpenSlot,
    open_upload: Callable[[], AbstractContextManager[None]],
    files: int,
    max_seconds: float,
    max_upload_bytes: int,
) -> None:
    """Add the page to a FastAPI application; `open_slot` as in `live.routes`, the others as in `Limits`."""
    limits = Limits(files, max_seconds, max_upload_bytes, open_upload)
    page = build(recognizer, limits)
    gr.mount_gradio_app(
        app,
        page,
        path,
        show_error=False,
        run_history=False,  # type: ignore[arg-type]
        max_file_size=max_upload_bytes,
        **_appearance(),
        app_kwargs={"routes": routes(recognizer, open_slot), "middleware": _guards(limits)},
    )
    # Browsers look for a page's icon at the root of the server.
    app.router.routes.append(Route("/favicon.ico", lambda request: FileResponse(ICON)))


def theme() -> gr.themes.Base:
    """System fonts (the browser fetches nothing), grays, one accent; details are in `static/style.css`."""
    return gr.themes.Base(primary_hue="teal", neutral_hue="zinc", font=SANS, font_mono=MONO, radius_size="lg").set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#121615",
        block_background_fill="white",
        block_background_fill_dark="#1a201e",
        background_fill_primary_dark="#1a201e",
        background_fill_secondary_dark="#161b1a",
        input_background_fill="white",
        input_background_fill_dark="#161b1a",
        input_border_width="1px",
        border_color_primary="#e2e4e0",
        border_color_primary_dark="#2c3431",
        block_border_width="1px",
        body_text_color="#1d2322",
        body_text_color_dark="#e6ebe9",
        body_text_color_subdued="#6b7472",
        body_text_color_subdued_dark="#8f9a97",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        color_accent="#0f766e",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="#e2e4e0",
        checkbox_label_border_color_dark="#2c3431",
        checkbox_label_background_fill_selected="#0f766e1a",
        checkbox_label_background_fill_selected_dark="#4fd1c022",
        checkbox_background_color_selected="#0f766e",
        checkbox_background_color_selected_dark="#4fd1c0",
        checkbox_border_color_selected="#0f766e",
        checkbox_label_padding="0.4rem 0.75rem",
    )


def _guards(limits: Limits) -> list[Middleware]:
    return [Middleware(StorageMiddleware, upload_folder(), limits.max_upload_bytes), Middleware(JSONMiddleware)]


def _appearance() -> dict[str, Any]:
    return {
        "theme": theme(),
        "css_paths": STATIC / "style.css",
        "ssr_mode": False,
        "footer_links": [],
        "head": f"<script>{(STATIC / 'live.js').read_text(encoding='utf-8')}</script>",
    }
