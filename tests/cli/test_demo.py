"""`asr demo`: one line that says where the page is, and an end in order."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import Asr
from tests.support.serving import PATIENCE, free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.parametrize("how", [(signal.SIGINT, ["app.py"]), (signal.SIGTERM, ["-m", "asr.cli", "demo"])])
def test_it_says_where_it_is_and_ends_in_order(tmp_path: Path, how: tuple[int, list[str]]) -> None:
    number, command = how
    port = free_port()
    with subprocess.Popen(
        [sys.executable, *command, "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"GRADIO_TEMP_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line == f"Rill's demo: http://127.0.0.1:{port}. Ctrl-C ends.\n"
        page = httpx.get(f"http://127.0.0.1:{port}", timeout=PATIENCE)
        assert page.status_code == 200 and "Rill" in page.text
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE) == ("", "")  # Gradio says nothing of its own
    assert process.returncode == 0 and not list(tmp_path.glob("rill-demo-*"))


def test_what_is_missing_is_one_sentence(asr: Asr) -> None:
    code, _, said = asr("demo", "--checkpoint", "nowhere")
    assert code == 1 and said.startswith("asr: There is no checkpoint 'nowhere'")
    code, _, said = asr("demo", "--ssl-certfile", "cert.pem")
    assert code == 1 and said == "asr: --ssl-certfile and --ssl-keyfile go together: give both, or neither.\n"


def test_a_port_in_use_is_said_before_anything_is_loaded(asr: Asr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.inference.recognizer.load", lambda *_, **__: pytest.fail("loaded"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, said = asr("demo", "--port", port)
    assert code == 1 and re.match(rf"asr: Port {port}.*--port", said)
