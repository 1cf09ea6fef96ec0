"""The API on a socket: uvicorn, and what it leaves to whoever runs it: clients that are slow or too many.

Reads   requests, as they arrive
Writes  answers, as fast as they are read
Never   waits for ever: a head, a body and the reading of an answer each have their time; what uvicorn
        answers by itself is a problem too (RFC 9457)
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import h11
import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from schemas.api import Problem
from schemas.errors import Halt
from service.middleware import MAX_HEAD_BYTES
from service.problems import MEDIA_TYPE
from service.settings import ServiceSettings

#: Longer than the minute for which load balancers and clients usually keep an idle connection: whoever closes
#: first must be the client, or its next request meets a reset.
KEEP_ALIVE_SECONDS = 75


class PatientProtocol(H11Protocol):
    """uvicorn's own, with an end to its patience. `limits` is set by `patient`."""

    limits: ServiceSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection more; if that is one too many, it is told so."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._answer(503, "Too busy", "too many connections", [(b"retry-after", b"1")])
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: nothing is waited for any more."""
        self._stop_head_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """More of a request. A head has `header_seconds` from its first byte on."""
        if self.transport.is_closing():
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_head_timer()
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()

    def on_response_complete(self) -> None:
        """An answer is written, if not yet read."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._await_reader()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._stop_write_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Idle for too long; a client that has not read its answer by now will not."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so as a problem."""
        self._stop_head_timer()
        self._answer(400, "Bad request", msg)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            seconds = self.limits.header_seconds
            self._answer(408, "Too slow", f"the head did not arrive within {seconds:g} seconds")
        else:
            self.transport.close()

    def _await_reader(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _answer(
        self, status: int, title: str, detail: str, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Answer without the application, and close."""
        body = orjson.dumps(Problem(title=title, status=status, detail=detail).model_dump())
        head = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *(headers or []),
        ]
        try:
            parts = [
                self.conn.send(h11.Response(status_code=status, headers=head)),
                self.conn.send(h11.Data(data=body)),
                self.conn.send(h11.EndOfMessage()),
            ]
        except h11.LocalProtocolError:
            parts = []  # in the middle of an answer: there is nothing to say
        self.transport.write(b"".join(part for part in parts if part is not None))
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._await_reader()


def patient(limits: ServiceSettings) -> type[PatientProtocol]:
    """The protocol with these limits."""
    return type("Patient", (PatientProtocol,), {"limits": limits})


class _Ending(uvicorn.Server):
    """Says when it begins to end: streams that would go on for ever have to be told."""

    ending: Callable[[], None]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then wait for what is in hand."""
        await asyncio.to_thread(self.ending)
        await super().shutdown(sockets)


class Service:
    """The query API on a thread. `limits` are those of the settings; host and port those given.

    `ending` is called once when it begins to end, by `stop` or by a signal.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        limits: ServiceSettings | None = None,
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        limits = limits or ServiceSettings()
        self._socket = bound(host, port)
        self.address = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            http=patient(limits),
            ws="none",
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # Who is answered then is cut off: a client that does not read must not keep a stack from ending.
            timeout_graceful_shutdown=int(limits.write_seconds) + 1,
        )
        self._server = _Ending(config)
        self._server.ending = ending

    def run(self) -> None:
        """Serve until `stop`."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Finish the requests in hand, then end `run`."""
        self._server.should_exit = True


def bound(host: str, port: int) -> socket.socket:
    """A listening socket of our own, so that a taken port is a sentence and not a log line. Raises Halt."""
    # The protocol is named because asyncio turns Nagle's algorithm off only where it sees it: without, every
    # request but the first of a connection waits 40 ms for the last bytes of its answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Halt(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port"
        ) from error
    return listener
