"""Odd JSON does not come to Gradio; everything else comes whole."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from asr.demo.json_bodies import MAX_JSON_BYTES, JSONMiddleware


@pytest.fixture(scope="module")
def client() -> TestClient:
    async def echo(request):
        return Response(await request.body())

    return TestClient(Starlette(routes=[Route("/", echo, methods=["POST"])], middleware=[Middleware(JSONMiddleware)]))


@pytest.mark.parametrize(
    "body, status",
    [
        (b'{"data": ["\\u00e4", "\\ud83d\\ude00"]}', 200),
        (b"", 200),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"data": ["\\ud800"]}', 400),
        (b'{"\\udfff": 1}', 400),
        (b"\xff", 400),
        (b'{"data": [NaN]}', 400),
        (b'{"data": [-1e999]}', 400),
        (b'"' + b"a" * MAX_JSON_BYTES + b'"', 413),
    ],
)
def test_json_is_checked(client, body, status):
    answer = client.post("/", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status_code == status
    if status == 200:
        assert answer.content == body


def test_other_bodies_are_handed_on(client):
    body = b"[" * 2 * MAX_JSON_BYTES
    assert client.post("/", content=body, headers={"Content-Type": "text/plain"}).content == body
