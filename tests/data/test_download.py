"""A file is believed by its checksum alone, kept, and its absence explained; the server is on loopback."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.data import files
from pipeline.data.files import cache_path, fetch
from pipeline.errors import DatasetError

CONTENT = b"to be or not to be\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves one text, and answers in several wrong ways."""

    def do_GET(self) -> None:
        self.server.num_requests += 1
        if self.path == "/missing":
            self.send_error(404)
        elif self.path in {"/moved", "/local"}:
            self.send_response(302)
            self.send_header("Location", "/text" if self.path == "/moved" else "file:///etc/hostname")
            self.end_headers()
        elif self.path == "/silent":
            self.server.released.wait(10)
        elif self.path == "/nonsense":
            self.wfile.write(b"nonsense\r\n\r\n")
        else:
            self.send_response(200)
            if self.path != "/unannounced":
                self.send_header("Content-Length", str(len(CONTENT) + 7 * (self.path == "/truncated")))
            self.end_headers()
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.num_requests, server.released = 0, threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def address(server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("page", ["text", "unannounced", "moved"])
def test_what_comes_is_what_was_served(address, page):
    assert fetch(f"{address}/{page}", SHA256).read_bytes() == CONTENT


def test_a_kept_file_needs_no_server(server, address):
    fetch(f"{address}/text", SHA256)
    assert [path.name for path in cache_path(SHA256).parent.iterdir()] == [SHA256]
    server.shutdown()
    server.server_close()
    assert fetch(f"{address}/text", SHA256).read_bytes() == CONTENT
    assert fetch("http://another.invalid/text", SHA256).read_bytes() == CONTENT
    assert server.num_requests == 1


def test_a_damaged_kept_file_is_fetched_again(server, address):
    fetch(f"{address}/text", SHA256)
    cache_path(SHA256).write_bytes(CONTENT[:-1])
    assert fetch(f"{address}/text", SHA256).read_bytes() == CONTENT == cache_path(SHA256).read_bytes()
    assert server.num_requests == 2


def test_another_file_than_expected_is_not_kept(address):
    other = "0" * 64
    with pytest.raises(DatasetError, match=f"/text: expected a file with sha256 {other}, got one with {SHA256}"):
        fetch(f"{address}/text", other)
    assert not cache_path(other).exists()


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("missing", "/missing: the server answers 404 Not Found"),
        ("local", "/local: the server answers 302 .*file:///etc/hostname.* not allowed"),
        ("truncated", f"/truncated: broke off after {len(CONTENT)} of {len(CONTENT) + 7} bytes; try again"),
        ("nonsense", r"/nonsense: cannot be downloaded \(nonsense"),
    ],
)
def test_a_server_that_does_not_deliver(address, page, message):
    with pytest.raises(DatasetError, match=message):
        fetch(f"{address}/{page}", SHA256)
    assert not cache_path(SHA256).exists()


def test_a_server_that_says_nothing(address, monkeypatch):
    monkeypatch.setattr(files, "TIMEOUT_S", 0.1)
    with pytest.raises(DatasetError, match=r"/silent: cannot be downloaded \(timed out\)"):
        fetch(f"{address}/silent", SHA256)


def test_a_file_that_is_too_large(address, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", len(CONTENT))
    assert fetch(f"{address}/text", SHA256).read_bytes() == CONTENT
    cache_path(SHA256).unlink()
    monkeypatch.setattr(files, "MAX_BYTES", len(CONTENT) - 1)
    with pytest.raises(DatasetError, match=f"/text: more than {len(CONTENT) - 1} bytes, the most that is downloaded"):
        fetch(f"{address}/text", SHA256)


def test_nobody_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    message = rf":{port}/text: cannot be downloaded \(.*refused\); or put the file at {cache_path(SHA256)}"
    with pytest.raises(DatasetError, match=message):
        fetch(f"http://127.0.0.1:{port}/text", SHA256)


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:port/", "http://127.0.0.1/a b"])
def test_an_address_that_is_none(url, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DatasetError, match="cannot be downloaded"):
        fetch(url, SHA256)


def test_a_cache_that_cannot_be_written(address, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=f"{SHA256}: cannot be written: Not a directory; set XDG_CACHE_HOME"):
        fetch(f"{address}/text", SHA256)


def test_where_files_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path(SHA256) == tmp_path / "gradient-dynamics" / SHA256
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_path(SHA256) == Path.home() / ".cache" / "gradient-dynamics" / SHA256
