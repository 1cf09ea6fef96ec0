"""The archive and the catalogue become examples: pairs to learn from, and sets that a release is judged by.

Reads   rows of the archive, products, review digests, labelled pairs: all in memory
Writes  nothing
Never   lets an item or a session of a judging set into a training pair

Split by time: steps of sessions after the cut are the new window, and train nothing. Split by item: a fixed
share of the items, by a hash of the id, is never in a training pair, of whatever release. Old sessions are
split by a hash too: some are replayed, the others are the old set.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from adapters.archive import session_numbers
from model.evaluation import RetrievalSet
from model.learning_settings import PairSettings
from model.pairs import PairTable, co_interactions, duplicate_groups, seen_weight
from model.text import ProductText
from model.transfer import PERIOD
from schemas.events import Product

#: Event types that say more than a look; a query is believed to have led to what one of them names.
_CHOSEN = frozenset({"click", "cart", "purchase"})
_LONG_ENOUGH = 40
#: The newest periods that are judged apart, the steps one must have, and the queries asked of it.
_PERIODS, _PERIOD_STEPS, _PERIOD_QUERIES = 12, 50, 500


class Item(NamedTuple):
    """A live item as training sees it."""

    product: Product
    reviews: str = ""


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


class Session(NamedTuple):
    """Items in order, each with how much it counts (`seen_weight`)."""

    items: list[tuple[str, float]]
    starts_ms: int
    name: str


def prepare(
    *,
    recent: pa.Table,
    past: pa.Table,
    catalogue: Mapping[str, Item],
    recipe: ProductText,
    settings: PairSettings,
    replay: float,
    seed: int,
    labelled: Iterable[tuple[str, str]] = (),
    prompts: tuple[str, str] = ("", ""),
    period_ms: int | None = None,
) -> Prepared:
    """Everything one run needs. `prompts` are put before texts of queries and of items.

    `labelled` are pairs of products that belong together, by id: the golden set. With `period_ms` what is
    kept apart for judging is a set per period as well.
    """
    generator = np.random.default_rng(seed)
    gap_ms = round(settings.session_gap_minutes * 60_000)
    fresh = [*sessions_of(recent, catalogue, gap_ms, settings.position_bias)]
    old = [*sessions_of(past, catalogue, gap_ms, settings.position_bias)]
    cut_ms = _cut(fresh, settings.window_share)
    before = [session for session in fresh if session.starts_ms < cut_ms]
    after = [session for session in fresh if session.starts_ms >= cut_ms]
    replayed = [session for session in old if share_of(session.name) >= settings.old_share]
    judged = [session for session in old if share_of(session.name) < settings.old_share]
    unseen = {item for item in catalogue if share_of("item " + item) < settings.unseen_share}

    table = _Texts(catalogue, recipe, prompts)
    pairs = _Pairs(table)
    room = settings.max_pairs
    queries = _query_pairs(recent, catalogue, unseen, cut_ms)
    pairs.add("query", table.queries(queries), _limit(len(queries), settings.queries * room))
    reviews = [item for item in catalogue if catalogue[item].reviews and item not in unseen]
    generator.shuffle(reviews)
    pairs.add("review", table.reviews(reviews), _limit(len(reviews), settings.reviews * room))
    described = [item for item in catalogue if item not in unseen and _described(catalogue[item].product)]
    generator.shuffle(described)
    pairs.add("text", table.descriptions(described), _limit(len(described), settings.texts * room))
    left = room - len(pairs)
    weighing = {"distance": settings.distance, "decay": settings.decay, "popularity": settings.popularity}
    for name, sessions, limit in (
        ("past", replayed, int(left * replay)),
        ("recent", before, left),
    ):
        weights = co_interactions(_seen(sessions, unseen), **weighing)  # type: ignore[arg-type]
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
        ("golden", [(one, other) for one, other in labelled if one in catalogue and other in catalogue]),
    ):
        if steps:
            sets.append(_retrieval(name, steps, table, catalogue, often, settings, generator))
    if period_ms is not None:
        sets += _by_period([*judged, *after], period_ms, table, catalogue, often, settings, generator)
    checking = [step for step in steps_of(before[-len(before) // 10 :]) if step[1] not in unseen]
    validation = (
        _retrieval("validation", checking, table, catalogue, often, settings, generator, most=500)
        if checking
        else None
    )
    anchors = [table.texts[table.item(item)] for item in sorted(catalogue)]
    generator.shuffle(anchors)
    return Prepared(
        pairs=pairs.table(),
        validation=validation,
        sets=sets,
        anchors=anchors[: settings.max_pairs],
        counts={
            "items": len(catalogue),
            "sessions": len(fresh),
            "old sessions": len(old),
            **{f"{name} pairs": count for name, count in pairs.counts.items()},
        },
        tables={"categories": _categories(catalogue, unseen, table)},
        ranges={
            name: f"{_moment(min(times))} to {_moment(max(times))}"
            for name, times in (
                ("past sessions begin", [session.starts_ms for session in old]),
                ("sessions trained on begin", [session.starts_ms for session in before]),
                ("new window's sessions begin", [session.starts_ms for session in after]),
            )
            if times
        },
    )


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="minutes")


def _categories(catalogue: Mapping[str, Item], unseen: set[str], table: _Texts) -> dict[str, Sequence[Any]]:
    """Texts of items and the number of their top category, for a task of the recipe that asks for it."""
    named = [item for item in sorted(catalogue) if catalogue[item].product.category and item not in unseen]
    numbers: dict[str, int] = {}
    labels = [numbers.setdefault(catalogue[item].product.category[0], len(numbers)) for item in named]
    # By the title alone: the item's own text names its category.
    return {"text": [table.title(item) for item in named], "label": labels}


def share_of(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, the same in every process and run."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64


class _Texts:
    """Texts by row, each item's once; what is the same thing has one group."""

    def __init__(self, catalogue: Mapping[str, Item], recipe: ProductText, prompts: tuple[str, str]) -> None:
        self._catalogue = catalogue
        self._recipe = recipe
        self._query_prompt, self._prompt = prompts
        self._rows: dict[str, int] = {}
        self.texts: list[str] = []
        self.names: list[str | None] = []

    def item(self, item: str) -> int:
        if item not in self._rows:
            product = self._catalogue[item].product
            self._rows[item] = self._add(
                self._prompt + self._recipe.content(product), product.group_id or "item " + item
            )
        return self._rows[item]

    def queries(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int, float]]:
        return [(self._add(self._query_prompt + query, None), self.item(item), 1.0) for query, item in pairs]

    def reviews(self, items: Sequence[str]) -> list[tuple[int, int, float]]:
        return [
            (self._add(self._prompt + self._catalogue[item].reviews, self._name(item)), self.item(item), 1.0)
            for item in items
        ]

    def descriptions(self, items: Sequence[str]) -> list[tuple[int, int, float]]:
        rows = []
        for item in items:
            product = self._catalogue[item].product
            text = self._recipe.content(Product(title=(product.description or "")[:2_000]))
            name = self._name(item)
            rows.append((self._add(self.title(item), name), self._add(self._prompt + text, name), 1.0))
        return rows

    def title(self, item: str) -> str:
        return self._prompt + self._recipe.content(Product(title=self._catalogue[item].product.title))

    def _name(self, item: str) -> str:
        return self._catalogue[item].product.group_id or "item " + item

    def _add(self, text: str, name: str | None) -> int:
        self.texts.append(text)
        self.names.append(name)
        return len(self.texts) - 1


class _Pairs:
    """Pairs as they are collected."""

    def __init__(self, texts: _Texts) -> None:
        self._texts = texts
        self._rows: list[tuple[int, int, float]] = []
        self._sources: list[str] = []
        self._related: set[tuple[int, int]] = set()
        self.counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def relate(self, weights: Iterable[tuple[str, str]]) -> None:
        """These are never each other's negatives, trained on or not."""
        self._related.update((self._texts.item(one), self._texts.item(other)) for one, other in weights)

    def add(self, source: str, rows: Sequence[tuple[int, int, float]], limit: int) -> None:
        taken = rows[: max(0, limit)]
        self._rows += taken
        self._sources += [source] * len(taken)
        self.counts[source] = len(taken)

    def table(self) -> PairTable:
        groups = duplicate_groups(self._texts.texts, self._texts.names)
        rows = np.array([row[:2] for row in self._rows], dtype=np.int64).reshape(-1, 2)
        weights = np.array([row[2] for row in self._rows], dtype=np.float32)
        # Between sources a pair counts the same; within co-interactions by its weight, tempered.
        for source in set(self._sources):
            of = np.array([name == source for name in self._sources])
            weights[of] = np.sqrt(weights[of] / max(1e-12, float(weights[of].mean())))
        return PairTable(
            texts=self._texts.texts,
            groups=groups,
            anchors=rows[:, 0],
            positives=rows[:, 1],
            weights=weights,
            related=sorted((int(groups[one]), int(groups[other])) for one, other in self._related),
            sources=self._sources,
        )


def sessions_of(
    table: pa.Table, catalogue: Mapping[str, Item], gap_ms: int, bias: float
) -> Sequence[Session]:
    """Sessions in the order of their start, of live items alone, an item at a time once."""
    ordered = table.sort_by([("shopper", "ascending"), ("at_ms", "ascending"), ("offset", "ascending")])
    numbers = session_numbers(ordered, gap_ms=gap_ms)
    columns: Any = [ordered[name].to_pylist() for name in ("shopper", "product", "at_ms", "position")]
    found: dict[int, Session] = {}
    for number, shopper, product, at_ms, position in zip(numbers.tolist(), *columns, strict=True):
        if product in catalogue:
            session = found.setdefault(number, Session([], at_ms, f"session {shopper} {at_ms}"))
            if not session.items or session.items[-1][0] != product:
                session.items.append((product, seen_weight(position, bias=bias)))
    return sorted(found.values(), key=lambda session: (session.starts_ms, session.name))


def _cut(sessions: Sequence[Session], share: float) -> float:
    """The time after which sessions are the new window: so many of the sessions with two items at least."""
    times = [session.starts_ms for session in sessions if len(session.items) > 1]
    return float(np.quantile(times, 1 - share)) if len(times) > 1 else float("inf")


def _seen(sessions: Iterable[Session], unseen: set[str]) -> list[list[tuple[str, float]]]:
    return [[entry for entry in session.items if entry[0] not in unseen] for session in sessions]


def steps_of(sessions: Iterable[Session]) -> Iterable[tuple[str, str]]:
    """Each item of a session and the one after it."""
    for session in sessions:
        for (one, _), (other, _) in zip(session.items, session.items[1:], strict=False):
            yield one, other


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


def _by_period(
    sessions: Sequence[Session],
    period_ms: int,
    table: _Texts,
    catalogue: Mapping[str, Item],
    often: Counter[str],
    settings: PairSettings,
    generator: np.random.Generator,
) -> list[RetrievalSet]:
    """A set for each of the newest periods with enough steps, all ranked among much the same items."""
    found: dict[int, list[tuple[str, str]]] = {}
    for session in sessions:
        found.setdefault(session.starts_ms // period_ms * period_ms, []).extend(steps_of([session]))
    starts = [start for start, steps in sorted(found.items()) if len(steps) >= _PERIOD_STEPS][-_PERIODS:]
    others = sorted(catalogue)
    generator.shuffle(others)
    return [
        _retrieval(
            f"{PERIOD}{datetime.fromtimestamp(start / 1000, UTC).date()}",
            found[start],
            table,
            catalogue,
            often,
            settings,
            generator,
            most=_PERIOD_QUERIES,
            others=others,
        )
        for start in starts
    ]


def _retrieval(
    name: str,
    steps: Sequence[tuple[str, str]],
    table: _Texts,
    catalogue: Mapping[str, Item],
    often: Counter[str],
    settings: PairSettings,
    generator: np.random.Generator,
    *,
    most: int | None = None,
    others: Sequence[str] | None = None,
) -> RetrievalSet:
    """At most so many steps, ranked among their own items and others, with slices by what is wanted.

    Where the `others` are given they fill up, in their order, and there are no slices.
    """
    limit = min(most or settings.max_queries, len(steps))
    chosen = [steps[row] for row in sorted(generator.choice(len(steps), limit, replace=False))]
    items = list(dict.fromkeys(item for step in chosen for item in step))
    if others is None:
        rest = sorted(set(catalogue) - set(items))
        generator.shuffle(rest)
    else:
        own = set(items)
        rest = [item for item in others if item not in own]
    items += rest[: max(0, settings.candidates - len(items))]
    rows = {item: row for row, item in enumerate(items)}
    targets = [target for _, target in chosen]
    slices = _slices(targets, items, catalogue, often) if others is None else {}
    return RetrievalSet(
        name=name,
        texts=[table.texts[table.item(item)] for item in items],
        queries=np.array([rows[query] for query, _ in chosen], dtype=np.int64),
        targets=np.array([rows[target] for target in targets], dtype=np.int64),
        slices=slices,
    )


def _slices(
    targets: Sequence[str], items: Sequence[str], catalogue: Mapping[str, Item], often: Counter[str]
) -> dict[str, NDArray[np.bool_]]:
    counts = np.array([often[target] for target in targets])
    popular = np.quantile([often[item] for item in items], 0.9)
    slices: dict[str, NDArray[np.bool_]] = {
        "cold": counts == 0,
        "warm": counts > 0,
        "popular": counts > popular,
        "long tail": (counts > 0) & (counts <= popular),
    }
    categories = [(catalogue[target].product.category or [""])[0] for target in targets]
    languages = [catalogue[target].product.language or "" for target in targets]
    for kind, values in (("category", categories), ("language", languages)):
        for value, _ in Counter(values).most_common(8):
            if value:
                slices[f"{kind} {value}"] = np.array([one == value for one in values])
    return slices
