"""Which names and pages the server knows, without a server around."""

import asyncio

import pytest

from asr.server.origins import OriginMiddleware

SELF = "http://localhost:2700"


def status(kind: str, *, method: str = "GET", path: str = "/v1/models", hosts=(), origins=(), **headers: str) -> int:
    """200 where the middleware hands the request on, else the status of its answer; 403 for a socket that it closes."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    scope = {
        "type": kind,
        "path": path,
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    if kind == "http":
        scope["method"] = method
    else:
        scope["extensions"] = {"websocket.http.response": {}}
    asyncio.run(OriginMiddleware(app, hosts, origins)(scope, receive, send))
    if sent[0]["type"] == "websocket.accept":
        assert sent[1]["code"] == 1008 and len(sent[1]["reason"].encode()) <= 123
        return 403
    return sent[0]["status"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host, expected",
    [
        ("localhost", 200),
        ("LOCALHOST:2700", 200),
        ("127.0.0.1:2700", 200),
        ("[::1]:2700", 200),
        ("10.1.2.3:80", 200),
        ("demo.localhost", 200),
        ("asr.lan:2700", 200),
        ("asr.lan.", 200),
        ("evil.example:2700", 403),
        ("localhost.evil.example", 403),
        ("asr.lan.evil.example", 403),
        ("127.0.0.1.nip.io", 403),
        ("[::1", 403),
        ("xlocalhost", 403),
    ],
)
def test_only_known_names_reach_the_server(kind, host, expected):
    assert status(kind, host=host, hosts=("asr.lan",)) == expected
    assert status(kind, host=host, hosts=("*",)) == 200
    assert status(kind, path="/health", host=host) == 200


@pytest.mark.parametrize("kind, method", [("websocket", ""), ("http", "POST"), ("http", "DELETE")])
def test_pages_of_other_sites_are_refused(kind, method):
    def of(**headers: str) -> int:
        return status(kind, method=method, host="localhost:2700", origins=("https://example.org",), **headers)

    assert of() == of(origin=SELF) == of(origin="https://example.org", sec_fetch_site="cross-site") == 200
    assert of(origin="https://evil.example") == of(origin="null") == of(origin="http://localhost:3000") == 403
    assert of(sec_fetch_site="cross-site") == 403
    assert of(sec_fetch_site="same-origin", origin=SELF) == of(sec_fetch_site="none") == 200
    assert status(kind, method=method, host="", origin="null") == 403
    assert status(kind, method=method, host="", origin="http://") == 403
    assert status(kind, method=method, host="localhost", origin="https://evil.example", origins=("*",)) == 200


def test_pages_of_other_sites_may_link_to_it():
    assert status("http", host="localhost", origin="https://evil.example", sec_fetch_site="cross-site") == 200


def test_a_page_and_the_log_are_told_which_origin_and_which_option(caplog):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    headers = [(b"host", b"localhost:2700"), (b"origin", b"http://localhost:3000")]
    scope = {"type": "websocket", "path": "/ws", "headers": headers}
    asyncio.run(OriginMiddleware(None)(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    (said,) = (record.message for record in caplog.records)
    assert sent[1]["reason"] == said and "http://localhost:3000" in said and "--cors" in said
