"""An owner that sleeps through its session and wakes up with a write in hand.

Reads   what tests/support/chaos.py reads
Writes  product events
Never   leaves it to luck that the late write is late: a proxy holds it until the newer one is done
"""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from app.children import HOST
from tests.support.chaos import Catalogue, Difference, World
from tests.support.consumer_process import NO_TICKET
from tests.support.draining import SESSION_TIMEOUT_SECONDS

_CHUNK_BYTES = 1 << 16


class HoldingProxy:
    """Stands between one process and the index server; once armed, it keeps the next write of points."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname or HOST, urlsplit(url).port or 80)
        self._listener = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = [self._listener]
        self._armed = threading.Event()
        self._awaited = (b"", b"")
        self._free = threading.Event()
        #: Set while a write is being kept.
        self.holding = threading.Event()
        #: Set once what was kept has been answered by the server.
        self.answered = threading.Event()

    @property
    def url(self) -> str:
        """What the process is told the index is."""
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def arm(self, *, whole: bool) -> None:
        """The next write of whole points, or else of payloads alone, will be kept until `release`."""
        self._awaited = (b"PUT ", b"/points?") if whole else (b"POST ", b"/points/batch")
        for event in (self.holding, self.answered, self._free):
            event.clear()
        self._armed.set()

    def release(self) -> None:
        """Let it through, and everything from now on."""
        self._armed.clear()
        self._free.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        for one in self._open:
            # a thread that waits in accept or recv wakes up from a shutdown, not from a close
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._upstream, args=(client,), daemon=True).start()

    def _upstream(self, client: socket.socket) -> None:
        held = threading.Event()
        try:
            server = self._connected(client, held, answers_late=False)
            while chunk := client.recv(_CHUNK_BYTES):
                head = chunk.split(b"\r\n", 1)[0]
                method, path = self._awaited
                if self._armed.is_set() and head.startswith(method) and path in head:
                    # All of it: its sender is stopped as soon as we say that we hold it.
                    chunk = _whole_request(client, chunk)
                    held.set()
                    self.holding.set()
                    self._free.wait()
                    # meanwhile the server has cut what it took for an idle connection
                    server = self._connected(client, threading.Event(), answers_late=True)
                server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _connected(
        self, client: socket.socket, held: threading.Event, *, answers_late: bool
    ) -> socket.socket:
        server = socket.create_connection(self._target)
        self._open.append(server)
        arguments = (client, server, held, answers_late)
        threading.Thread(target=self._downstream, args=arguments, daemon=True).start()
        return server

    def _downstream(
        self, client: socket.socket, server: socket.socket, held: threading.Event, answers_late: bool
    ) -> None:
        try:
            while chunk := server.recv(_CHUNK_BYTES):
                client.sendall(chunk)
                if answers_late:
                    self.answered.set()
            if not held.is_set():
                client.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _whole_request(client: socket.socket, begun: bytes) -> bytes:
    """The request whose head and perhaps more this is, with all of its body."""
    head = begun.partition(b"\r\n\r\n")[0]
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.M)
    assert length is not None, head
    while len(begun) < len(head) + 4 + int(length[1]):
        more = client.recv(_CHUNK_BYTES)
        if not more:
            raise ConnectionError("the client hung up in the middle of a request")
        begun += more
    return begun


@dataclass(frozen=True, slots=True)
class Pauses:
    """What was exercised, and what was left."""

    #: Pauses longer than the session timeout that found records in hand, and whose partitions moved.
    pauses: int
    #: Writes that reached the index after newer ones of the same items.
    late_writes: int
    redelivered: int
    difference: Difference

    def __str__(self) -> str:
        return (
            f"{self.pauses} pauses with records in hand, {self.late_writes} writes held until a newer one "
            f"was done, {self.redelivered} records redelivered; {self.difference}"
        )


def late_write(
    world: World, *, seed: int, items: int, rounds: int = 1, guarded: bool = True, whole: bool = False
) -> Pauses:
    """Each round: an owner's write is held, the owner stopped; another takes over and writes newer prices;
    then the held write reaches the index and its owner wakes up. `guarded` False: nobody uses tickets.

    What is held is a write of payloads alone; of `whole` points, whose texts changed, in every second round,
    or in all of them.
    """
    catalogue = Catalogue(seed, items)
    fault = [] if guarded else ["--fault", NO_TICKET]
    pauses = 0
    with HoldingProxy(world.server.url) as proxy:
        products = world.consumer("products", "--commit-delay-seconds", "0")
        sleeper = world.consumer("embeddings", *fault, index_url=proxy.url)
        products.wait_assigned()
        sleeper.wait_assigned()
        world.publish(catalogue.first())
        world.drain()
        for number in range(rounds):
            texts = whole or number % 2 == 1
            proxy.arm(whole=texts)
            world.publish(catalogue.again(text=texts))
            assert proxy.holding.wait(20.0), "the owner wrote nothing"
            sleeper.pause()
            in_hand = world.in_flight(sleeper)
            world.publish(catalogue.again(text=texts))
            other = world.consumer("embeddings", *fault)
            other.wait_assigned()  # the group waits for the sleeper's session to end
            world.drain()
            assert world.compare(catalogue).nothing, "the other owner has not written what is newest"
            proxy.release()
            assert proxy.answered.wait(20.0), "the late write did not arrive"
            sleeper.resume()
            sleeper.wait_said("partitions_revoked")
            pauses += 1 if in_hand else 0
            other.stop()
        world.drain()
    return Pauses(pauses, rounds, world.redelivered()[0], world.compare(catalogue))


def random_pauses(world: World, *, seed: int, items: int, rounds: int) -> Pauses:
    """Under load, one of two processes of a kind sleeps for longer than its session, at a random moment."""
    draw, catalogue = Random(seed), Catalogue(seed, items)
    kinds = {
        "products": [world.consumer("products") for _ in range(2)],
        "embeddings": [world.consumer("embeddings", "--encode-seconds", "0.3") for _ in range(2)],
    }
    for process in world.processes:
        process.wait_assigned()
    pauses = number = 0
    while pauses < rounds:
        assert number < 3 * rounds, f"too few pauses find records in hand: {pauses} of {number}"
        victim = draw.choice(kinds["products" if number % 3 == 2 else "embeddings"])
        seconds = SESSION_TIMEOUT_SECONDS + 3.0
        load = world.publishing(catalogue.events(3_000), seconds=seconds, count=3_000)
        time.sleep(draw.uniform(0.3, 2.0))
        revoked = victim.said().count("partitions_revoked")
        victim.pause()
        in_hand = world.in_flight(victim)
        time.sleep(seconds)
        victim.resume()
        load.join()
        deadline = time.monotonic() + 20.0
        while victim.said().count("partitions_revoked") == revoked and time.monotonic() < deadline:
            time.sleep(0.1)
        pauses += 1 if in_hand and victim.said().count("partitions_revoked") > revoked else 0
        number += 1
        time.sleep(SESSION_TIMEOUT_SECONDS / 2)  # the group settles: the next pause finds two members
    world.drain(120.0)
    return Pauses(pauses, 0, world.redelivered()[0], world.compare(catalogue))
