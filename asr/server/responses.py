"""How the server refuses a request, whatever refuses it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import JSONResponse

PUBLIC_PATHS = ("/health",)  # for load balancers and monitors: always answered, whoever asks
RETRY_AFTER_S = 5
MAX_REASON_BYTES = 123  # of a close frame (RFC 6455, section 5.5)


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """An error in the shape of OpenAI's API, whose clients show the message."""

    error: Error


def error_response(
    status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An `ErrorAnswer`."""
    message = message.encode(errors="replace").decode()  # a form can hold half a surrogate pair, which is no text
    kind = "server_error" if status >= 500 else "invalid_request_error"
    own = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER_S)}}.get(status, {})
    answer = ErrorAnswer(error=Error(message=message, type=kind, param=None, code=code))
    return JSONResponse(answer.model_dump(), status, {**own, **(headers or {})})


def close_reason(reason: str) -> str:
    """As much of it as fits into a WebSocket's close frame."""
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
