"""What an operator chooses: how much the service bears, who may use it, where it listens.

`ServiceOptions` hold wherever the service runs. `ServeOptions` add what one process needs (`asr serve`), and
`cluster.ClusterOptions` what replicas on a cluster need.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

PORT = 2700  # the port of Vosk's server
SAMPLE_RATE_HZ = 8000.0  # that Vosk's server assumes


class ServiceOptions(BaseModel, frozen=True, extra="forbid"):
    """The service refuses whatever exceeds these limits, with a sentence that names the limit."""

    sessions: int = Field(64, ge=1)  # live sessions at the same time
    uploads: int = Field(4, ge=1)  # recordings at the same time
    max_message: int = Field(1024, ge=1)  # KiB of one WebSocket message
    max_upload: int = Field(100, ge=1)  # MiB of one request
    max_minutes: float = Field(240, gt=0)  # of a session, and of a recording
    idle: float = Field(60, gt=0)  # seconds for which a client may send nothing, or leave an answer unread
    sample_rate: float = Field(SAMPLE_RATE_HZ, ge=1000, le=768_000)  # Hz, of Vosk's clients that do not say theirs
    token_file: Path | None = None  # bearer tokens, one a line
    allow_host: tuple[str, ...] = ()  # names by which clients reach the service, beside localhost and IP addresses
    cors: tuple[str, ...] = ()  # origins of web pages on other sites that may use the service; "*" is all

    @property
    def message_bytes(self) -> int:
        return self.max_message << 10

    @property
    def upload_bytes(self) -> int:
        return self.max_upload << 20

    @property
    def session_s(self) -> float:
        return 60 * self.max_minutes


class ServeOptions(ServiceOptions, frozen=True, extra="forbid"):
    """Of `asr serve`, one process."""

    host: str = "127.0.0.1"
    port: int = PORT  # 0 takes a free one
    no_token: bool = False  # whether clients of other computers may come without one
    wyoming: str | None = None  # tcp://HOST:PORT, where Home Assistant's protocol is spoken
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
