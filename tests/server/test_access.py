"""Tokens, without a server around."""

import pytest
from starlette.datastructures import Headers

from asr.server import access
from asr.server.access import AccessMiddleware
from asr.server.metrics import Metrics
from asr.server.options import ServiceOptions
from tests.support.clock import Loop, step

TOKEN = b"a secret of sixteen"


def test_wrong_tokens_are_counted_logged_and_slowed_down(caplog):
    loop, metrics, sent = Loop(), Metrics(), []

    async def app(scope, receive, send):
        sent.append("handed on")

    async def send(message):
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    middleware = AccessMiddleware(app, ServiceOptions(), [TOKEN], metrics)

    def ask(authorization: bytes | None):
        headers = [] if authorization is None else [(b"authorization", authorization)]
        scope = {"type": "http", "path": "/v1/models", "headers": headers, "client": ("10.0.0.1", 1)}
        return loop.create_task(middleware(scope, None, send))

    async def whole():
        tasks = [ask(b"Bearer " + TOKEN), ask(None)]
        await step()
        assert sent == ["handed on", 401]  # at once: nobody has tried a token
        tasks += [ask(b"Bearer wrong"), ask(b"Basic wrong")]
        await step()
        assert len(sent) == 2
        await loop.advance(access.WRONG_TOKEN_DELAY_S)
        assert sent[2:] == [401, 401]
        for task in tasks:
            await task

    loop.run_until_complete(whole())
    loop.close()
    assert metrics.registry.get_sample_value("rill_refused_total", {"reason": "token"}) == 2
    (said,) = (record.message for record in caplog.records)
    assert said == "1 requests with a wrong token, the last one from 10.0.0.1."


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("authorization", "Bearer " + TOKEN.decode(), True),
        ("authorization", "Token " + TOKEN.decode(), True),
        ("sec-websocket-protocol", "realtime, openai-insecure-api-key." + TOKEN.decode(), True),
        ("sec-websocket-protocol", "token, " + TOKEN.decode(), True),
        ("authorization", "Basic " + TOKEN.decode(), False),
        ("sec-websocket-protocol", TOKEN.decode(), False),
        ("sec-websocket-protocol", "token", False),
        ("cookie", TOKEN.decode(), False),
    ],
)
def test_every_protocols_own_way_to_send_a_token(name, value, expected):
    middleware = AccessMiddleware(None, ServiceOptions(), [TOKEN], Metrics())
    problem = middleware._problem("websocket", Headers({name: value}))
    assert (problem is None) == expected
