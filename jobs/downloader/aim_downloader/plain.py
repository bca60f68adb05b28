"""Reads bytes of files over plain HTTP/1.1, in threads and into buffers that are used again.

The clients of S3 and of the hub pass each byte through the event loop and copy it several times.
Here a thread receives straight into a buffer. The interpreter is free meanwhile, as it is while a
digest or a write takes the buffer.

A reader takes only the exact answer: status, length, range, encoding, and what the source itself
compares. Everything else is `NotPlain`: an error, a redirect, a broken connection. The caller then
asks the source's full client, and that answer counts. So no dialect of a store is known here.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_CONNECT_S = 10.0
_SMALL_BYTES = 64 * 1024
"""Bodies up to here are read through http.client's buffer."""
_USELESS_AFTER = 3
"""Answers in a row that were not plain, after which plain requests stop."""

Headers = Mapping[str, str]
"""Headers of a response, names in lower case."""


class NotPlain(Exception):
    """The answer is not the one that was requested, or there is none."""


@dataclass(frozen=True)
class PlainRequest:
    """A GET of bytes `start` to `end` (exclusive) of a file of `size_bytes`. `headers` include
    Range if they are not the whole file. `is_right` compares the headers of the response.
    `note_other` gets status and headers of any other answer."""

    url: str
    headers: Mapping[str, str]
    start: int
    end: int
    size_bytes: int
    is_right: Callable[[Headers], bool]
    note_other: Callable[[int, Headers], None] = lambda *_: None


@dataclass
class Call:
    """A read that can be stopped from another thread. It then ends with NotPlain."""

    _connection: http.client.HTTPConnection | None = None
    _stopped: bool = False

    def stop(self) -> None:
        self._stopped = True
        handle = self._connection.sock if self._connection else None
        if handle:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def begin(self, connection: http.client.HTTPConnection) -> None:
        """Raises NotPlain if it was stopped."""
        self._connection = connection
        if self._stopped:
            raise NotPlain


@dataclass
class PlainReader:
    """Connections that are kept open, by server. Methods may be called from any thread. Raises
    NotPlain if no byte arrives for `stall_s`."""

    tls: ssl.SSLContext
    stall_s: float
    _idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _unexpected: int = 0

    @property
    def is_useful(self) -> bool:
        """Whether the servers have answered as requested lately."""
        return self._unexpected < _USELESS_AFTER

    @contextmanager
    def open(self, request: PlainRequest, call: Call) -> Iterator[tuple[Headers, PlainBody]]:
        """The headers and the body of the exact answer. The connection is kept if the whole body
        was read."""
        try:
            connection, answer = self._answer(request, call)
        except (OSError, http.client.HTTPException, NotPlain) as error:
            self._unexpected += 1
            raise NotPlain from error
        try:
            body = PlainBody(answer, connection.sock)
            yield _headers(answer), body
        except BaseException as error:
            connection.close()
            self._unexpected += isinstance(error, NotPlain)
            raise
        self._unexpected = 0
        answer.close()
        if not body.left_bytes and not answer.will_close:
            self._keep(request.url, connection)
        else:
            connection.close()

    def close(self) -> None:
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def _answer(
        self, request: PlainRequest, call: Call
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A kept connection may have been closed by the server: then a new one is used."""
        while True:
            connection, is_new = self._connection(request.url)
            try:
                call.begin(connection)
                answer = _send(connection, request)
            except (OSError, http.client.HTTPException, NotPlain):
                connection.close()
                if is_new or call._stopped:
                    raise
                continue
            if not _is_exact(answer, request) or not request.is_right(_headers(answer)):
                connection.close()
                request.note_other(answer.status, _headers(answer))
                raise NotPlain
            return connection, answer

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, bool]:
        parts = urlsplit(url)
        with self._lock:
            if idle := self._idle.get((parts.scheme, parts.netloc)):
                return idle.pop(), False
        host = parts.hostname or ""
        if parts.scheme == "https":
            https = http.client.HTTPSConnection(
                host, parts.port, timeout=_CONNECT_S, context=self.tls
            )
            https.connect()
            https.sock.settimeout(self.stall_s)
            return https, True
        plain = http.client.HTTPConnection(host, parts.port, timeout=_CONNECT_S)
        plain.connect()
        plain.sock.settimeout(None)  # with a timeout, no call waits for a full buffer
        whole_s = int(self.stall_s)
        timeout = struct.pack("ll", whole_s, int((self.stall_s - whole_s) * 1e6))
        plain.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        return plain, True

    def _keep(self, url: str, connection: http.client.HTTPConnection) -> None:
        parts = urlsplit(url)
        with self._lock:
            self._idle.setdefault((parts.scheme, parts.netloc), []).append(connection)


class PlainBody:
    """The body of an exact answer."""

    def __init__(self, answer: http.client.HTTPResponse, connection: socket.socket) -> None:
        self._answer = answer
        self._socket = connection
        self.left_bytes = answer.length or 0
        self._is_small = self.left_bytes <= _SMALL_BYTES
        self._has_begun = False

    def fill(self, buffer: memoryview) -> None:
        """Receive until the buffer is full. Raises NotPlain if the body ends before."""
        filled = 0
        while filled < len(buffer):
            try:
                received = self._receive(buffer[filled:])
            except (OSError, http.client.HTTPException) as error:
                raise NotPlain from error
            if not received:
                raise NotPlain
            filled += received
            self.left_bytes -= received

    def _receive(self, buffer: memoryview) -> int:
        """First what came with the headers, then straight from the socket. The kernel fills the
        buffer of a plain one before it returns: each return waits for the interpreter's lock."""
        if self._is_small:
            return self._answer.readinto(buffer)
        if not self._has_begun:
            self._has_begun = True
            head = self._answer.fp.read1(min(io.DEFAULT_BUFFER_SIZE, len(buffer)))
            buffer[: len(head)] = head
            return len(head)
        flags = 0 if isinstance(self._socket, ssl.SSLSocket) else socket.MSG_WAITALL
        return self._socket.recv_into(buffer, 0, flags)


def has_proxy(url: str) -> bool:
    """Whether the environment names a proxy for the URL. Plain requests know none."""
    parts = urlsplit(url)
    return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")


def _send(
    connection: http.client.HTTPConnection, request: PlainRequest
) -> http.client.HTTPResponse:
    parts = urlsplit(request.url)
    connection.putrequest(
        "GET",
        f"{parts.path}?{parts.query}" if parts.query else parts.path,
        skip_accept_encoding=True,
    )
    for name, value in request.headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def _headers(answer: http.client.HTTPResponse) -> Headers:
    return {name.lower(): value for name, value in answer.headers.items()}


def _is_exact(answer: http.client.HTTPResponse, request: PlainRequest) -> bool:
    """Whether the response has exactly the requested bytes, and its length before them."""
    length = request.end - request.start
    if answer.length != length or answer.chunked:
        return False
    if (answer.headers.get("Content-Encoding") or "identity").lower() != "identity":
        return False
    if answer.status == 200:
        return length == request.size_bytes
    expected = f"bytes {request.start}-{request.end - 1}/{request.size_bytes}"
    return answer.status == 206 and answer.headers.get("Content-Range") == expected
