"""model/examples.py: what is judged by trains nothing, and every kind of pair is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from adapters.archive import EVENTS
from model.examples import Labelled, Prepared, prepare
from model.learning_settings import PairSettings
from model.sessions import Item, sessions_of, share_of
from model.text import ProductText
from schemas.events import Product

SETTINGS = PairSettings(max_pairs=400, unseen_share=0.2, window_share=0.25, candidates=60)
ITEMS = [f"i{number}" for number in range(60)]


def catalogue() -> dict[str, Item]:
    return {
        item: Item(
            Product(
                title=f"{item} thing",
                description=f"{item} is described here at a length that says something",
                category=["toys" if number % 2 else "books"],
                language="en",
            ),
            reviews=f"{item} is liked" if number % 3 == 0 else "",
        )
        for number, item in enumerate(ITEMS)
    }


def events(count: int, *, seed: int, start_ms: int = 0, query: bool = False) -> pa.Table:
    """Sessions of three items that lie near each other, an hour apart."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for session in range(count):
        place = int(generator.integers(len(ITEMS)))
        for step in range(3):
            rows.append(
                {
                    "shopper": f"s{session % 17}",
                    "session": f"n{seed}-{session}",
                    "product": ITEMS[(place + step) % len(ITEMS)],
                    "category": "toys",
                    "type": "click",
                    "at_ms": start_ms + session * 3_600_000 + step * 1000,
                    "position": 0,
                    "query": f"find {ITEMS[(place + step) % len(ITEMS)]}" if query else None,
                    "topic": "t",
                    "partition": 0,
                    "offset": len(rows),
                }
            )
    return pa.Table.from_pylist(rows, schema=EVENTS)


def prepared(**changes: Any) -> Prepared:
    arguments: dict[str, Any] = {
        "recent": events(200, seed=1, start_ms=10**12, query=True),
        "past": events(100, seed=2),
        "catalogue": catalogue(),
        "recipe": ProductText(),
        "settings": SETTINGS,
        "replay": 0.3,
        "seed": 1,
        "golden": [Labelled("i1", "i2"), Labelled("i1", "missing")],
    }
    return prepare(**(arguments | changes))


def test_every_kind_of_pair_is_made_and_no_more_than_was_asked() -> None:
    found = prepared()
    assert set(found.pairs.sources) == {"query", "review", "text", "past", "recent"}
    assert len(found.pairs) <= SETTINGS.max_pairs
    assert [one.name for one in found.sets] == ["new window", "unseen items", "old", "golden"]
    assert len(found.sets[-1]) == 1
    assert found.tables["categories"]["label"]


def test_golden_pairs_of_label_0_are_a_set_of_their_own_that_is_to_stay_apart() -> None:
    golden = [Labelled("i1", "i2"), Labelled("i3", "i4", 0.0), Labelled("i3", "missing", 0.0)]
    *_, near, apart = prepared(golden=golden).sets
    assert (near.name, near.apart, len(near)) == ("golden", False, 1)
    assert (apart.name, apart.apart, len(apart)) == ("golden, apart", True, 1)
    assert "i4" in apart.texts[apart.targets[0]]


def test_no_unseen_item_is_in_a_training_pair_of_any_source() -> None:
    found = prepared()
    unseen = [item for item in ITEMS if share_of("item " + item) < SETTINGS.unseen_share]
    assert unseen
    used = {int(row) for row in (*found.pairs.anchors, *found.pairs.positives)}
    named = {word for row in used for word in found.pairs.texts[row].replace(".", " ").split()}
    assert not named & set(unseen)
    without = prepared(settings=SETTINGS.model_copy(update={"unseen_share": 0.0}))
    used = {int(row) for row in (*without.pairs.anchors, *without.pairs.positives)}
    assert {word for row in used for word in without.pairs.texts[row].replace(".", " ").split()} & set(unseen)


def test_sessions_after_the_cut_train_nothing() -> None:
    recent = events(200, seed=1, start_ms=10**12)
    newest = pa.Table.from_pylist(
        [
            {**row, "product": product, "session": "newest", "at_ms": 2 * 10**12 + step, "shopper": "z"}
            for step, (row, product) in enumerate(zip(recent.to_pylist()[:2], ["i3", "i40"], strict=True))
        ],
        schema=EVENTS,
    )
    found = prepared(recent=pa.concat_tables([recent, newest]))
    texts = found.pairs.texts
    trained = {
        frozenset((texts[one].split()[0], texts[other].split()[0]))
        for one, other in zip(found.pairs.anchors, found.pairs.positives, strict=True)
    }
    assert frozenset(("i3", "i40")) not in trained
    window = found.sets[0]
    asked = {
        (window.texts[one].split()[0], window.texts[other].split()[0])
        for one, other in zip(window.queries, window.targets, strict=True)
    }
    assert ("i3", "i40") in asked


def pairs_of(found: Prepared, source: str) -> set[tuple[str, str]]:
    texts = found.pairs.texts
    rows = [row for row, name in enumerate(found.pairs.sources) if name == source]
    return {
        (texts[found.pairs.anchors[row]].split()[0], texts[found.pairs.positives[row]].split()[0])
        for row in rows
    }


def test_what_validates_trains_nothing() -> None:
    # Sessions of two items that no other session has together.
    rows = events(400, seed=1, start_ms=10**12).to_pylist()[: 2 * 900]
    items = [f"i{number}" for number in range(900)]
    for number, row in enumerate(rows):
        session, step = divmod(number, 2)
        row |= {"shopper": f"s{session}", "session": f"n{session}", "product": items[number % 900]}
        row |= {"at_ms": 10**12 + session * 60_000 + step}
    shop = {item: Item(Product(title=f"{item} thing")) for item in items}
    found = prepared(
        recent=pa.Table.from_pylist(rows, schema=EVENTS), past=EVENTS.empty_table(), catalogue=shop, golden=[]
    )
    assert found.validation is not None
    texts = found.validation.texts
    asked = {
        (texts[one].split()[0], texts[other].split()[0])
        for one, other in zip(found.validation.queries, found.validation.targets, strict=True)
    }
    assert len(asked) >= 20
    trained = pairs_of(found, "recent")
    assert len(trained) > 100
    assert not asked & (trained | {(other, one) for one, other in trained})


def test_a_few_newest_steps_validate_nothing_and_train() -> None:
    found = prepared(recent=events(40, seed=1, start_ms=10**12))
    assert found.validation is None
    assert "validation's sessions begin" not in found.ranges


def test_old_pairs_are_a_share_of_what_trains_and_not_of_the_room() -> None:
    # One session says little that is new; in the past there is much.
    found = prepared(
        recent=events(12, seed=1, start_ms=10**12),
        past=events(2_000, seed=2),
        settings=SETTINGS.model_copy(update={"max_pairs": 10_000}),
        golden=[],
    )
    recent, past = found.counts["recent pairs"], found.counts["past pairs"]
    assert recent > 10
    assert past == round(recent * 0.3 / 0.7)


def test_a_named_session_is_one_whatever_the_shopper_does_beside_it() -> None:
    rows = [
        {"shopper": "s", "session": name, "product": product, "type": "click", "at_ms": 10**12 + step,
         "category": "toys", "topic": "t", "partition": 0, "offset": step}
        for step, (name, product) in enumerate(
            [("a", "i1"), ("b", "i11"), ("a", "i2"), (None, "i2"), ("b", "i12"), ("a", "i3"), ("b", "i13")]
        )
    ]  # fmt: skip
    found = sessions_of(pa.Table.from_pylist(rows, schema=EVENTS), catalogue(), 1_000, 0.5)
    assert [[item for item, _ in session.items] for session in found] == [
        ["i1", "i2", "i3"],
        ["i11", "i12", "i13"],
        ["i2"],
    ]


def test_deleted_products_are_in_no_pair_and_no_set() -> None:
    living = {item: one for item, one in catalogue().items() if item != "i7"}
    found = prepared(catalogue=living)
    assert not any(text.startswith("i7 ") for text in found.pairs.texts)
    assert not any(text.startswith("i7 ") for one in found.sets for text in one.texts)


def test_variants_and_seen_together_are_no_negatives() -> None:
    from model.pairs import NegativeMask

    found = prepared()
    mask = NegativeMask(found.pairs)
    rows = np.arange(len(found.pairs))[:50]
    hidden, _ = mask.of_batch(rows, columns=1)
    assert hidden.any()
    assert not hidden.diagonal().any()


def test_nothing_to_learn_from_is_no_error() -> None:
    none = EVENTS.empty_table()
    found = prepared(recent=none, past=none, catalogue={}, golden=[])
    assert len(found.pairs) == 0
    assert found.sets == []


def test_prompts_stand_before_queries_and_items() -> None:
    found = prepared(prompts=("query: ", "passage: "))
    kinds = {found.pairs.texts[row].split(":")[0] for row in found.pairs.anchors}
    assert kinds == {"query", "passage"}
    assert all(text.startswith("passage: ") for one in found.sets for text in one.texts)


def test_each_period_is_a_set_of_what_trained_nothing() -> None:
    week_ms = 7 * 24 * 3_600_000
    found = prepared(period_ms=week_ms, past=events(2_000, seed=2, start_ms=10**12 - 2_000 * 3_600_000))
    periods = [one for one in found.sets if one.name.startswith("period ")]
    assert len(periods) > 5
    assert [one.name for one in periods] == sorted(one.name for one in periods)
    assert all(len(one) >= 50 and not one.slices for one in periods)
    # Without periods the other sets are the same.
    plain = prepared(past=events(2_000, seed=2, start_ms=10**12 - 2_000 * 3_600_000))
    assert [one.name for one in plain.sets] == [one.name for one in found.sets if one not in periods]
    (old,) = (one for one in plain.sets if one.name == "old")
    texts = {(old.texts[q], old.texts[t]) for q, t in zip(old.queries, old.targets, strict=True)}
    first = periods[0]
    assert {
        (first.texts[q], first.texts[t]) for q, t in zip(first.queries, first.targets, strict=True)
    } <= texts


def test_labelled_pairs_are_learned_from_unless_they_are_judged_by() -> None:
    unseen = next(item for item in ITEMS if share_of("item " + item) < SETTINGS.unseen_share)
    seen = [item for item in ITEMS if share_of("item " + item) >= SETTINGS.unseen_share]
    one, other, third = seen[:3]
    found = prepared(
        golden=[Labelled(one, other)],
        labelled=[
            Labelled(other, one),
            Labelled(one, third),
            Labelled(other, third, 0.0),
            Labelled(one, unseen),
            Labelled(one, "gone"),
        ],
    )
    assert found.counts["labelled pairs"] == 1
    texts = {item: ProductText().content(catalogue()[item].product) for item in (one, other, third)}
    rows = [row for row, source in enumerate(found.pairs.sources) if source == "labelled"]
    assert [
        (found.pairs.texts[found.pairs.anchors[row]], found.pairs.texts[found.pairs.positives[row]])
        for row in rows
    ] == [(texts[one], texts[third])]
    assert found.tables["labelled"] == {
        "a": [texts[one], texts[other]],
        "b": [texts[third], texts[third]],
        "label": [1.0, 0.0],
    }


def test_ratings_are_what_reviewers_wrote_and_how_many_stars_they_gave() -> None:
    rated = {
        item: one._replace(rating=4.0 if place % 2 else None)
        for place, (item, one) in enumerate(catalogue().items())
    }
    found = prepared(catalogue=rated).tables["ratings"]
    assert len(found["text"]) == len(found["label"]) > 3
    assert set(found["label"]) == {0.8}
    assert all(text.endswith("is liked") for text in found["text"])


def test_hard_negatives_come_from_the_index_where_one_is_asked() -> None:
    asked: list[str] = []

    def nearest(items: Sequence[str]) -> dict[str, list[str]]:
        asked.extend(items)
        return {item: [one for one in ITEMS if one != item] + ["not in the catalogue"] for item in items}

    found = prepared(hard_negatives=2, nearest=nearest)
    plain = prepared()
    assert found.pairs.negatives is not None
    assert plain.pairs.negatives is None
    assert len(found.pairs) == len(plain.pairs)
    assert found.pairs.negatives.shape == (len(found.pairs), 2)
    assert set(asked) <= set(ITEMS)
    unseen = {
        ProductText().content(catalogue()[item].product)
        for item in ITEMS
        if share_of("item " + item) < SETTINGS.unseen_share
    }
    assert not unseen & {found.pairs.texts[row] for row in found.pairs.negatives.ravel().tolist()}
    assert found.counts["index-mined pairs"] > 0
