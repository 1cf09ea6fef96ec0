"""Pairs for people to label: catalogue, release, behaviour and what is labelled already, put together.

Reads   item state in Redis; the archive as it is; the release's files; files of pairs, approved reports
Writes  a file of pairs that does not exist yet
Never   proposes an item that is in no training pair (pairs of it would teach nothing), nor names a shopper
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from adapters.archive import Archive
from adapters.releases import ReleaseStore
from app.learning_inputs import catalogue, labelled_pairs, path_of, reported_pairs
from app.settings import Settings
from app.wiring import open_reports, open_store
from schemas.errors import Halt

if TYPE_CHECKING:
    from model.sessions import Item
    from model.suggestions import Basis


class Proposed(NamedTuple):
    """One pair to label. `probability` that they belong together; None where nothing is known yet."""

    a: str
    b: str
    probability: float | None
    title_a: str
    title_b: str


class Proposal(NamedTuple):
    """Pairs to label, the least sure first; of how many, among how many items, and what was learned from."""

    pairs: list[Proposed]
    pool: int
    items: int
    basis: Basis


def propose(
    settings: Settings,
    *,
    parent: str,
    count: int,
    most_items: int,
    most_per_item: int,
    seed: int,
    say: Callable[[str], None],
) -> Proposal:
    """`count` pairs, of at most `most_items` of the catalogue, drawn where there are more.

    Raises Halt where there are too few items to compare.
    """
    from model.pair_features import Likeness
    from model.pairs import co_interactions, duplicate_groups
    from model.release import release_recipe
    from model.sessions import sessions_of, share_of
    from model.suggestions import suggested
    from model.vectors import ReleaseVectors

    store = ReleaseStore(settings.releases)
    manifest, text = store.manifest(parent), release_recipe(store, parent)
    items = {
        item: found
        for item, found in catalogue(open_store(settings)).items()
        if share_of("item " + item) >= settings.pairs.unseen_share
    }
    known = labelled_pairs(path_of(settings.training.labelled))
    judged = [*labelled_pairs(path_of(settings.training.golden)), *reported_pairs(open_reports(settings))]
    # What is labelled is always among them: it is what the classifier learns from.
    ids = _drawn(items, most_items, {item for pair in known for item in pair[:2]}, seed)
    if len(ids) < 2:
        raise Halt("there are no two items in the catalogue to compare")
    row_of = {item: row for row, item in enumerate(ids)}
    products = [items[item].product for item in ids]

    def rows(pairs: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
        found = [(row_of[a], row_of[b]) for a, b in pairs if a in row_of and b in row_of]
        return [(min(pair), max(pair)) for pair in found]

    archive, gap_ms = Archive(Path(settings.archive.folder)), settings.pairs.session_gap_minutes * 60_000
    events = pa.concat_tables([archive.past(), archive.recent()])
    sessions = sessions_of(events, {item: items[item] for item in ids}, round(gap_ms), 0.0)
    weights = co_interactions(
        (session.items for session in sessions),
        distance=settings.pairs.distance,
        decay=settings.pairs.decay,
        popularity=settings.pairs.popularity,
    )
    together = {pair: weight for named, weight in weights.items() for pair in rows([named])}
    say(f"{len(ids)} items, {len(together)} pairs that shoppers had together, {len(known)} labelled")
    texts = [text.content(product) for product in products]
    encode = ReleaseVectors(store.fetch(parent), manifest, settings.model)
    try:
        vectors = encode([manifest.encoder.passage_prompt + one for one in texts])
    finally:
        encode.close()
    found = suggested(
        Likeness(products, vectors, recipe=text, together=together),
        vectors,
        groups=duplicate_groups(texts, [product.group_id for product in products]),
        kinds=[product.category[0] if product.category else "" for product in products],
        labelled={pair: one.label for one in known for pair in rows([(one.a, one.b)])},
        left_out=rows((one.a, one.b) for one in judged),
        together=together,
        count=count,
        most_per_item=most_per_item,
        seed=seed,
    )
    return Proposal(
        [
            Proposed(ids[one.a], ids[one.b], one.probability, products[one.a].title, products[one.b].title)
            for one in found.pairs
        ],
        found.pool,
        len(ids),
        found.basis,
    )


def write_pairs(pairs: Iterable[Proposed], path: Path) -> None:
    """A line a pair, with an empty label for a person to fill in.

    Raises ValueError where the file exists: somebody may have filled it in.
    """
    lines = [
        json.dumps(
            {
                "label": None,
                "title_a": pair.title_a,
                "title_b": pair.title_b,
                "probability": None if pair.probability is None else round(pair.probability, 3),
                "a": pair.a,
                "b": pair.b,
            },
            ensure_ascii=False,
        )
        + "\n"
        for pair in pairs
    ]
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(lines)
    except FileExistsError:
        raise ValueError(f"{path} is there already, with labels perhaps: name another file") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error


def _drawn(items: dict[str, Item], most: int, always: set[str], seed: int) -> list[str]:
    """So many ids, in order: those that are to be there, and others by chance."""
    kept = sorted(always & set(items))
    others = sorted(set(items) - always)
    room = max(0, most - len(kept))
    if len(others) > room:
        draw = np.random.default_rng(seed)
        others = [others[row] for row in draw.choice(len(others), room, replace=False)]
    return sorted([*kept, *others])
