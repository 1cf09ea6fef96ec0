"""The data sets of benchmarks/quality.py: what is in their catalogues, what is asked, and what answers it.

Reads   a folder of data sets
Never   decides what is weighed
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from benchmarks.matching import EVERY_PAIR, matches, read_products
from benchmarks.quality_index import NOW, Contents
from benchmarks.sketching import Interactions
from consumers.review_digest import review_digest
from consumers.reviews import ReviewsSettings, plain
from schemas.api import Seed
from schemas.events import ProductUpserted

SEED = 5
GOOD_RATING = 3.5


@dataclass(frozen=True)
class Question:
    """Seeds, or a shopper; and the items that answer it. `half` is "choose" or "report"."""

    relevant: frozenset[str]
    seeds: Sequence[Seed] = ()
    user: str | None = None
    half: str = "report"


@dataclass(frozen=True)
class DataSet:
    """A catalogue and its questions, under one name per kind of question."""

    contents: Contents
    questions: Mapping[str, Sequence[Question]]
    dimensions: Sequence[str]


def pairs(data: Path, name: str) -> DataSet:
    """Two shops: one is the catalogue, the other's products are asked for; all labelled pairs."""
    gold = matches(data, name, EVERY_PAIR)
    offers = read_products(data, name, "a")
    asked = [Question(frozenset(wanted), [Seed(item=offers[seed])]) for seed, wanted in gold.items()]
    products = [
        ProductUpserted(product_id=product_id, occurred_at=NOW, **product.model_dump())
        for product_id, product in read_products(data, name, "b").items()
    ]
    return DataSet(Contents(products), {"match": asked}, ("content", "lexical"))


def beauty(data: Path) -> DataSet:
    """Each shopper's last item is asked for; all others are the shoppers' history."""
    histories = {
        row["user_id"]: row["product_ids"] for row in rows(data / "amazon-beauty" / "sequences.jsonl.gz")
    }
    before = {user: items[:-1] for user, items in histories.items()}
    asked = [Question(frozenset(items[-1:]), user=user) for user, items in sorted(histories.items())]
    products = products_of(data / "amazon-beauty" / "products.jsonl.gz")
    contents = Contents(products, interactions=ordered_events(before, products), histories=before)
    return DataSet(contents, {"next item": asked}, ("content", "lexical", "behaviour"))


def office(data: Path) -> DataSet:
    """Next items of the later examples; shoppers' behaviour is that of the earlier ones alone."""
    products = products_of(data / "amazon-office" / "products.jsonl.gz")
    earlier: dict[str, list[str]] = {}
    for row in rows(data / "amazon-office" / "next_item_valid.jsonl.gz"):
        items = [*row["history"], row["next"]]
        if len(items) > len(earlier.get(row["user_id"], ())):
            earlier[row["user_id"]] = items
    histories, asked = {}, []
    for number, row in enumerate(rows(data / "amazon-office" / "next_item_test.jsonl.gz")):
        # The same shopper asks several times, each time with what was known then.
        name = f"{row['user_id']}/{number}"
        histories[name] = row["history"]
        if row["next"] not in row["history"]:
            asked.append(Question(frozenset([row["next"]]), user=name))
    contents = Contents(products, interactions=ordered_events(earlier, products), histories=histories)
    return DataSet(contents, {"next item": asked}, ("content", "lexical", "behaviour"))


def magazines(data: Path) -> DataSet:
    """What shoppers also viewed and also bought, as the shop listed it; reviews and reviewers are few."""
    folder = data / "amazon-magazines"
    products = products_of(folder / "products.jsonl.gz")
    known = {product.product_id for product in products}
    reviews: dict[str, list[_Review]] = {}
    liked: dict[str, list[str]] = {}
    settings = ReviewsSettings()
    for row in rows(folder / "reviews.jsonl.gz"):
        text = plain(row.get("title"), row.get("text"), chars=settings.text_chars)
        at = int(row["occurred_at"]) * 1_000_000
        reviews.setdefault(row["product_id"], []).append(
            _Review(row["review_id"], row.get("helpful_votes") or 0, at, text)
        )
        if row["rating"] >= GOOD_RATING:
            liked.setdefault(row["user_id"], []).append(row["product_id"])
    digests = {item: review_digest(own, chars=settings.digest_chars) for item, own in reviews.items()}
    draw = Random(SEED)
    asked: dict[str, list[Question]] = {"also viewed": [], "also bought": []}
    for row in rows(folder / "related.jsonl.gz"):
        half = draw.choice(["choose", "report"])
        for kind, column in (("also viewed", "also_view"), ("also bought", "also_buy")):
            relevant = frozenset(row.get(column) or ()) & known - {row["product_id"]}
            if relevant and row["product_id"] in known:
                asked[kind].append(Question(relevant, [Seed(item_id=row["product_id"])], half=half))
    contents = Contents(products, digests, ordered_events(liked, products))
    return DataSet(contents, asked, ("content", "lexical", "reviews", "behaviour"))


def taobao(data: Path) -> DataSet:
    """Chinese titles and attributes; products of one cluster are the same thing."""
    folder = data / "taobao-zh"
    listed = [row for name in ("train", "val") for row in rows(folder / f"products_{name}.jsonl.gz")]
    products = [
        ProductUpserted(
            product_id=row["product_id"],
            title=row["title"],
            category=row["category"].split("/"),
            attributes=_attributes(row.get("attributes") or ""),
            language="zh",
            occurred_at=NOW,
        )
        for row in {row["product_id"]: row for row in listed}.values()
    ]
    clusters: dict[str, set[str]] = {}
    for row in listed:
        clusters.setdefault(row["cluster"], set()).add(row["product_id"])
    asked = [
        Question(frozenset(members - {one}), [Seed(item_id=one)])
        for members in clusters.values()
        for one in sorted(members)
        if len(members) > 1
    ]
    return DataSet(Contents(products), {"same cluster": asked}, ("content", "lexical"))


def smaller(whole: DataSet, *, items: int, asked: int) -> DataSet:
    """At most so many questions of each kind, and of the catalogue what answers them and some more."""
    draw = Random(SEED)
    questions = {kind: draw.sample(list(of), min(asked, len(of))) for kind, of in whole.questions.items()}
    needed = {item for of in questions.values() for one in of for item in one.relevant}
    needed |= {seed.item_id for of in questions.values() for one in of for seed in one.seeds if seed.item_id}
    others = [one for one in whole.contents.products if one.product_id not in needed]
    kept = needed | {
        one.product_id for one in draw.sample(others, max(0, min(len(others), items - len(needed))))
    }
    products = [one for one in whole.contents.products if one.product_id in kept]
    return replace(whole, contents=replace(whole.contents, products=products), questions=questions)


class _Review(NamedTuple):
    """One review as the digest wants it. Implements consumers.review_digest.ReviewText."""

    review_id: str
    votes: int
    at: int
    text: str


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped file, one a line."""
    with gzip.open(path, "rt") as lines:
        yield from map(json.loads, lines)


def products_of(path: Path) -> list[ProductUpserted]:
    return [
        ProductUpserted(
            product_id=row["product_id"],
            # Some have none, and an item needs one.
            title=(row.get("title") or row.get("brand") or row["product_id"])[:2_000],
            brand=row.get("brand"),
            category=(row.get("category") or "").split(" > ") if row.get("category") else [],
            description=row.get("description"),
            occurred_at=NOW,
        )
        for row in rows(path)
    ]


def _attributes(text: str) -> dict[str, str]:
    """`name#:#value#;#name#:#value` as a mapping."""
    found = (part.partition("#:#") for part in text.split("#;#"))
    return {name: value for name, _, value in found if name and value}


def ordered_events(
    histories: Mapping[str, Sequence[str]], products: Sequence[ProductUpserted]
) -> Interactions:
    """Histories as events, one a minute."""
    place = {product.product_id: number for number, product in enumerate(products)}
    shoppers = sorted(histories)
    events = [
        (number, place[item], age)
        for number, user in enumerate(shoppers)
        for age, item in enumerate(histories[user])
        if item in place
    ]
    columns = np.array(events, dtype=np.int64).reshape(-1, 3)
    return Interactions(
        shoppers=shoppers,
        items=[product.product_id for product in products],
        shopper=columns[:, 0],
        item=columns[:, 1],
        at_seconds=(NOW.timestamp() + 60.0 * columns[:, 2]).astype(np.float64),
        session=columns[:, 0],
    )
