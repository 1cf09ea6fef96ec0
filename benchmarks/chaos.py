"""What failures cost: consumers killed, consumers that sleep, stores that are away. Counts, not speed.

Apache Kafka, Redis and the test server of the index (Qdrant's engine behind its REST routes) run as children,
the consumers as processes of their own with a fake encoder. Afterwards every item's point is compared with an
oracle made from the published events alone; of behaviour everything in Redis is, and who was told of it.

Reads   nothing
Writes  a folder that goes away
Never   counts a failure that found nothing in hand
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Figure, Report, Skipped
from tests.support.behaviour_faults import COMPARED_ONCE, GUARDS_OFF
from tests.support.chaos import PARTITIONS, World
from tests.support.chaos_behaviour import EVENTS_PER_SECOND, Rounds, ShopperWorld, harm, without_epoch
from tests.support.chaos_kills import Kills, commit_before_write, kill_consumers
from tests.support.chaos_outages import Outage, given_up, outages
from tests.support.chaos_pauses import Pauses, late_write, random_pauses
from tests.support.draining import SESSION_TIMEOUT_SECONDS
from tests.support.servers import KAFKA_VERSION, ApacheKafka, missing

NAME = "chaos"
#: The same proofs, as small as here: `make check` would otherwise run minutes of kills and outages twice.
COVERED_BY = "tests/chaos"
SEED = 23
GROWTH_MIB = 200
#: What happens to two behaviour consumers, in turn.
HARM = ("kill", "pause", "move", "kill", "rewind")


def run(*, small: bool, data: Path | None) -> Report:
    """20 kills in 20,000 events, pauses, outages of 20 s with 100,000 records waiting; for behaviour 30
    rounds of harm and 6 deaths of Redis. In small fewer.
    """
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

            def shoppers(name: str) -> ShopperWorld:
                return ShopperWorld(folder / name, kafka.bootstrap_servers, f"b{uuid.uuid4().hex[:8]}.")

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
            harmed = _harmed(shoppers, rounds=4 if small else 30, deaths=1 if small else 6)
    return Report(
        benchmark=NAME,
        figures=[
            *_of_kills(killed, kills, events),
            Figure("lost by a commit before the write", len(committed_first.lost), "items", 1, kind="count"),
            *_of_pauses(slept, held + sleeps),
            Figure("stale without tickets", len(ticketless.stale), "items", 1, kind="count"),
            *_of_outages(sat_out, backlog),
            Figure("stale where outages are dead-lettered", len(gave_up.stale), "items", 1, kind="count"),
            *_of_behaviour(*harmed, rounds=4 if small else 30, deaths=1 if small else 6),
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
            "user_events_per_second": EVENTS_PER_SECOND,
        },
        data="synthetic products with updates, deletions, returns and late events; a fake encoder",
    )


def _harmed(
    shoppers: Callable[[str], ShopperWorld], *, rounds: int, deaths: int
) -> tuple[Rounds, Rounds, dict[str, Rounds]]:
    """Behaviour under kills, pauses, moves and rewinds; when Redis dies; and each guard switched off."""
    controls = {}
    with shoppers("harm") as one:
        done = harm(one, HARM, seed=SEED, rounds=rounds)
    print(f"behaviour: {done}", flush=True)
    for fault in (GUARDS_OFF, COMPARED_ONCE):
        with shoppers(fault) as one:
            controls[fault] = harm(one, ["move"], seed=SEED, rounds=1, fault=fault)
        print(f"{fault}: {controls[fault]}", flush=True)
    with shoppers("deaths") as one:
        died = harm(one, ["redis", "hang"], seed=SEED, rounds=2 * deaths)
    print(f"Redis killed: {died}", flush=True)
    with shoppers("epoch") as one:
        controls["epoch"] = without_epoch(one, seed=SEED)
    print(f"whichever Redis answers: {controls['epoch']}", flush=True)
    return done, died, controls


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


def _of_behaviour(
    done: Rounds, died: Rounds, controls: Mapping[str, Rounds], *, rounds: int, deaths: int
) -> list[Figure]:
    note, redis = "behaviour", "Redis killed with its last second lost, and silent for 6 s"
    kinds = ", ".join(f"{count} {kind}" for kind, count in done.counted.items())

    def off(name: str, fault: str) -> Figure:
        wrong = len(controls[fault].damage.counters)
        return Figure(f"wrong counters {name}", wrong, "items", 1, kind="count")

    return [
        Figure("rounds of harm with records in hand", done.rounds, "", rounds, kind="count", note=kinds),
        Figure("ends in mid-debounce", done.crashes, "", 1, kind="count"),
        Figure("late writes of an owner that slept", done.late_writes, "writes", 1, kind="count"),
        Figure("user events sent again by the shop", done.sent_again, "events", 1, kind="count"),
        Figure("records redelivered", done.redelivered, "records", 1, kind="count", note=note),
        Figure("duplicate deliveries", done.duplicates, "records", 1, kind="count", note=note),
        _zero("wrong counters", len(done.damage.counters), "items", note),
        _zero("wrong sketches", len(done.damage.sketches), "items", note),
        _zero("wrong recent items", len(done.damage.recents), "shoppers", note),
        _zero("wrong in trending", len(done.damage.trends), "items", note),
        _zero("moved and not announced", len(done.damage.silent), "items", note),
        _zero("dead letters", done.dead_letters, "records", note),
        off("without the guard", GUARDS_OFF),
        off("where a batch is compared as a whole", COMPARED_ONCE),
        Figure(
            "deaths and silences of Redis with records in hand", died.rounds, "", 2 * deaths, kind="count"
        ),
        Figure("what Redis had lost", died.lost_bytes, "bytes", 1, kind="count"),
        _zero("wrong counters", len(died.damage.counters), "items", redis),
        _zero("wrong anywhere else", died.damage.others, "", redis),
        off("where writes ask no Redis who it is", "epoch"),
    ]


def _zero(name: str, value: int, unit: str, note: str) -> Figure:
    return Figure(name, value, unit, 0, "at most", kind="count", note=note, headline=True)
