"""Review records: what is poison and why, what is stored, when it settles, and what a crash leaves behind."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from adapters.kafka import Record
from adapters.redis_client import Outcome, RedisSettings, connect
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from adapters.redis_reviews import Digest, KeptTexts, ReviewApplied, ReviewStore, ReviewWrite
from adapters.shopper_hash import shopper_hash
from app.local import LocalRedis
from consumers.erasures import Erasures, erasure_key
from consumers.progress import Delivery, Progress
from consumers.reviews import ReviewChange, ReviewsHandler, ReviewsSettings, plain
from schemas.errors import Halt, PoisonMessage, Transient
from schemas.events import ProductUpserted, UserErased
from schemas.fields import MAX_REVISION
from schemas.items import ReviewState
from schemas.topics import Topics
from tests.consumers.test_products import Publisher

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
TOPICS = Topics.named()
KEY = b"a key of the shop"
TEXT = "The battery lasts four long days. Sound is warm and clear."


class Store:
    """Answers every write with the next outcome, newer when none is given; digests are not asked for."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.written: list[ReviewWrite] = []

    def apply(self, writes: Sequence[ReviewWrite]) -> list[ReviewApplied]:
        self.written += writes
        return [
            ReviewApplied(self.outcomes.pop(0) if self.outcomes else Outcome.NEWER, stale=False)
            for _ in writes
        ]


def handler(
    store: Any = None,
    publisher: Publisher | None = None,
    settings: ReviewsSettings | None = None,
    erasures: Erasures | None = None,
) -> ReviewsHandler:
    collaborators: dict[str, Any] = {"store": store or Store(), "publisher": publisher or Publisher()}
    return ReviewsHandler(
        topics=TOPICS,
        settings=settings or ReviewsSettings(),
        hash_key=KEY,
        erasures=erasures,
        ack_timeout_seconds=0.05,
        **collaborators,
    )


def record(
    value: bytes | dict[str, Any] | None,
    *,
    key: bytes | None = b"p1",
    timestamp_ms: int = NOW_MS,
    bulk: bool = False,
    offset: int = 7,
) -> Record:
    body = json.dumps(value).encode() if isinstance(value, dict) else value
    headers = (("simstream-lane", b"bulk"),) if bulk else ()
    return Record("catalog.reviews", "topic-id", 3, offset, timestamp_ms, key, body, headers)


def posted(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "review_posted",
        "review_id": "r1",
        "product_id": "p1",
        "user_id": "alice@example.com",
        "revision": 4,
        "occurred_at": "2026-11-25T08:00:00Z",
        "rating": 4,
        "title": "Happy with it",
        "text": TEXT,
        "helpful_votes": 3,
        **fields,
    }


def removed(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "review_removed",
        "review_id": "r1",
        "product_id": "p1",
        "revision": 5,
        "occurred_at": "2026-11-25T09:00:00Z",
        **fields,
    }


def write(**fields: Any) -> ReviewWrite:
    return handler().decode(record(posted(**fields))).write


def test_a_review_of_somebody_forgotten_since_is_read_as_taken_back() -> None:
    erasures = Erasures(key=b"k")
    body = UserErased(erased_at=NOW).model_dump_json().encode()
    name = erasure_key("alice@example.com", b"k").encode()
    erasures.take([Record(TOPICS.erasures.name, "t", 0, 0, 0, name, body)])
    read = handler(erasures=erasures)
    gone = read.decode(record(posted())).write
    assert (gone.live, gone.rating, gone.text, gone.shopper, gone.revision) == (False, None, "", None, 4)
    for other in ({"user_id": "bob"}, {"user_id": None}):
        assert read.decode(record(posted(**other))).write.live
    later = posted(occurred_at="2026-11-25T08:00:01Z")
    assert read.decode(record(later, timestamp_ms=NOW_MS + 1_000)).write.live


# --- decode ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (record(b"{not json"), "Invalid JSON"),
        (record(b""), "Invalid JSON"),
        (record(b"[1,2]"), "the message"),
        (record(b'{"kind": "review_posted", "title": "\xff\xfe"}'), "Invalid JSON"),
        (record(None), "publish review_removed to take one back"),
        (record(posted(kind="review_written")), "review_written"),
        (record(posted(kind="product_upserted")), "'review_posted', 'review_removed'"),
        (record({"review_id": "r1"}), "kind"),
        (record(posted(review_id="")), "field 'review_id'"),
        (record(posted(review_id="x" * 257)), "field 'review_id'"),
        (record(posted(product_id=None)), "field 'product_id'"),
        (record(posted(rating=5.1)), "field 'rating'"),
        (record(posted(rating=-1)), "field 'rating'"),
        (record(posted(rating="good")), "field 'rating'"),
        (record(json.dumps(posted(rating="@")).replace('"@"', "NaN").encode()), "field 'rating'"),
        (record(posted(helpful_votes=-1)), "field 'helpful_votes'"),
        (record(posted(helpful_votes=2**53)), "field 'helpful_votes'"),
        (record(posted(text="x" * 100_001)), "field 'text'"),
        (record(posted(revision=MAX_REVISION + 1)), "field 'revision'"),
        (record(posted(occurred_at="2026-11-25T08:00:00")), "field 'occurred_at'"),
        (record(posted(), key=None), "the record has no key: key records of this topic by product_id"),
        (record(posted(), key=b"\xff"), "the record's key is not UTF-8"),
        (record(posted(), key=b"p2"), "the record's key is not its field 'product_id' ('p1')"),
        (record(removed(), key=b"p2"), "the record's key is not its field 'product_id' ('p1')"),
    ],
)
def test_what_can_never_be_applied_is_poison_and_says_which_field(bad: Record, said: str) -> None:
    with pytest.raises(PoisonMessage) as caught:
        handler().decode(bad)
    assert said in caught.value.reason
    assert len(caught.value.reason) < 2_000


@pytest.mark.parametrize(
    "bad",
    [
        record(posted(user_id="alice@example.com" + "x" * 256)),
        record(posted(user_id=["alice@example.com"])),
        record(posted(title=["alice@example.com"])),
        record(posted(text={"alice@example.com": 1})),
        record(json.dumps(posted()).encode()[:-1]),
        record(b'["alice@example.com"]'),
        record(b'"alice@example.com"'),
        record(posted(), key=b"alice@example.com"),
    ],
)
def test_no_error_repeats_who_wrote_or_what(bad: Record) -> None:
    """Reasons end in logs and in headers of dead letters."""
    with pytest.raises(PoisonMessage) as caught:
        handler().decode(bad)
    assert "alice" not in caught.value.reason


def test_a_clock_that_is_ahead_is_poison_only_where_the_revision_comes_from_it() -> None:
    ahead = (NOW + timedelta(minutes=10, seconds=1)).isoformat()
    for event in (posted(revision=None, occurred_at=ahead), removed(revision=None, occurred_at=ahead)):
        with pytest.raises(PoisonMessage, match="more than 10 minutes ahead of the record's timestamp"):
            handler().decode(record(event))
    assert write(occurred_at=ahead).revision == 4
    assert write(revision=None, occurred_at="2026-11-25T08:00:00.000001Z").revision == NOW_MS * 1000 + 1


def test_a_post_is_stored_with_its_figures_and_without_its_author() -> None:
    found = write(rating=4.5, colour="unknown field")
    assert (found.product_id, found.review_id, found.revision, found.live) == ("p1", "r1", 4, True)
    assert (found.rating, found.votes, found.at) == (4.5, 3, NOW_MS * 1000)
    assert found.text == f"Happy with it\n{TEXT}"
    assert found.shopper == shopper_hash("alice@example.com", KEY)
    assert "alice" not in repr(found)
    assert write(user_id=None).shopper is None


def test_a_removal_carries_nothing_but_its_order() -> None:
    found = handler().decode(record(removed())).write
    assert (found.live, found.rating, found.votes, found.text, found.shopper) == (False, None, 0, "", None)
    assert found.revision == 5


def test_more_votes_and_a_later_time_rank_higher_below_2_to_the_53() -> None:
    base = write()
    assert write(helpful_votes=4).rank > base.rank
    assert write(occurred_at="2026-11-25T09:30:00Z").rank > base.rank
    assert write(review_id="r2").rank != base.rank
    last = write(helpful_votes=2**53 - 1, occurred_at="9998-12-31T00:00:00Z").rank
    assert last < 2**53


def test_where_nothing_is_said_there_is_no_text() -> None:
    assert write(title=None, text=None).text == ""
    assert write(title="  ", text="<br /> \n").text == ""


# --- texts -----------------------------------------------------------------------------------------


def test_contact_data_is_masked_before_anything_keeps_it_also_where_the_text_is_cut() -> None:
    said = plain("Call 555-123-4567", "or a.b@example.com, +49 30 1234567, 4111 1111 1111 1111", chars=500)
    assert said == "Call [phone]\nor [email], [phone], [card]"
    for chars in range(1, 80):
        cut = plain(None, "My number is 0171 1234567 and hers is 0171 7654321.", chars=chars)
        assert not any(character.isdecimal() for character in cut)


def test_markup_is_gone_and_line_breaks_stay() -> None:
    assert plain("<b>Good</b>", "One&nbsp;two<br />three &amp; <i>four</i><p>a <3 b", chars=500) == (
        "Good\nOne two\nthree & four\na <3 b"
    )


@pytest.mark.parametrize("digits", ["1" * 4_301, "1" * 50_000, "&#" + "1" * 200 + ";" + "1" * 4_301])
def test_a_character_by_an_endless_number_is_none_and_the_text_is_read(digits: str) -> None:
    change = handler().decode(record(posted(title=None, text=f"bad &#{digits}; &#65;")))
    assert change.write.text.startswith("bad ")
    assert "\ufffd" in change.write.text
    assert plain(None, "&#65;&#x42; &#1114112;", chars=500) == "AB \ufffd"
    assert plain(None, f"a &#{'1' * 5_000}; b &#{'0' * 5_000}65;", chars=500) == "a \ufffd b \ufffd"


def test_only_the_first_characters_of_a_text_are_kept() -> None:
    change = handler(settings=ReviewsSettings(text_chars=20)).decode(record(posted(title=None)))
    assert change.write.text == TEXT[:20].rstrip()


# --- handle ----------------------------------------------------------------------------------------


def deliveries(*events: dict[str, Any], bulk: Sequence[bool] = ()) -> list[Delivery[ReviewChange]]:
    progress = Progress(None)
    lanes = list(bulk) or [False] * len(events)
    decode = handler().decode
    return [
        Delivery(
            decode(record(event, key=event["product_id"].encode(), bulk=lane, offset=number)),
            number,
            progress,
        )
        for number, (event, lane) in enumerate(zip(events, lanes, strict=True))
    ]


def test_newer_and_equal_are_announced_and_older_is_silent() -> None:
    publisher = Publisher()
    batch = deliveries(posted(product_id="a"), posted(product_id="b"), posted(product_id="c"))
    handler(Store(Outcome.NEWER, Outcome.EQUAL, Outcome.OLDER), publisher).handle(batch)
    assert [(topic, hint.product_id) for topic, hint in publisher.sent] == [
        ("items.changed", "a"),
        ("items.changed", "b"),
    ]
    assert all(one.settled for one in batch)


def test_the_bulk_header_is_handed_on_unless_a_live_change_is_among_them() -> None:
    publisher = Publisher()
    events = [posted(product_id=name) for name in "aabb"]
    handler(publisher=publisher).handle(deliveries(*events, bulk=[True, True, True, False]))
    assert [topic for topic, _ in publisher.sent] == ["items.changed.bulk", "items.changed"]


def test_nothing_settles_before_the_broker_has_the_hint() -> None:
    publisher = Publisher(silent=True)
    batch = deliveries(posted())
    with pytest.raises(Transient, match="did not acknowledge"):
        handler(publisher=publisher).handle(batch)
    assert not batch[0].settled
    publisher.acknowledgements[0](None)
    assert batch[0].settled


def test_a_refused_hint_leaves_its_record_unsettled() -> None:
    batch = deliveries(posted())
    with pytest.raises(Transient, match="refused announcements: no"):
        handler(publisher=Publisher(RuntimeError("no"))).handle(batch)
    assert not batch[0].settled


# --- on a real Redis -------------------------------------------------------------------------------


@pytest.fixture
def client(redis_server: LocalRedis) -> Iterator[redis.Redis]:
    with connect(RedisSettings(url=redis_server.url)) as opened:
        assert isinstance(opened, redis.Redis)
        yield opened


@pytest.fixture
def items(client: redis.Redis, namespace: str) -> ItemStore:
    store = ItemStore(client=client, namespace=namespace)
    lamp = ProductUpserted(product_id="p1", revision=1, occurred_at=NOW, title="Lamp").model_dump_json()
    store.apply([ProductWrite("p1", LogPosition("T", 0, 0, 1), 1, "h", lamp.encode(), NOW.isoformat())])
    return store


@pytest.fixture
def reviews(client: redis.Redis, namespace: str) -> ReviewStore:
    return ReviewStore(client=client, namespace=namespace)


def state_of(items: ItemStore) -> ReviewState:
    state = items.read(["p1"])["p1"].reviews
    assert state is not None
    return state


def test_a_review_becomes_rating_and_digest_and_says_so(items: ItemStore, reviews: ReviewStore) -> None:
    publisher = Publisher()
    handler(reviews, publisher).handle(deliveries(posted()))
    state = state_of(items)
    assert state.rating is not None
    assert (state.rating.mean, state.rating.count) == (4.0, 1)
    assert "The battery lasts four long days." in state.digest
    assert [hint.dimensions for _, hint in publisher.sent] == [["reviews", "context"]]
    handler(reviews, publisher).handle(deliveries(posted(revision=9, rating=1)))
    assert publisher.sent[-1][1].dimensions == ["context"]  # other stars, the same words
    handler(reviews, publisher).handle(deliveries(removed(revision=10)))
    assert publisher.sent[-1][1].dimensions == ["reviews", "context"]
    assert items.read(["p1"])["p1"].reviews is None


def test_no_key_or_value_in_redis_names_the_shopper(
    client: redis.Redis,
    namespace: str,
    items: ItemStore,
    reviews: ReviewStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    events = [
        posted(review_id=f"r{number}", text=f"Write to alice@example.com, {TEXT}") for number in range(3)
    ]
    handler(reviews).handle(deliveries(*events))
    kept = reviews.texts(["p1"])["p1"]
    assert all("[email]" in review.text for review in kept.reviews)
    found = [(key, client.dump(key)) for key in client.scan_iter(match=f"{namespace}*")]
    assert len(found) >= 5
    assert not [key for key, value in found if b"alice" in key or b"alice" in (value or b"")]
    assert "alice" not in state_of(items).digest
    assert "alice" not in caplog.text


class Crash(BaseException):
    """The end of the process, at a point of our choosing."""


class CrashingStore(ReviewStore):
    """Ends after the writes, after the texts were read, or after the digest was stored."""

    def __init__(self, after: str, **more: Any) -> None:
        super().__init__(**more)
        self._after = after

    def apply(self, writes: Sequence[ReviewWrite]) -> list[ReviewApplied]:
        answers = super().apply(writes)
        self._end("apply")
        return answers

    def texts(self, product_ids: Sequence[str]) -> dict[str, KeptTexts]:
        found = super().texts(product_ids)
        self._end("texts")
        return found

    def settle(self, digests: Sequence[Digest]) -> list[bool | None]:
        answers = super().settle(digests)
        self._end("settle")
        return answers

    def _end(self, where: str) -> None:
        if where == self._after:
            raise Crash


@pytest.mark.parametrize("after", ["apply", "texts", "settle"])
def test_a_crash_between_write_and_announcement_is_made_up_for_when_the_record_comes_again(
    client: redis.Redis, namespace: str, items: ItemStore, reviews: ReviewStore, after: str
) -> None:
    publisher = Publisher()
    events = [posted(), posted(review_id="r2", revision=1, text="One hinge broke in the second month.")]
    batch = deliveries(*events)
    crashing = CrashingStore(after, client=client, namespace=namespace)
    with pytest.raises(Crash):
        handler(crashing, publisher).handle(batch)
    assert not publisher.sent
    assert not any(one.settled for one in batch)
    again = deliveries(*events)  # nothing was committed
    handler(reviews, publisher).handle(again)
    assert [hint.product_id for _, hint in publisher.sent] == ["p1"]
    assert all(one.settled for one in again)
    state = state_of(items)
    assert "hinge" in state.digest
    assert "battery" in state.digest
    assert state.rating is not None
    assert state.rating.count == 2


def test_were_an_equal_revision_silent_the_crash_would_leave_the_item_unannounced(
    client: redis.Redis, namespace: str, reviews: ReviewStore
) -> None:
    """Negative control: the guard is that equal announces again."""

    class SilentEquals(ReviewStore):
        def apply(self, writes: Sequence[ReviewWrite]) -> list[ReviewApplied]:
            return [
                ReviewApplied(Outcome.OLDER, one.stale) if one.outcome is Outcome.EQUAL else one
                for one in super().apply(writes)
            ]

    publisher = Publisher()
    with pytest.raises(Crash):
        handler(CrashingStore("apply", client=client, namespace=namespace), publisher).handle(
            deliveries(posted())
        )
    handler(SilentEquals(client=client, namespace=namespace), publisher).handle(deliveries(posted()))
    assert not publisher.sent


def test_two_owners_that_overlap_leave_the_digest_of_all_reviews(
    client: redis.Redis, namespace: str, items: ItemStore, reviews: ReviewStore
) -> None:
    """The second owner writes and digests between the first one's reading and storing."""

    class Overtaken(ReviewStore):
        rounds = 0

        def texts(self, product_ids: Sequence[str]) -> dict[str, KeptTexts]:
            found = super().texts(product_ids)
            self.rounds += 1
            if self.rounds == 1:
                other = posted(review_id="r2", text="One hinge broke in the second month.")
                handler(reviews).handle(deliveries(other))
            return found

    first = Overtaken(client=client, namespace=namespace)
    handler(first).handle(deliveries(posted()))
    assert first.rounds == 2
    assert "hinge" in state_of(items).digest
    assert "battery" in state_of(items).digest


def test_texts_that_never_stand_still_mean_waiting_and_not_a_loop_for_ever(reviews: ReviewStore) -> None:
    class Restless(Store):
        def apply(self, writes: Sequence[ReviewWrite]) -> list[ReviewApplied]:
            return [ReviewApplied(Outcome.NEWER, stale=True) for _ in writes]

        def texts(self, product_ids: Sequence[str]) -> dict[str, KeptTexts]:
            return {one: KeptTexts("1", ()) for one in product_ids}

        def settle(self, digests: Sequence[Digest]) -> list[bool | None]:
            return [None for _ in digests]

    batch = deliveries(posted())
    with pytest.raises(Transient, match="keep changing"):
        handler(Restless()).handle(batch)
    assert not batch[0].settled


def test_commits_trail_the_effect_and_follow_the_incarnation_of_redis(reviews: ReviewStore) -> None:
    made = handler(reviews)
    assert made.commit_delay_seconds == 3.0
    assert made.store_epoch() == reviews.run_id()
    assert made.fatal() is None
    made.close()


def test_a_follower_of_erasures_that_died_ends_the_consumer() -> None:
    erasures = Erasures(key=b"k")
    following = handler(erasures=erasures)
    assert following.fatal() is None
    assert handler().fatal() is None
    erasures.fatal = Halt("user.erasures cannot be read")
    assert following.fatal() is erasures.fatal
