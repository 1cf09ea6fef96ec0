"""The API under strain: thousands of calls made from its document; many clients at once, two of them slow.

Reads   nothing but the synthetic shop
Writes  an embedded stack in a folder that goes away

1. Calls with data that the OpenAPI document allows and data that it does not; every answer has to be one that
   the document promises, and none a 5xx.
2. So many clients, each asking for the neighbours of random items as soon as it has its answer, over a
   connection of its own. Beside them one that sends a byte a second and one that reads a byte a second. The
   stack's own process is watched for its memory.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from adapters.kafka import Publisher
from benchmarks.harness import Figure, Report, percentile
from benchmarks.stack import RunningStack, Updates, embedded_stack, import_catalogue
from producers.shop import Shop
from tests.support.schema_calls import Tally, call_all

NAME = "api"
COVERED_BY = "tests/service"
SEED = 11
#: What the process allocates once, threads and buffers, is there by then.
WARM_SECONDS = 10.0


@dataclass
class Load:
    """What the clients saw."""

    milliseconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    before_bytes: int = 0
    after_bytes: int = 0


def run(*, small: bool, data: Path | None) -> Report:
    """500 items, 20 clients and some 300 calls in small; 20,000, 200 and 5,000 in full."""
    items, clients, seconds = (500, 20, 5.0) if small else (20_000, 200, 120.0)
    products = list(Shop(SEED, products=items).products())
    # Texts are cut short so that the import, which is not timed, takes minutes.
    with embedded_stack(environment={"SIMSTREAM_MODEL__MAX_LENGTH": "16"}, ready_seconds=300.0) as stack:
        publisher, updates = Publisher(stack.settings), Updates(stack)
        print(f"importing {items} items")
        import_catalogue(stack, publisher, updates, products)
        publisher.close()
        updates.close()
        ids = [product.product_id for product in products]
        print(f"{clients} clients for {seconds:g} s")
        load = asyncio.run(_load(stack, ids, clients=clients, seconds=seconds))
        print("calls from the document")
        tally = _calls(stack, at_least=300 if small else 5_000, per_operation=40 if small else 650)
    grown = (load.after_bytes - load.before_bytes) / 2**20
    for reason in load.failed[:5]:
        print(f"failed: {reason}")
    return Report(
        benchmark=NAME,
        figures=[
            Figure("calls from the document", tally.calls, "calls", 300 if small else 5_000, kind="count"),
            Figure(
                "of these answered with a 5xx", tally.count(least=500), "calls", 0, "at most", kind="count"
            ),
            Figure("of these refused", tally.count(least=400, most=499), "calls", 1, kind="count"),
            Figure("queries of concurrent clients", len(load.milliseconds), "queries", 1, kind="count"),
            Figure("of these failed", len(load.failed), "queries", 0, "at most", kind="count"),
            Figure("memory grown under them", round(grown, 1), "MiB", 64, "at most", kind="count"),
            Figure("p50", percentile(load.milliseconds, 50), "ms", note=f"{clients} at once"),
            Figure("p99", percentile(load.milliseconds, 99), "ms", note=f"{clients} at once", headline=True),
        ],
        settings={"items": items, "clients": clients, "seconds": seconds, "seed": SEED},
        data=f"synthetic shop of {items:,} products; clients, broker, Redis and service on the same cores",
    )


def _calls(stack: RunningStack, *, at_least: int, per_operation: int) -> Tally:
    """Until there were enough: what can hardly vary, health say, is called once and no more."""
    document = httpx.get(f"{stack.http}/openapi.json", timeout=30).json()
    total = Tally()
    for draw in range(1, 20):
        found = call_all(stack.http, document, per_operation=per_operation, draw=draw)
        total.statuses += found.statuses
        print(f"{total.calls} calls")
        if total.calls >= at_least:
            break
    return total


async def _load(stack: RunningStack, ids: Sequence[str], *, clients: int, seconds: float) -> Load:
    load = Load()
    parts = urlsplit(stack.http)
    host, port = parts.hostname or "", parts.port or 0
    slow = [
        asyncio.create_task(_sends_slowly(host, port)),
        asyncio.create_task(_reads_slowly(host, port, ids)),
    ]
    warm = min(WARM_SECONDS, seconds)
    await _ask_all(host, port, ids, clients, warm, Load())
    load.before_bytes = stack.resident_bytes()
    await _ask_all(host, port, ids, clients, seconds, load)
    load.after_bytes = stack.resident_bytes()
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    return load


async def _ask_all(
    host: str, port: int, ids: Sequence[str], clients: int, seconds: float, load: Load
) -> None:
    until = time.monotonic() + seconds
    await asyncio.gather(
        *(_asks(host, port, ids, random.Random(number), until, load) for number in range(clients))
    )


def _request(ids: Sequence[str], draw: random.Random) -> bytes:
    body = json.dumps({"seeds": [{"item_id": draw.choice(ids)}], "limit": 10}).encode()
    head = "POST /v1/similar HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


async def _asks(
    host: str, port: int, ids: Sequence[str], draw: random.Random, until: float, load: Load
) -> None:
    """One client: the next query as soon as the answer is there."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while time.monotonic() < until:
            started = time.perf_counter()
            writer.write(_request(ids, draw))
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            answer = await reader.readexactly(length)
            load.milliseconds.append((time.perf_counter() - started) * 1000)
            if not head.startswith(b"HTTP/1.1 200"):
                load.failed.append(answer[:200].decode(errors="replace"))
    except (OSError, asyncio.IncompleteReadError) as error:
        load.failed.append(repr(error))
    finally:
        writer.close()


async def _sends_slowly(host: str, port: int) -> None:
    """A byte a second, over and over."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            for byte in b"POST /v1/similar HTTP/1.1\r\nHost: b\r\nContent-Length: 1000\r\n\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1.0)


async def _reads_slowly(host: str, port: int, ids: Sequence[str]) -> None:
    """Asks for much again and again, and reads a byte a second."""
    draw = random.Random(SEED)
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port, limit=1024)
            while True:
                writer.write(_request(ids, draw).replace(b'"limit": 10', b'"limit": 99'))
                await reader.read(1)
                await asyncio.sleep(1.0)
