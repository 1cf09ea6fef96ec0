"""The archive and the catalogue become examples: pairs to learn from, and sets that a release is judged by.

Reads   rows of the archive, products, review digests, labelled pairs: all in memory
Writes  nothing
Never   lets an item or a session of a judging set into a training pair

Split by time: steps of sessions after the cut are the new window, and train nothing; of the newest before it
some are for validation, and no pair is made of them. Split by item: a fixed share of the items, by a hash of
the id, is never in a training pair, of whatever release. Old sessions are split by a hash too: some are
replayed, the others are the old set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from model.evaluation import RetrievalSet
from model.example_texts import Pairs, Texts
from model.exposure import ExposureSet
from model.judging_sets import exposure_set, retrieval_set, sets_by_period
from model.learning_settings import ExposureSettings, PairSettings
from model.mining import Nearest, with_nearest_negatives
from model.pairs import PairTable, co_interactions
from model.sessions import Item, Session, new_window_from, sessions_of, share_of, steps_of, without
from model.text import ProductText
from schemas.events import Product

#: Event types that say more than a look; a query is believed to have led to what one of them names.
_CHOSEN = frozenset({"click", "cart", "purchase"})
_LONG_ENOUGH = 40
MOST_STARS = 5.0
#: Queries of a validation, at most; with fewer than the least there is none, and all sessions train.
_MOST_CHECKS, _LEAST_CHECKS = 500, 20
#: The set of golden pairs that are not similar.
APART = "golden, apart"


class Labelled(NamedTuple):
    """Two products by id, and how much they belong together: 1 wholly, 0 not at all."""

    a: str
    b: str
    label: float = 1.0


class Prepared(NamedTuple):
    """Pairs to learn from, sets to judge by, and the texts that hold the old behaviour in place.

    `counts` and `ranges` say what of, for the manifest.
    """

    pairs: PairTable
    validation: RetrievalSet | None
    sets: Sequence[RetrievalSet]
    anchors: Sequence[str]
    counts: Mapping[str, int]
    tables: Mapping[str, Mapping[str, Sequence[Any]]] = {}
    ranges: Mapping[str, str] = {}
    exposure: ExposureSet | None = None


def prepare(
    *,
    recent: pa.Table,
    past: pa.Table,
    catalogue: Mapping[str, Item],
    recipe: ProductText,
    settings: PairSettings,
    replay: float,
    seed: int,
    golden: Iterable[Labelled] = (),
    labelled: Iterable[Labelled] = (),
    prompts: tuple[str, str] = ("", ""),
    period_ms: int | None = None,
    hard_negatives: int = 0,
    nearest: Nearest | None = None,
    exposure: ExposureSettings | None = None,
) -> Prepared:
    """Everything one run needs. `prompts` are put before texts of queries and of items.

    `golden` are pairs of products by id that a release is judged by, those of label 0 by whether they
    stay apart; `labelled` ones are trained on, unless they are golden. With `period_ms` what is kept
    apart for judging is a set per period as well. With `nearest`, an index that is asked for the
    neighbours of items, so many `hard_negatives` of each pair are mined here.
    """
    generator = np.random.default_rng(seed)
    gap_ms = round(settings.session_gap_minutes * 60_000)
    fresh = [*sessions_of(recent, catalogue, gap_ms, settings.position_bias)]
    old = [*sessions_of(past, catalogue, gap_ms, settings.position_bias)]
    cut_ms = new_window_from(fresh, settings.window_share)
    before = [session for session in fresh if session.starts_ms < cut_ms]
    after = [session for session in fresh if session.starts_ms >= cut_ms]
    most_checks = min(_MOST_CHECKS, settings.max_queries)
    before, held = _held_out(before, most_checks)
    replayed = [session for session in old if share_of(session.name) >= settings.old_share]
    judged = [session for session in old if share_of(session.name) < settings.old_share]
    unseen = {item for item in catalogue if share_of("item " + item) < settings.unseen_share}

    table = Texts(catalogue, recipe, prompts)
    pairs = Pairs(table)
    room = settings.max_pairs
    golden = [pair for pair in golden if pair.a in catalogue and pair.b in catalogue]
    judged_by = {frozenset((pair.a, pair.b)) for pair in golden}
    labelled = [
        pair
        for pair in labelled
        if pair.a in catalogue
        and pair.b in catalogue
        and not unseen & {pair.a, pair.b}
        and frozenset((pair.a, pair.b)) not in judged_by
    ]
    together = [(table.item(pair.a), table.item(pair.b), pair.label) for pair in labelled if pair.label > 0]
    pairs.add("labelled", together, room)
    queries = _query_pairs(recent, catalogue, unseen, cut_ms)
    pairs.add("query", table.queries(queries), _limit(len(queries), settings.queries * room))
    reviews = [item for item in catalogue if catalogue[item].reviews and item not in unseen]
    generator.shuffle(reviews)
    pairs.add("review", table.reviews(reviews), _limit(len(reviews), settings.reviews * room))
    described = [item for item in catalogue if item not in unseen and _described(catalogue[item].product)]
    generator.shuffle(described)
    pairs.add("text", table.descriptions(described), _limit(len(described), settings.texts * room))
    left = max(0, room - len(pairs))
    weighing = {"distance": settings.distance, "decay": settings.decay, "popularity": settings.popularity}
    old_pairs, new_pairs = (
        co_interactions(without(sessions, unseen), **weighing)  # type: ignore[arg-type]
        for sessions in (replayed, before)
    )
    # A share of what is trained on, not of the room there is: little that is new takes little that is old.
    beside = left if not new_pairs else round(len(new_pairs) * replay / (1 - replay))
    for name, weights, limit in (
        ("past", old_pairs, min(int(left * replay), beside)),
        ("recent", new_pairs, left),
    ):
        pairs.relate(weights)
        order = generator.random(len(weights))
        ranked = sorted(zip(weights.items(), order, strict=True), key=lambda entry: (-entry[0][1], entry[1]))
        rows = [(table.item(one), table.item(other), weight) for ((one, other), weight), _ in ranked]
        pairs.add(name, rows, min(limit, settings.max_pairs - len(pairs)))

    often = Counter(item for session in before for item, _ in session.items)
    sets = []
    for name, steps in (
        ("new window", [*steps_of(after)]),
        ("unseen items", [step for step in steps_of(fresh) if step[1] in unseen]),
        ("old", [*steps_of(judged)]),
        ("golden", [(pair.a, pair.b) for pair in golden if pair.label > 0]),
    ):
        if steps:
            sets.append(retrieval_set(name, steps, table, catalogue, often, settings, generator))
    apart = [(pair.a, pair.b) for pair in golden if pair.label == 0]
    if apart:
        kept_apart = retrieval_set(APART, apart, table, catalogue, often, settings, generator)
        sets.append(replace(kept_apart, apart=True, slices={}))
    if period_ms is not None:
        sets += sets_by_period([*judged, *after], period_ms, table, catalogue, often, settings, generator)
    checking = [step for step in steps_of(held) if step[1] not in unseen]
    validation = (
        retrieval_set(
            "validation",
            checking,
            table,
            catalogue,
            often,
            settings,
            generator,
            most=most_checks,
        )
        if checking
        else None
    )
    counts = dict(pairs.counts)
    learned = pairs.table()
    if hard_negatives and nearest is not None:
        found = table.neighbours(learned, nearest, left_out=unseen)
        # Texts of neighbours have come to the table: its groups are made anew, its pairs are the same.
        learned = with_nearest_negatives(pairs.table(), found, count=hard_negatives, seed=seed)
        counts["index-mined"] = sum(bool(found.get(anchor)) for anchor in learned.anchors.tolist())
    anchors = [table.texts[table.item(item)] for item in sorted(catalogue)]
    generator.shuffle(anchors)
    groups = exposure or ExposureSettings()
    return Prepared(
        pairs=learned,
        validation=validation,
        sets=sets,
        exposure=exposure_set(sets, table, catalogue, settings, groups, generator) if sets else None,
        anchors=anchors[: settings.max_pairs],
        counts={
            "items": len(catalogue),
            "sessions": len(fresh),
            "old sessions": len(old),
            **{f"{name} pairs": count for name, count in counts.items() if count},
        },
        tables={
            "categories": _categories(catalogue, unseen, table),
            "ratings": _ratings(catalogue, unseen, table),
            "labelled": {
                "a": [table.texts[table.item(pair.a)] for pair in labelled],
                "b": [table.texts[table.item(pair.b)] for pair in labelled],
                "label": [pair.label for pair in labelled],
            },
        },
        ranges={
            name: f"{_moment(min(times))} to {_moment(max(times))}"
            for name, times in (
                ("past sessions begin", [session.starts_ms for session in old]),
                ("sessions trained on begin", [session.starts_ms for session in before]),
                ("validation's sessions begin", [session.starts_ms for session in held]),
                ("new window's sessions begin", [session.starts_ms for session in after]),
            )
            if times
        },
    )


def _held_out(sessions: Sequence[Session], most: int) -> tuple[list[Session], list[Session]]:
    """What trains, and what validates: of the newest tenth sessions with `most` steps, drawn by a hash."""
    newest = sessions[len(sessions) - len(sessions) // 10 :]
    names: set[str] = set()
    steps = 0
    for session in sorted(newest, key=lambda session: share_of("validation " + session.name)):
        if steps < most and len(session.items) > 1:
            names.add(session.name)
            steps += len(session.items) - 1
    if steps < _LEAST_CHECKS:
        return [*sessions], []
    return (
        [session for session in sessions if session.name not in names],
        [session for session in newest if session.name in names],
    )


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="minutes")


def _categories(catalogue: Mapping[str, Item], unseen: set[str], table: Texts) -> dict[str, Sequence[Any]]:
    """Texts of items and the number of their top category, for a task of the recipe that asks for it."""
    named = [item for item in sorted(catalogue) if catalogue[item].product.category and item not in unseen]
    numbers: dict[str, int] = {}
    labels = [numbers.setdefault(catalogue[item].product.category[0], len(numbers)) for item in named]
    # By the title alone: the item's own text names its category.
    return {"text": [table.title(item) for item in named], "label": labels}


def _ratings(catalogue: Mapping[str, Item], unseen: set[str], table: Texts) -> dict[str, Sequence[Any]]:
    """What reviewers wrote of an item and how they rated it, 0 to 1, for a task that asks for it."""
    rated = [
        (item, rating)
        for item in sorted(catalogue)
        if item not in unseen and catalogue[item].reviews and (rating := catalogue[item].rating) is not None
    ]
    return {
        "text": [table.review(item) for item, _ in rated],
        "label": [rating / MOST_STARS for _, rating in rated],
    }


def _query_pairs(
    table: pa.Table, catalogue: Mapping[str, Item], unseen: set[str], cut_ms: float
) -> list[tuple[str, str]]:
    rows = zip(*(table[name].to_pylist() for name in ("query", "product", "type", "at_ms")), strict=True)
    found = Counter(
        (query.strip(), product)
        for query, product, kind, at_ms in rows
        if query
        and query.strip()
        and kind in _CHOSEN
        and at_ms < cut_ms
        and product in catalogue
        and product not in unseen
    )
    return [pair for pair, _ in found.most_common()]


def _described(product: Product) -> bool:
    return len(product.description or "") >= _LONG_ENOUGH


def _limit(there: int, wanted: float) -> int:
    return min(there, int(wanted))
