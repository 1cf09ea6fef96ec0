"""An encoder in a process of its own, behind the same calls.

Reads   a model's folder, in the child
Writes  the same metrics as an encoder in this process: the child tells what it has done
Never   outlives its parent, nor hides that it has ended

A forward pass needs the interpreter's lock, in torch a hundred times, and consumers and requests hold it most
of the time, so in one process each waits for the other. Here the child has its lock to itself, and the parent
does not even import what computes. Messages are tuples over one socket pair; texts go there, bytes of float32
come back.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from adapters.child import ended, parent_connection, start_child
from adapters.process_memory import unwatch_memory, watch_memory
from model.effort import count_effort
from model.settings import ModelSettings, UnusableModel
from schemas.errors import Transient
from schemas.releases import EncoderConfig

if TYPE_CHECKING:
    from model.encoder import TextEncoder

#: Texts of this many calls are tokenised and encoded side by side: live ones, bulk ones and queries.
CALLS_AT_ONCE = 8
#: The child finishes its batches and ends by itself when its connection closes.
STOP_SECONDS = 10.0


class EncoderProcess:
    """Implements `schemas.vectors.Encoder`. Thread-safe. Make one with `load`, end it with `close`."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, dimension: int) -> None:
        self._process = process
        self._connection = connection
        self._dimension = dimension
        self._sending = threading.Lock()
        self._waiting: dict[int, Future[bytes]] = {}
        self._numbers = count()
        self._ended = False
        watch_memory("encoder", process.pid)
        self._reader = threading.Thread(target=self._read, name="encoder-process", daemon=True)
        self._reader.start()

    @classmethod
    def load(
        cls, folder: Path, config: EncoderConfig, settings: ModelSettings, *, nice: int = 0
    ) -> EncoderProcess:
        """Start the child and let it load the model in `folder`; as `TextEncoder.load`, and its errors.

        `nice` lowers the child's priority for good, by so much at most, for work that nobody waits for.
        """
        ours, theirs = socket.socketpair()
        process = start_child(__name__, theirs)
        connection = Connection(ours.detach())
        try:
            level = logging.getLogger().getEffectiveLevel()
            connection.send((str(folder), config, settings, level, nice))
            while True:
                kind, *content = connection.recv()
                if kind == "ready":
                    return cls(process, connection, *content)
                if kind == "failed":
                    raise cast(Exception, content[0])
                _heard(kind, content)
        except (EOFError, OSError) as error:
            connection.close()
            raise UnusableModel(
                f"the encoder's process ended while loading {folder} ({_how(process)}); the log says why, "
                "or memory was short"
            ) from error
        except BaseException:
            connection.close()
            ended(process, STOP_SECONDS)
            raise

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._dimension

    @property
    def alive(self) -> bool:
        """Whether the child answers. False from the moment on when its end was seen; it never comes back."""
        return not self._ended

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        """`encode_array` as plain lists of floats."""
        vectors: list[list[float]] = self.encode_array(texts, query=query, background=background).tolist()
        return vectors

    def encode_array(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> NDArray[np.float32]:
        """As `TextEncoder.encode_array`. Raises Transient when the child has ended."""
        promise: Future[bytes] = Future()
        number = next(self._numbers)
        self._waiting[number] = promise
        try:
            with self._sending:
                self._connection.send((number, list(texts), query, background))
        except OSError:
            self._fail_waiting()
        if self._ended:
            self._fail_waiting()
        found = np.frombuffer(promise.result(), dtype=np.float32)
        return found.reshape(len(texts), self._dimension)

    def close(self) -> None:
        """Let the child finish what it has in hand, and wait until it has ended. Again is harmless."""
        try:
            with self._sending:
                self._connection.send(None)
        except OSError:
            pass  # it has ended already
        ended(self._process, STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        unwatch_memory("encoder", self._process.pid)
        with self._sending:  # whoever sends to a descriptor that was closed may meet somebody else's
            self._connection.close()

    def _read(self) -> None:
        try:
            while True:
                kind, *content = self._connection.recv()
                if kind == "vectors":
                    number, vectors = content
                    self._waiting.pop(number).set_result(vectors)
                elif kind == "refused":
                    number, error = content
                    self._waiting.pop(number).set_exception(error)
                else:
                    _heard(kind, content)
        except (EOFError, OSError):
            pass
        finally:
            self._ended = True
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        while True:
            try:
                _, promise = self._waiting.popitem()
            except KeyError:
                return
            promise.set_exception(Transient(f"the encoder's process has ended ({_how(self._process)})"))


def _heard(kind: str, content: Sequence[Any]) -> None:
    """What the child says of itself: what it has done, and its log."""
    if kind == "effort":
        count_effort(*content)
    elif kind == "log":
        name, level, message, arguments = content
        logging.getLogger(name).log(level, message, *arguments)
    else:
        raise RuntimeError(f"the encoder's process said {kind!r}: parent and child are of different versions")


def _how(process: subprocess.Popen[bytes]) -> str:
    """How it ended, in words."""
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "it did not answer, and was killed"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


# --- the child ---------------------------------------------------------------------------------------


class _Telling(logging.Handler):
    """Sends log records to the parent, which has somewhere to put them."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        # Event and fields apart, as they were given; what cannot travel, as text.
        message, given = record.msg, record.args or ()
        if not isinstance(message, str) or not isinstance(given, tuple):
            message, given = record.getMessage(), ()
        arguments = tuple(
            one if one is None or isinstance(one, str | int | float) else str(one) for one in given
        )
        self._tell("log", record.name, record.levelno, message, arguments)


def serve(connection: Connection) -> None:
    """Load what the parent names, then answer it until it says that it is enough, or has gone."""
    telling = threading.Lock()

    def tell(*message: Any) -> None:
        with telling:
            connection.send(message)

    folder, config, settings, level, nice = connection.recv()
    if nice and sys.platform != "win32":
        os.nice(nice - os.nice(0))
    logging.basicConfig(level=level, handlers=[_Telling(tell)])
    try:
        # Here and not above: the parent imports this module and does without what computes.
        from model.encoder import TextEncoder

        encoder = TextEncoder.load(
            Path(folder), config, settings, counts=lambda effort: tell("effort", effort)
        )
    except Exception as error:  # noqa: BLE001  the parent raises it
        tell("failed", error)
        return
    tell("ready", encoder.dimension)
    with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="call") as calls:
        while (message := connection.recv()) is not None:
            calls.submit(_answer, encoder, tell, *message)
    encoder.close()


def _answer(
    encoder: TextEncoder,
    tell: Callable[..., None],
    number: int,
    texts: Sequence[str],
    query: bool,
    background: bool,
) -> None:
    try:
        vectors = encoder.encode_array(texts, query=query, background=background)
    except Exception as error:  # noqa: BLE001  the caller's to handle
        tell("refused", number, error)
    else:
        tell("vectors", number, vectors.tobytes())


if __name__ == "__main__":
    try:
        serve(parent_connection())
    except (EOFError, OSError):
        os._exit(1)  # the parent has gone, and nobody waits for what is in hand
