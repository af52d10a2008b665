"""An object store on a free port of this computer: as much of S3's API as Arrow's file system asks for, read only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@contextmanager
def store(objects: dict[str, bytes]) -> Iterator[str]:
    """Serves these objects, named bucket/key, at the address that it gives."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            name = unquote(url.path).strip("/")
            if name in objects:
                self.answer(*self.part(objects[name]))
            elif "/" in name or not any(key.startswith(f"{name}/") for key in objects):
                self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>there is none</Message></Error>", "")
            else:
                query = parse_qs(url.query)
                self.answer(200, listing(name, query.get("prefix", [""])[0], query.get("delimiter", [""])[0]), "")

        def part(self, data: bytes) -> tuple[int, bytes, str]:
            first, last = 0, len(data) - 1
            if asked := self.headers.get("Range"):
                first, last = (int(each) for each in asked.removeprefix("bytes=").split("-"))
            return 206 if asked else 200, data[first : last + 1], f"bytes {first}-{last}/{len(data)}"

        def answer(self, status: int, body: bytes, range: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", formatdate(0, usegmt=True))
            if range and status == 206:
                self.send_header("Content-Range", range)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    def listing(bucket: str, prefix: str, delimiter: str) -> bytes:
        files, folders = [], set()
        for name in sorted(objects):
            of, _, key = name.partition("/")
            if of == bucket and key.startswith(prefix):
                inner, separator, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                if separator:
                    folders.add(prefix + inner + delimiter)
                else:
                    files.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[name])}</Size>"
                        f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                    )
        below = [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)]
        return (
            f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{len(files) + len(below)}</KeyCount>"
            f"{''.join(files + below)}</ListBucketResult>"
        ).encode()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
