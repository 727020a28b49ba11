"""A small web server for this machine only: Neuroglancer's client, and of a run's folder the files of its stores.

Neuroglancer's own server is made for sessions that Python steers; it serves no files. This one reads, and nothing else:
GET and HEAD, from 127.0.0.1, under no other name (a page elsewhere could give its own name this address), and of the
folder only what a finished store consists of.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from neuroglancer.static import ImportlibResourcesContentSource

from ssdenoise.errors import ConfigError, SsdenoiseError
from ssdenoise.view import pages
from ssdenoise.view.scenes import Choice, Scene, scenes_of
from ssdenoise.view.state import picture

log = logging.getLogger(__name__)

#: Names that this machine has for itself, with a port or without.
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")

#: A file of a store: the metadata of its group and of its levels, and shards.
STORE_FILE = re.compile(r"(?P<store>.+\.ome\.zarr)/(zarr\.json|\d+/zarr\.json|\d+/c(/\d+)+)")

#: Bytes of a file, as asked for: from a to b, from a on, or the last b.
RANGE = re.compile(r"bytes=(\d{,18})-(\d{,18})")

#: Neuroglancer's client takes its address apart: it has to lie under /v/NAME/, with a stream of events at /events/NAME.
CLIENT, EVENTS = "/v/ssdenoise/", "/events/ssdenoise"

#: Seconds between signs of life on the stream of events.
HEARTBEAT = 15.0

HEADERS = {
    "Content-Security-Policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' "
    "blob:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Serves what is chosen of a run; what is finished later, too.

    Parameters
    ----------
    run : Path
        The run's folder.
    choice : Choice
    port : int
        0: any that is free.

    Raises
    ------
    ConfigError
        If the port is taken.
    """

    daemon_threads = True

    def __init__(self, run: Path, choice: Choice, port: int = 0) -> None:
        self.run, self.choice = run.resolve(), choice
        self.client = ImportlibResourcesContentSource()
        self.stopping = threading.Event()
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ConfigError(
                f"--port {port} cannot be had ({error.strerror}); leave it out for any free one"
            ) from None

    @property
    def origin(self) -> str:
        """Address of the server, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def shutdown(self) -> None:
        """Stop, the streams of events too."""
        self.stopping.set()
        super().shutdown()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about pages that are closed, or that want no more of what they asked for."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def scenes(self) -> list[Scene]:
        """What there is by now."""
        return scenes_of(self.run, self.choice)

    def open(self, path: str) -> BinaryIO | None:
        """The file of a finished store in the run's folder that a decoded path names; None if it names no such."""
        match = STORE_FILE.fullmatch(path)
        if match is None or "\\" in path or "\0" in path or any(p == "" or p[0] == "." for p in path.split("/")):
            return None
        try:
            found = (self.run / path).resolve()
            inside = found.is_relative_to(self.run)  # by symbolic links it may lie elsewhere
            return found.open("rb") if inside and (self.run / match["store"] / "zarr.json").is_file() else None
        except (OSError, RuntimeError):  # not there, a folder, a name too long, a circle of links
            return None


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ssdenoise", ""

    def do_GET(self) -> None:
        """Answer a request; HEAD is the same without a body."""
        if not HOST.fullmatch(self.headers.get("Host", "")):
            return self._body(HTTPStatus.FORBIDDEN, b"This server answers to 127.0.0.1 and localhost only.", {})
        try:
            self._answer(unquote(urlsplit(self.path).path))
        except SsdenoiseError as error:
            self._text(HTTPStatus.CONFLICT, pages.refusal(error))

    do_HEAD = do_GET

    def _answer(self, path: str) -> None:
        if path == "/":
            self._text(HTTPStatus.OK, pages.index(self.server.run.name, self.server.scenes()))
        elif path.startswith("/open/"):
            self._open(path.removeprefix("/open/"))
        elif path.startswith(CLIENT):
            self._client(path.removeprefix(CLIENT))
        elif path == EVENTS:
            self._events()
        elif path == "/favicon.ico":  # the client has none, and browsers ask
            self._begin(HTTPStatus.NO_CONTENT, None, {})
        elif path.startswith("/data/") and (opened := self.server.open(path.removeprefix("/data/"))):
            with opened:
                self._file(opened)
        else:
            self._missing()

    def refuse(self) -> None:
        """Answer anything that could change something."""
        self.close_connection = True  # its body is not read
        self._begin(HTTPStatus.METHOD_NOT_ALLOWED, 0, {"Allow": "GET, HEAD", "Connection": "close"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = refuse

    def _open(self, name: str) -> None:
        """A page that opens Neuroglancer on a scene, at the zoom that fits its own window."""
        scene = next((scene for scene in self.server.scenes() if scene.name == name), None)
        if scene is None:
            return self._missing()
        host = self.headers["Host"]  # by which name, and through which forwarded port, the browser sees this server
        stores = [pane.store.relative_to(self.server.run).as_posix() for pane in scene.panes]
        shown = picture(scene, self.server.run.name, [f"http://{host}/data/{quote(store)}/" for store in stores])
        self._text(HTTPStatus.OK, pages.opening(shown, CLIENT))

    def _client(self, name: str) -> None:
        """A file of Neuroglancer's client, which takes no name with a slash."""
        try:
            content, kind = self.server.client.get(name, "")
        except ValueError:
            return self._missing()
        self._body(HTTPStatus.OK, content, {"Content-Type": kind, "Cache-Control": "no-cache"})

    def _events(self) -> None:
        """A stream without events: where it ends, Neuroglancer's client says that it lost its server."""
        self.close_connection = True
        self._begin(HTTPStatus.OK, None, {"Content-Type": "text/event-stream", "Connection": "close"})
        while self.command == "GET" and not self.server.stopping.is_set():
            self.wfile.write(b":\n\n")  # an error once the page is closed
            self.server.stopping.wait(HEARTBEAT)

    def _file(self, file: BinaryIO) -> None:
        """A file of a store, whole or the range asked for; 304 if the browser has it."""
        about = os.fstat(file.fileno())
        size, tag = about.st_size, f'"{about.st_mtime_ns:x}-{about.st_size:x}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
        headers["Content-Type"] = "application/json" if str(file.name).endswith(".json") else "application/octet-stream"
        if tag in self.headers.get("If-None-Match", ""):
            return self._begin(HTTPStatus.NOT_MODIFIED, None, headers)
        start, stop, status = 0, size, HTTPStatus.OK
        asked = self.headers.get("Range", "") if self.headers.get("If-Range", tag) == tag else ""
        match = RANGE.fullmatch(asked.strip())
        if match and any(match.groups()):  # several ranges at once, or others that no one asks for: the whole file
            start, stop = _part(match[1], match[2], size)
            if start >= stop:
                headers["Content-Range"] = f"bytes */{size}"
                return self._begin(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, headers)
            status, headers["Content-Range"] = HTTPStatus.PARTIAL_CONTENT, f"bytes {start}-{stop - 1}/{size}"
        self._begin(status, stop - start, headers)
        if self.command == "GET" and stop > start:
            self.connection.sendfile(file, start, stop - start)

    def _missing(self) -> None:
        self._body(HTTPStatus.NOT_FOUND, b"", {})

    def _text(self, status: HTTPStatus, html: str) -> None:
        self._body(status, html.encode(), {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"})

    def _body(self, status: HTTPStatus, content: bytes, headers: dict[str, str]) -> None:
        self._begin(status, len(content), headers)
        if self.command == "GET":
            self.wfile.write(content)

    def _begin(self, status: HTTPStatus, length: int | None, headers: dict[str, str]) -> None:
        """Send the status and the headers."""
        self.send_response(status)
        for name, value in (HEADERS | headers | ({} if length is None else {"Content-Length": str(length)})).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """What was asked for goes to the log, not to the terminal."""
        log.debug("%s [%s]", format % values, self.headers.get("Range", "") if hasattr(self, "headers") else "")


def _part(first: str, last: str, size: int) -> tuple[int, int]:
    """Start and stop of a range of bytes; of one that lies beyond the file, the start is not below the stop."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
