"""An S3 server that has bad days: what stands between a client and a server on loopback."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Proxy:
    """Passes requests on; refuses a share of them with 503, and goes away once for a while.

    Args:
        server: `host:port` of the server behind it.
        refused: The share of requests that it refuses.
        seed: Of which.
    """

    def __init__(self, server: str, refused: float, seed: int) -> None:
        self.num_requests, self.num_refused, self.num_away = 0, 0, 0
        self.outage: tuple[float, float] | None = None
        self._after, self._seconds = None, 0.0
        self._server, self._refused, self._random = server, refused, random.Random(seed)
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.address = f"127.0.0.1:{self._http.server_port}"

    _after: int | None

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def goes_away(self, after: int, seconds: float) -> None:
        """Let it close every connection without an answer for some seconds after so many requests."""
        self._after, self._seconds = after, seconds

    def verdict(self) -> str:
        """Return what becomes of the next request: `passed`, `refused` or `away`."""
        with self._lock:
            now = time.monotonic()
            self.num_requests += 1
            if self._after is not None and self.num_requests > self._after and self.outage is None:
                self.outage = (now, now + self._seconds)
            if self.outage is not None and now < self.outage[1]:
                self.num_away += 1
                return "away"
            if self._random.random() < self._refused:
                self.num_refused += 1
                return "refused"
            return "passed"

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[Any], bytes]:
        """Return status, headers and body that the server behind answers with."""
        connection = http.client.HTTPConnection(self._server, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client has gone
            self.close_connection = True

    def do(self) -> None:
        body = self._body()
        verdict = self.proxy.verdict()
        if verdict == "away":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, answer = 503, [("Content-Type", "application/xml")], _SLOW_DOWN
        if verdict == "passed":
            hops = {"connection", "transfer-encoding", "expect", "content-length"}
            sent = {name: value for name, value in self.headers.items() if name.lower() not in hops}
            status, headers, answer = self.proxy.ask(self.command, self.path, sent, body)
        self.send_response_only(status)
        length = str(len(answer))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)


_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
