"""What failures cost: consumers killed, consumers that sleep, stores that are away. Counts, not speed.

Apache Kafka, Redis and the test server of the index (Qdrant's engine behind its REST routes) run as children,
the consumers as processes of their own with a fake encoder. Afterwards every item's point is compared with an
oracle made from the published events alone.

Reads   nothing
Writes  a folder that goes away
Never   counts a failure that found nothing in hand
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Figure, Report, Skipped
from tests.support.chaos import PARTITIONS, SESSION_TIMEOUT_SECONDS, World
from tests.support.chaos_kills import Kills, commit_before_write, kill_consumers
from tests.support.chaos_outages import Outage, given_up, outages
from tests.support.chaos_pauses import Pauses, late_write, random_pauses
from tests.support.servers import KAFKA_VERSION, ApacheKafka, missing

NAME = "chaos"
#: The same proofs, as small as here: `make check` would otherwise run minutes of kills and outages twice.
COVERED_BY = "tests/chaos"
SEED = 23
GROWTH_MIB = 200


def run(*, small: bool, data: Path | None) -> Report:
    """20 kills in 20,000 events, pauses, outages of 20 s with 100,000 records waiting; in small fewer."""
    if reason := missing():
        raise Skipped(reason)
    kills, events, items = (4, 2_000, 300) if small else (20, 20_000, 2_000)
    held, sleeps = (1, 0) if small else (3, 4)
    seconds, rate, backlog, shop = (4.0, 150, 0, 400) if small else (20.0, 200, 100_000, 20_000)
    with tempfile.TemporaryDirectory(prefix="simstream-chaos-") as scratch:
        folder = Path(scratch)
        with ApacheKafka(folder / "kafka") as kafka:

            @contextmanager
            def world(name: str) -> Iterator[World]:
                with World(folder / name, kafka.bootstrap_servers, f"c{uuid.uuid4().hex[:8]}.") as made:
                    yield made

            with world("kills") as one:
                killed = kill_consumers(
                    one, seed=SEED, events=events, items=items, kills=kills, pairs=1 if small else 2
                )
            print(killed, flush=True)
            with world("commit-first") as one:
                committed_first = commit_before_write(one, seed=SEED, items=100)
            print(f"commit before write: {committed_first}", flush=True)
            slept = []
            with world("late-write") as one:
                slept.append(late_write(one, seed=SEED, items=40, rounds=held))
            print(slept[-1], flush=True)
            with world("ticketless") as one:
                ticketless = late_write(one, seed=SEED, items=40, guarded=False).difference
            print(f"no ticket: {ticketless}", flush=True)
            if sleeps:
                with world("sleeps") as one:
                    slept.append(random_pauses(one, seed=SEED, items=items, rounds=sleeps))
                print(slept[-1], flush=True)
            with world("outages") as one:
                sat_out = outages(one, seed=SEED, items=shop, seconds=seconds, rate=rate, backlog=backlog)
            with world("given-up") as one:
                gave_up = given_up(one, seed=SEED, items=200, seconds=2.0, rate=150).difference
    return Report(
        benchmark=NAME,
        figures=[
            *_of_kills(killed, kills, events),
            Figure("lost by a commit before the write", len(committed_first.lost), "items", 1, kind="count"),
            *_of_pauses(slept, held + sleeps),
            Figure("stale without tickets", len(ticketless.stale), "items", 1, kind="count"),
            *_of_outages(sat_out, backlog),
            Figure("stale where outages are dead-lettered", len(gave_up.stale), "items", 1, kind="count"),
        ],
        settings={
            "seed": SEED,
            "session_timeout_seconds": SESSION_TIMEOUT_SECONDS,
            "partitions": PARTITIONS,
            "kafka": KAFKA_VERSION,
            "items": items,
            "outage_seconds": seconds,
            "outage_events_per_second": rate,
            "outage_items": shop,
        },
        data="synthetic products with updates, deletions, returns and late events; a fake encoder",
    )


def _of_kills(killed: Kills, kills: int, events: int) -> list[Figure]:
    difference, note = killed.difference, "kill -9"
    return [
        Figure("kills that found records in hand", killed.kills, "kills", kills, kind="count", headline=True),
        Figure("of them between write and announcement", killed.crashes, "kills", 1, kind="count"),
        Figure("product events", killed.events, "events", events, kind="count"),
        Figure("deleted items", difference.deleted, "items", 1, kind="count"),
        Figure("records redelivered", killed.redelivered, "records", 1, kind="count", note=note),
        Figure("duplicate deliveries", killed.duplicates, "records", note=note),
        _zero("lost", len(difference.lost), "items", note),
        _zero("stale", len(difference.stale), "items", note),
        _zero("resurrected", len(difference.resurrected), "items", note),
        _zero("dead letters", killed.dead_letters, "records", note),
    ]


def _of_pauses(slept: Sequence[Pauses], wanted: int) -> list[Figure]:
    note, found = "a paused owner", [one.difference for one in slept]
    return [
        Figure("pauses with records in hand", sum(one.pauses for one in slept), "", wanted, kind="count"),
        Figure("writes held until newer ones were done", sum(one.late_writes for one in slept), "writes"),
        Figure(
            "records redelivered",
            sum(one.redelivered for one in slept),
            "records",
            1,
            kind="count",
            note=note,
        ),
        _zero("lost", sum(len(one.lost) for one in found), "items", note),
        _zero("stale", sum(len(one.stale) for one in found), "items", note),
        _zero("resurrected", sum(len(one.resurrected) for one in found), "items", note),
    ]


def _of_outages(found: Sequence[Outage], backlog: int) -> list[Figure]:
    note, left = "outages", [one.difference for one in found]
    wrong = sum(len(one.lost) + len(one.stale) + len(one.resurrected) for one in left)
    return [
        Figure("outages", len(found), "", 5, kind="count", note=", ".join(one.what for one in found)),
        Figure("records waiting", min(one.waiting for one in found), "", max(1, backlog), kind="count"),
        _zero("lost, stale or resurrected", wrong, "items", note),
        _zero("dead letters", max(one.dead_letters for one in found), "records", note),
        _zero("partitions moved", sum(one.partitions_moved for one in found), "times", note),
        Figure(
            "memory above the steady state",
            round(max(one.grown_mib for one in found)),
            "MiB",
            GROWTH_MIB,
            "at most",
            kind="count",
        ),
        *(
            Figure(f"caught up: {one.what}", round(one.caught_up_seconds, 1), "s", note="after its end")
            for one in found
        ),
    ]


def _zero(name: str, value: int, unit: str, note: str) -> Figure:
    return Figure(name, value, unit, 0, "at most", kind="count", note=note, headline=True)
