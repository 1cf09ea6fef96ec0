"""Opinions follow the texts of an item's reviews, whatever is redelivered, replayed, taken back or killed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any, cast

import pytest

from adapters.kafka import Publisher, Record
from adapters.redis_client import Client, RedisSettings, connect
from adapters.redis_items import ItemStore, LogPosition, ProductWrite
from adapters.redis_nodes import RedisNodes
from adapters.redis_opinions import OpinionStore
from adapters.redis_reviews import ReviewStore
from app.local import LocalRedis
from consumers.assembly import Encoded, assemble
from consumers.opinion_figures import OpinionSettings, item_opinions
from consumers.opinions import OpinionsHandler, stale_items, take_back
from consumers.progress import Delivery, Progress
from consumers.reviews import ReviewsHandler, ReviewsSettings
from model.text import ProductText
from schemas.errors import PoisonMessage, Transient
from schemas.events import ItemChanged, OpinionInsight, ProductUpserted, ReviewPosted, ReviewRemoved
from schemas.opinions import ItemOpinions, Opinion
from schemas.topics import Topics
from schemas.vectors import Point
from tests.consumers.state import State
from tests.consumers.test_products import Publisher as Quiet

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
TOPICS = Topics.named()
RECIPE = ProductText()
WORDS = {
    "quiet": ("noise", 0.8),
    "loud": ("noise", -0.8),
    "sturdy": ("build", 0.6),
    "flimsy": ("build", -0.6),
}


class Judge:
    """Hears words. Implements schemas.opinions.OpinionJudge."""

    def __init__(self, head: str = "opinions-1") -> None:
        self.head = head
        self.heard: list[str] = []
        #: Called before each answer.
        self.before: Callable[[], None] = lambda: None

    def hear(self, texts: Sequence[str]) -> list[list[Opinion]]:
        self.heard += texts
        self.before()
        return [
            [
                Opinion(*WORDS[word], clause)
                for clause in text.split(". ")
                for word in WORDS
                if word in clause.lower()
            ]
            for text in texts
        ]


class Sent:
    """A publisher that remembers; refuses with `error`."""

    def __init__(self) -> None:
        self.insights: list[OpinionInsight] = []
        self.hints: list[str] = []
        self.bulk: list[str] = []
        self.error: Exception | None = None

    def send(self, topic: str, *, key: str, value: bytes, on_ack: Callable[[Exception | None], None]) -> None:
        if self.error is None and topic == TOPICS.changed.name:
            self.hints.append(ItemChanged.model_validate_json(value).product_id)
        elif self.error is None and topic == TOPICS.changed_bulk.name:
            self.bulk.append(ItemChanged.model_validate_json(value).product_id)
        elif self.error is None:
            found = OpinionInsight.model_validate_json(value)
            assert (topic, key) == (TOPICS.insights_opinions.name, found.product_id)
            self.insights.append(found)
        on_ack(self.error)

    def said(self) -> list[dict[str, str]]:
        return [dict(one.tendencies) for one in self.insights]


class World:
    """A handler, the reviews that it reads, and everything around it."""

    def __init__(self, client: Any, namespace: str) -> None:
        self.reviews = ReviewStore(client=client, namespace=namespace)
        self.store = OpinionStore(nodes=RedisNodes(client), namespace=namespace)
        self.judge: Judge | None = Judge()
        self.sent = Sent()
        self.writer = ReviewsHandler(
            store=self.reviews,
            publisher=cast(Publisher, Quiet()),
            topics=TOPICS,
            settings=ReviewsSettings(),
            hash_key=b"k",
            ack_timeout_seconds=0.05,
        )
        self.handler = OpinionsHandler(
            reviews=lambda: self.reviews,
            store=self.store,
            judge=lambda: self.judge,
            publisher=cast(Publisher, self.sent),
            topics=TOPICS,
            settings=OpinionSettings(least_reviews=2),
            ack_timeout_seconds=0.05,
            now=lambda: NOW,
        )

    def write(self, *events: ReviewPosted | ReviewRemoved) -> None:
        changes = [
            self.writer.decode(
                Record(
                    TOPICS.reviews.name,
                    "t",
                    0,
                    number,
                    int(NOW.timestamp() * 1000),
                    event.product_id.encode(),
                    event.model_dump_json().encode(),
                    (),
                )
            )
            for number, event in enumerate(events)
        ]
        self.writer.handle([Delivery(one, place, Progress(None)) for place, one in enumerate(changes)])

    def hint(self, *items: str, dimensions: list[str] | None = None) -> list[Delivery[ItemChanged]]:
        hints = [ItemChanged(product_id=one, occurred_at=NOW, dimensions=dimensions or []) for one in items]
        deliveries = [Delivery(one, place, Progress(None)) for place, one in enumerate(hints)]
        self.handler.handle(deliveries)
        return deliveries

    def item(self, product_id: str = "p") -> ItemOpinions | None:
        return self.store.of(product_id).item

    def sentiments(self, product_id: str = "p") -> dict[str, tuple[float, int]]:
        item = self.item(product_id)
        return {one.aspect: (one.sentiment, one.count) for one in (item.aspects if item else ())}


@pytest.fixture
def world(redis_server: LocalRedis, namespace: str) -> Iterator[World]:
    with connect(RedisSettings(url=redis_server.url)) as client:
        yield World(client, namespace)


def posted(
    number: int,
    text: str,
    revision: int = 1,
    product_id: str = "p",
    votes: int = 0,
    user_id: str | None = None,
) -> ReviewPosted:
    return ReviewPosted(
        user_id=user_id,
        review_id=f"r{number}",
        product_id=product_id,
        revision=revision,
        occurred_at=NOW,
        rating=4,
        text=text,
        helpful_votes=votes,
    )


def removed(number: int, revision: int, product_id: str = "p") -> ReviewRemoved:
    return ReviewRemoved(review_id=f"r{number}", product_id=product_id, revision=revision, occurred_at=NOW)


def test_a_review_counts_once_for_an_aspect_and_is_heard_once_whatever_is_redelivered(world: World) -> None:
    world.write(posted(1, "So quiet. Quiet at night too. Flimsy"), posted(2, "Loud"), posted(3, "Quiet"))
    for _ in range(3):
        world.hint("p", "p")
    assert world.sentiments() == {"noise": (pytest.approx(0.8 / 3, abs=1e-3), 3), "build": (-0.6, 1)}
    assert world.judge is not None
    assert sorted(world.judge.heard) == ["Loud", "Quiet", "So quiet. Quiet at night too. Flimsy"]
    # Two reviews for quiet, one against: mixed. One review says nothing of how it is built.
    assert world.sent.said() == [{"noise": "mixed"}]
    assert world.sent.hints == ["p"]
    world.write(posted(4, "Quiet"), posted(5, "Very quiet"))
    world.hint("p")
    assert len(world.judge.heard) == 5
    assert world.sent.said() == [{"noise": "mixed"}, {"noise": "good"}]
    (shift,) = world.sent.insights[-1].shifts
    assert (shift.aspect, shift.before, shift.tendency, shift.count) == ("noise", "mixed", "good", 5)
    assert "quiet" not in world.sent.insights[-1].model_dump_json().lower()


def test_opinions_are_the_same_in_every_order_of_the_same_events(world: World) -> None:
    events: list[ReviewPosted | ReviewRemoved] = [
        posted(1, "Quiet", votes=3),
        posted(2, "Loud and sturdy"),
        posted(2, "Quiet and flimsy", revision=2),
        posted(3, "Loud"),
        removed(3, 2),
        posted(4, "Sturdy", votes=1),
    ]
    draw = Random(4)
    kept = []
    for number in range(6):
        product = f"p{number}"
        shuffled = [one.model_copy(update={"product_id": product}) for one in events * 2]
        draw.shuffle(shuffled)
        for one in shuffled:
            world.write(one)
            if draw.random() < 0.6:
                world.hint(product)
        world.hint(product)
        kept.append(world.item(product))
    assert kept[0] is not None
    assert {one.aspect: one.count for one in kept[0].aspects} == {"noise": 2, "build": 2}
    assert all(one == other for one, other in pairwise(kept))


def test_a_review_that_is_taken_back_counts_no_more_and_the_last_one_leaves_nothing(world: World) -> None:
    world.write(posted(1, "Loud"), posted(2, "Loud"), posted(3, "Quiet"))
    world.hint("p")
    assert world.sentiments()["noise"][1] == 3
    world.write(removed(3, 2))
    world.hint("p")
    assert world.sentiments() == {"noise": (-0.8, 2)}
    assert "Quiet" not in str(world.store.kept("p"))
    world.write(removed(1, 2), removed(2, 2))
    world.hint("p")
    assert world.store.kept("p") is None
    assert world.sent.said()[-1] == {}
    (shift,) = world.sent.insights[-1].shifts
    assert (shift.before, shift.tendency) == ("bad", None)
    said = len(world.sent.insights)
    world.hint("p")
    assert len(world.sent.insights) == said


def test_a_shift_that_the_broker_refuses_is_told_when_the_hint_comes_again(world: World) -> None:
    world.write(posted(1, "Quiet"), posted(2, "Quiet"))
    world.sent.error = RuntimeError("no")
    with pytest.raises(Transient, match="refused"):
        world.hint("p")
    assert world.sentiments() == {"noise": (0.8, 2)}
    world.sent.error = None
    (delivery,) = world.hint("p")
    assert delivery.settled
    assert world.sent.said() == [{"noise": "good"}]


def test_texts_that_change_while_they_are_heard_are_heard_again(world: World) -> None:
    world.write(posted(1, "Quiet"), posted(2, "Quiet"))
    judge = world.judge
    assert judge is not None

    def late() -> None:
        judge.before = lambda: None
        world.write(posted(3, "Loud"), posted(4, "Loud"), posted(5, "Loud"), posted(6, "Loud"))

    judge.before = late
    world.hint("p")
    assert world.sentiments()["noise"][1] == 6
    assert world.sent.said() == [{"noise": "bad"}]


def test_without_a_head_nothing_is_heard_and_that_is_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    judge, world.judge = world.judge, None
    world.write(posted(1, "Quiet"), posted(2, "Quiet"))
    with caplog.at_level(logging.WARNING):
        deliveries = world.hint("p") + world.hint("p")
    assert all(one.settled for one in deliveries)
    assert [one.message.split()[0] for one in caplog.records] == ["opinions_without_head"]
    assert world.item() is None
    # A head that comes later finds what was missed.
    assert judge is not None
    world.judge = judge
    assert list(stale_items(world.reviews, world.store, judge.head)) == [["p"]]
    world.hint("p")
    assert world.sentiments() == {"noise": (0.8, 2)}
    assert list(stale_items(world.reviews, world.store, judge.head)) == [[]]


def test_another_head_hears_everything_anew(world: World) -> None:
    world.write(posted(1, "Quiet"), posted(2, "Quiet"))
    world.hint("p")
    world.judge = other = Judge("opinions-2")
    assert list(stale_items(world.reviews, world.store, other.head)) == [["p"]]
    world.hint("p")
    assert other.heard == ["Quiet", "Quiet"]
    item = world.item()
    assert item is not None
    assert item.head == "opinions-2"


def test_hints_that_move_no_review_ask_nothing_and_what_is_no_hint_is_poison(world: World) -> None:
    world.write(posted(1, "Quiet"))
    (delivery,) = world.hint("p", dimensions=["content", "lexical", "behaviour"])
    assert delivery.settled
    assert world.item() is None
    world.hint("p", dimensions=["context"])
    assert world.item() is not None
    for value, kind in ((None, "null"), (b"{}", "invalid")):
        with pytest.raises(PoisonMessage) as caught:
            world.handler.decode(Record(TOPICS.changed.name, "t", 0, 0, 0, b"p", value, ()))
        assert caught.value.kind == kind


def asked_for(client: Client, store: ItemStore) -> int:
    """How many HGETs one reading of an item sends."""

    def sent() -> int:
        return int(cast(Any, client).info("commandstats").get("cmdstat_hget", {"calls": 0})["calls"])

    before = sent()
    store.read(["p"])
    return sent() - before


def test_what_reviewers_come_to_is_part_of_the_items_state_where_somebody_listens(
    world: World, redis_server: LocalRedis, namespace: str
) -> None:
    world.write(posted(1, "Quiet and flimsy"), posted(2, "Quiet and flimsy"))
    world.hint("p")
    product = ProductUpserted(product_id="p", revision=1, occurred_at=NOW, title="A fan")
    with connect(RedisSettings(url=redis_server.url)) as client:
        items = ItemStore(client=client, namespace=namespace, opinions=True)
        items.apply(
            [
                ProductWrite(
                    product_id="p",
                    revision=1,
                    position=LogPosition("t", 0, 0, 0),
                    body_hash="0",
                    document=product.model_dump_json().encode(),
                    occurred_at=NOW.isoformat(),
                    text_hash="0",
                )
            ]
        )
        assert items.read(["p"])["p"].opinions == ("build: bad", "noise: good")
        # Where nobody listens it is not asked for.
        deaf = ItemStore(client=client, namespace=namespace)
        asked = [asked_for(client, store) for store in (items, deaf)]
        assert asked == [1, 0]
        assert deaf.read(["p"])["p"].opinions == ()


def test_an_item_whose_opinions_shift_is_encoded_again_and_no_other(
    world: World, redis_server: LocalRedis, namespace: str
) -> None:
    digest = "A quiet little fan."
    with connect(RedisSettings(url=redis_server.url)) as client:
        items = ItemStore(client=client, namespace=namespace, opinions=True)
        State(client, items).put_all(["p", "q"])
        for name in "pq":
            world.write(*(posted(one, digest, product_id=name) for one in (1, 2)))
        points: dict[str, Point] = {}

        def encoded() -> dict[str, str]:
            """What of reviews the encoder gets until every point equals its state."""
            texts: dict[str, str] = {}
            for name, state in items.read(["p", "q"]).items():
                waiting = assemble(name, state, points.get(name), recipe=RECIPE, encoded={}, now=NOW)
                vectors = {one.fingerprint: Encoded(one.fingerprint, [1.0]) for one in waiting.wanted}
                done = assemble(name, state, points.get(name), recipe=RECIPE, encoded=vectors, now=NOW)
                points[name] = done.point or points[name]
                assert state.product is not None
                for one in waiting.wanted:
                    if one.fingerprint != RECIPE.fingerprint(state.product):
                        texts[name] = one.text
            return texts

        assert encoded() == dict.fromkeys("pq", digest)
        for _ in range(2):
            world.hint("p")
        assert encoded() == {"p": f"Good noise. {digest}"}
        # Redelivered, replayed, or one more who says the same: nothing to encode.
        world.hint("p", "p")
        world.write(*(posted(one, digest) for one in (1, 2)), posted(3, "Quiet!"))
        world.hint("p")
        assert encoded() == {}
        world.hint("q")
        assert encoded() == {"q": f"Good noise. {digest}"}
        # Taken back: too few speak of it.
        world.write(removed(2, 2), removed(3, 2))
        world.hint("p", "q")
        assert encoded() == {"p": digest}


def test_a_shift_is_announced_in_the_lane_of_what_led_to_it(world: World) -> None:
    for name in "pqr":
        world.write(posted(1, "Quiet", product_id=name), posted(2, "Quiet", product_id=name))
    live, bulk = TOPICS.changed.name, TOPICS.changed_bulk.name
    records = [
        Record(
            topic,
            "t",
            0,
            place,
            0,
            b"p",
            ItemChanged(product_id=name, dimensions=["reviews"], occurred_at=NOW).model_dump_json().encode(),
            (),
        )
        for place, (topic, name) in enumerate(((bulk, "p"), (live, "q"), (bulk, "r"), (live, "r")))
    ]
    hints = [world.handler.decode(record) for record in records]
    world.handler.handle([Delivery(one, place, Progress(None)) for place, one in enumerate(hints)])
    assert (world.sent.hints, world.sent.bulk) == (["q", "r"], ["p"])


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_what_was_dropped_and_is_heard_the_same_is_announced_to_the_index_alone(
    world: World, refused: int
) -> None:
    """A point may have been written without opinions, when nobody listened."""
    world.write(posted(1, "Quiet"), posted(2, "Quiet"))
    world.hint("p")
    world.store.drop_all()
    world.sent.error = RuntimeError("broker away")
    for _ in range(refused):
        with pytest.raises(Transient):
            world.hint("p")
    world.sent.error = None
    world.hint("p")
    assert world.sentiments() == {"noise": (0.8, 2)}
    assert (world.sent.said(), world.sent.hints) == ([{"noise": "good"}], ["p", "p"])
    world.hint("p")
    assert world.sent.hints == ["p", "p"]


def test_what_was_dropped_and_has_no_texts_any_more_is_gone_once(world: World) -> None:
    world.write(posted(1, "Quiet"), posted(2, "Quiet"))
    world.hint("p")
    world.store.drop_all()
    world.write(removed(1, 2), removed(2, 2))
    for _ in range(2):
        world.hint("p")
    assert world.sent.said() == [{"noise": "good"}, {}]
    assert world.store.owed(["p"]) == [False]


def forget(world: World, user_id: str) -> list[str]:
    """As `simstream forget`; the products it was about."""
    about: list[str] = []
    world.writer.forget(user_id, until_ms=int(NOW.timestamp() * 1000), about=about.extend)
    take_back(world.reviews, world.store, sorted({*about}), OpinionSettings(least_reviews=2))
    return sorted({*about})


def test_quotes_of_somebody_who_is_forgotten_go_at_once_and_nothing_is_heard_for_it(world: World) -> None:
    world.write(
        posted(1, "Quiet, says Ann", user_id="u1"),
        *(posted(number, "Quiet", user_id=f"u{number}") for number in (2, 3)),
        posted(4, "Sturdy", product_id="q", user_id="u1"),
        posted(5, "Sturdy", product_id="other", user_id="u2"),
    )
    world.hint("p", "q", "other")
    judge = cast(Judge, world.judge)
    heard, other = len(judge.heard), world.store.kept("other")
    assert forget(world, "u1") == ["p", "q"]
    kept = world.store.kept("p")
    assert kept is not None
    assert {*kept.heard} == {"r2", "r3"}
    assert "Ann" not in kept.item.model_dump_json()
    assert world.sentiments() == {"noise": (0.8, 2)}
    assert (world.store.kept("q"), world.store.kept("other")) == (None, other)
    # What is left was heard before: a hint finds it as it should be, and nothing has shifted.
    world.hint("p", "q", "other")
    assert len(judge.heard) == heard
    assert world.sent.said() == [{"noise": "good"}]
    assert forget(world, "u1") == []


def test_of_texts_that_nobody_has_heard_yet_nothing_is_missed_when_somebody_is_forgotten(
    world: World,
) -> None:
    world.write(posted(1, "Quiet", user_id="u1"), posted(2, "Quiet", user_id="u2"))
    world.hint("p")
    world.write(posted(3, "Loud", user_id="u3"))
    forget(world, "u1")
    assert world.sentiments() == {"noise": (0.8, 1)}
    world.hint("p")
    assert world.sentiments() == {"noise": (0.0, 2)}


def test_a_shopper_is_put_down_as_long_as_anything_of_theirs_stands(world: World) -> None:
    """So that a call that was cut off anywhere knows of every item when it is given again."""
    world.write(posted(1, "Quiet", user_id="u1"), posted(2, "Quiet", product_id="q", user_id="u1"))
    seen: list[list[str]] = []

    def cut_off(products: Sequence[str]) -> None:
        seen.append(sorted(products))
        if products:
            raise Transient("away")

    for _ in range(2):
        with pytest.raises(Transient):
            world.writer.forget("u1", until_ms=int(NOW.timestamp() * 1000), about=cut_off)
    assert seen[0] == seen[-1] != []
    assert forget(world, "u1") == ["p", "q"]


def test_evidence_is_of_useful_reviews_and_shows_the_other_side_last() -> None:
    class Text:
        def __init__(self, number: int, votes: int) -> None:
            self.review_id, self.votes, self.at, self.text = f"r{number}", votes, 0, ""

    texts = [Text(number, votes=number) for number in range(6)]
    heard = {one.review_id: [Opinion("noise", 0.5, f"quiet {one.review_id}")] for one in texts}
    heard["r2"] = [Opinion("noise", -0.9, "loud"), Opinion("noise", -0.7, "so loud")]
    found = item_opinions(texts, heard, head="h", settings=OpinionSettings(quotes=3))
    (noise,) = found.aspects
    assert [one.text for one in noise.evidence] == ["quiet r5", "quiet r4", "loud"]
    assert (noise.positive, noise.negative, noise.tendency) == (5, 1, "good")
    assert item_opinions(texts[::-1], heard, head="h", settings=OpinionSettings(quotes=3)) == found


@pytest.mark.parametrize(
    ("positive", "negative", "tendency"),
    [(2, 0, None), (3, 0, "good"), (0, 3, "bad"), (2, 1, "mixed"), (3, 1, "good"), (5, 4, "mixed")],
)
def test_reviewers_come_to_something_only_by_a_clear_majority(
    positive: int, negative: int, tendency: str | None
) -> None:
    class Text:
        def __init__(self, number: int) -> None:
            self.review_id, self.votes, self.at, self.text = f"r{number}", 0, 0, ""

    texts = [Text(number) for number in range(positive + negative)]
    heard = {
        one.review_id: [Opinion("noise", 0.4 if number < positive else -0.4, "x")]
        for number, one in enumerate(texts)
    }
    (noise,) = item_opinions(texts, heard, head="h", settings=OpinionSettings()).aspects
    assert noise.tendency == tendency
