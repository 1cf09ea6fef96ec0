"""A walk over item state and index announces what differs, both ways, and no mass deletion unasked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from adapters.behaviour_work import ItemWork
from adapters.index_edge import EdgeIndex
from adapters.redis_behaviour import BehaviourStore
from consumers.assembly import Encoded, Shoppers, assemble
from consumers.reconcile import FREE_DELETES, Reconciled, Reconciler
from consumers.shopper_vectors import Fingerprints
from model.text import ProductText, TextSettings
from schemas.errors import Halt, Transient
from schemas.events import ItemChanged
from schemas.topics import Topics
from schemas.vectors import BEHAVIOUR, Point, SparseVector, TextRecipe
from tests.consumers.conftest import COLLECTION
from tests.consumers.state import NOW, State
from tests.producers.doubles import Answers, RecordingPublisher
from tests.support.fake_encoder import FakeEncoder

TOPICS = Topics.named()
RECIPE = ProductText()
LATER = NOW + timedelta(minutes=5)


class Walk:
    """A reconciler over the test's state and index, and what it announced."""

    def __init__(self, state: State, index: EdgeIndex) -> None:
        self.state, self.index = state, index
        self.publisher = RecordingPublisher()

    def run(
        self,
        *,
        accept_deletes: int = 0,
        recipe: TextRecipe = RECIPE,
        batch: int = 7,
        weigh: Callable[[], Fingerprints] | None = None,
    ) -> Reconciled:
        """Pages are small, so that every walk needs several."""
        return Reconciler(
            store=self.state.store,
            index=self.index,
            collection=COLLECTION,
            recipe=recipe,
            publisher=self.publisher,
            topics=TOPICS,
            weigh=weigh,
            now=lambda: LATER,
            batch=batch,
        ).run(accept_deletes=accept_deletes)

    def announced(self) -> list[str]:
        """Ids of the hints so far."""
        found = []
        for sent in self.publisher.sent:
            hint = ItemChanged.model_validate_json(sent.value)
            assert sent.key == hint.product_id.encode()
            assert hint.occurred_at == LATER
            found.append(hint.product_id)
        return found

    def bring_up_to_date(self, *product_ids: str) -> None:
        """The points as the embeddings consumer would leave them."""
        states = self.state.store.read(product_ids)
        points = self.index.fetch(COLLECTION, product_ids, vectors=True)
        made = []
        for product_id in product_ids:
            product = states[product_id].product if product_id in states else None
            encoded = {}
            if product is not None:
                (vector,) = FakeEncoder().encode([RECIPE.content(product)])
                text = RECIPE.fingerprint(product)
                encoded = {text: Encoded(text, vector)}
            made.append(
                assemble(
                    product_id,
                    states.get(product_id),
                    points.get(product_id),
                    recipe=RECIPE,
                    encoded=encoded,
                    now=NOW,
                )
            )
        written = [one.point for one in made if one.point is not None]
        self.index.upsert(COLLECTION, written, ticket=self.state.store.draw_ticket())


@pytest.fixture
def walk(state: State, index: EdgeIndex) -> Walk:
    return Walk(state, index)


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:03d}" for number in range(count)]


def test_where_state_and_index_agree_nothing_is_announced(walk: Walk) -> None:
    ids = named("p", 30)
    walk.state.put_all(ids)
    walk.bring_up_to_date(*ids)
    walk.state.delete("p001", "never shown")
    walk.bring_up_to_date("p001")
    assert walk.run() == Reconciled(items=29, points=29, outdated=0, missing=0, surplus=0)
    assert walk.publisher.sent == []
    assert Walk(walk.state, walk.index).run(batch=1_000).announced == 0


def test_an_empty_house_is_in_order(walk: Walk) -> None:
    assert walk.run() == Reconciled(0, 0, 0, 0, 0)


def test_every_difference_is_announced_once_on_the_bulk_lane(walk: Walk) -> None:
    walk.state.put_all(named("same", 20))
    walk.state.put_all(["price", "text", "removed", "back", "without state"])
    walk.bring_up_to_date(*named("same", 20), "price", "text", "removed", "back")
    walk.state.delete("back", revision=2)
    walk.bring_up_to_date("back")
    walk.state.put("price", 2, price="5.00")
    walk.state.put("text", 2, title="Blue kettle")
    walk.state.delete("removed", revision=2)
    walk.state.put("back", 3)
    walk.state.put("new")
    foreign = walk.index.fetch(COLLECTION, ["same000"], vectors=True)["same000"]
    walk.index.upsert(
        COLLECTION,
        [Point("stranger", foreign.vectors, {**foreign.payload, "product_id": "stranger"})],
        ticket=1,
    )
    found = walk.run()
    assert sorted(walk.announced()) == [
        "back",
        "new",
        "price",
        "removed",
        "stranger",
        "text",
        "without state",
    ]
    assert found == Reconciled(items=25, points=24, outdated=3, missing=2, surplus=2)
    assert found.announced == 7
    assert {sent.topic for sent in walk.publisher.sent} == {TOPICS.changed_bulk.name}


def test_once_the_hints_are_served_there_is_nothing_left_to_announce(walk: Walk) -> None:
    walk.state.put_all(named("p", 10))
    assert walk.run().missing == 10
    walk.bring_up_to_date(*walk.announced())
    assert walk.run().announced == 0


def test_another_text_recipe_makes_every_point_outdated(walk: Walk) -> None:
    ids = named("p", 10)
    walk.state.put_all(ids)
    walk.bring_up_to_date(*ids)
    other = ProductText(TextSettings(gram_sizes=(3, 4)))
    assert walk.run(recipe=other).outdated == 10


def test_a_point_that_is_already_hidden_is_no_deletion(walk: Walk) -> None:
    ids = named("p", FREE_DELETES + 5)
    walk.state.put_all(ids)
    walk.bring_up_to_date(*ids)
    walk.state.delete(*ids)
    walk.bring_up_to_date(*ids)
    assert walk.run() == Reconciled(0, 0, 0, 0, 0)


def test_a_hundred_deletions_are_free_and_one_more_halts_with_both_counts_and_the_way_on(walk: Walk) -> None:
    ids = named("p", 150)
    walk.state.put_all(ids)
    walk.bring_up_to_date(*ids)
    walk.state.delete(*ids[:FREE_DELETES])
    walk.state.put("new")
    assert walk.run().surplus == FREE_DELETES
    before = len(walk.publisher.sent)
    walk.state.delete(ids[-1])
    with pytest.raises(Halt) as caught:
        walk.run()
    assert "would delete 101 of 150 points" in str(caught.value)
    assert "simstream reconcile --accept-deletes 101" in str(caught.value)
    assert len(walk.publisher.sent) == before, "something was announced all the same"
    with pytest.raises(Halt):
        walk.run(accept_deletes=100)
    assert walk.run(accept_deletes=101).surplus == 101


def test_a_hundredth_of_the_points_is_free_where_that_is_more(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.reconcile.FREE_DELETES", 1)
    ids = named("p", 350)
    walk.state.put_all(ids)
    walk.bring_up_to_date(*ids)
    walk.state.delete(*ids[:3])
    assert walk.run(batch=500).surplus == 3
    walk.state.delete(ids[3])
    with pytest.raises(Halt, match="would delete 4 of 350 points"):
        walk.run(batch=500)


def test_an_empty_redis_does_not_empty_the_index(walk: Walk, namespace: str) -> None:
    ids = named("p", 120)
    walk.state.put_all(ids)
    walk.bring_up_to_date(*ids)
    client = walk.state.store._nodes.primaries()[0]  # noqa: SLF001
    for key in client.scan_iter(match=f"{namespace}item:*"):
        client.delete(key)
    with pytest.raises(Halt, match="is this the right Redis, restored whole"):
        walk.run()
    assert walk.publisher.sent == []


def test_a_broker_that_refuses_a_hint_or_stays_silent_asks_for_another_run(walk: Walk) -> None:
    walk.state.put_all(named("p", 3))
    walk.publisher = RecordingPublisher(Answers({1: RuntimeError("too many")}))
    with pytest.raises(Transient, match="the broker refused 1 announcements: too many"):
        walk.run()
    walk.publisher = RecordingPublisher(Answers(silent=frozenset({2})))
    with pytest.raises(Transient, match="did not acknowledge every announcement"):
        walk.run()


def test_an_id_that_the_walk_over_redis_gives_twice_counts_once(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCAN may do so while keys come and go."""
    walk.state.put_all(named("p", 5))
    twice = [named("p", 5), named("p", 3)]
    monkeypatch.setattr(walk.state.store, "scan_ids", lambda *, batch: iter(twice))
    found = walk.run()
    assert (found.items, found.missing) == (5, 5)
    assert sorted(walk.announced()) == named("p", 5)


def test_a_walk_that_weighs_shoppers_finds_the_points_whose_shoppers_weigh_something_else(
    walk: Walk, namespace: str
) -> None:
    ids = named("p", 9)
    walk.state.put_all(ids)
    walk.bring_up_to_date(*ids)
    work = ItemWork("p001", ["5", 100], [(0, 0, 1_000, 8 + 16, 17)])
    nodes = walk.state.store._nodes  # noqa: SLF001
    BehaviourStore(nodes=nodes, namespace=namespace).apply_items("topic", [work], epoch=None)
    known = walk.state.store.read(["p001"])["p001"]
    assert known.behaviour is not None
    sketch = known.behaviour.fingerprint
    point = walk.index.fetch(COLLECTION, ["p001"], vectors=True)["p001"]
    shoppers = Shoppers(f"{sketch}/light", SparseVector((7,), (0.5,)))
    made = assemble("p001", known, point, recipe=RECIPE, encoded={}, now=NOW, shoppers=shoppers)
    assert made.point is not None
    walk.index.upsert(COLLECTION, [made.point], ticket=walk.state.store.draw_ticket())
    assert walk.run().announced == 0

    def weighed(name: str) -> Callable[[], Fingerprints]:
        return lambda: lambda product_ids: {one: f"{sketch}/{name}" for one in product_ids}

    assert walk.run(weigh=weighed("light")).announced == 0
    assert walk.run(weigh=weighed("heavy")).outdated == 1
    (sent,) = walk.publisher.sent
    assert ItemChanged.model_validate_json(sent.value).dimensions == [BEHAVIOUR]
