"""What an item's reviews should be, in plain Python: from all events at once, with nothing of the Lua."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from adapters.redis_reviews import LedgerEntry, ReviewWrite


@dataclass(frozen=True, slots=True)
class Reviews:
    """The end state of one product."""

    ledger: dict[str, LedgerEntry]
    #: Ratings of live reviews: mean, count, how many of 0 to 5 stars. None without any.
    rating: tuple[float, int, tuple[int, ...]] | None
    #: review id -> text of those that are kept.
    texts: dict[str, str]


def expected(events: Iterable[ReviewWrite], *, max_texts: int) -> Reviews:
    """The newest event of each review; of the live texts those above the floor."""
    seen = list(events)
    newest: dict[str, ReviewWrite] = {}
    best: dict[str, int] = {}
    for event in seen:
        newest[event.review_id] = max(newest.get(event.review_id, event), event, key=_order)
        if event.text:
            best[event.review_id] = max(best.get(event.review_id, event.rank), event.rank)
    ranks = sorted(best.values(), reverse=True)
    floor = ranks[max_texts] if len(ranks) > max_texts else -math.inf
    live = [event for event in newest.values() if event.live]
    rated = [Fraction(round(one.rating * 1_000_000), 1_000_000) for one in live if one.rating is not None]
    stars = [math.floor(rating + Fraction(1, 2)) for rating in rated]
    return Reviews(
        ledger={
            review_id: LedgerEntry(one.revision, one.at, one.live, one.rating, one.votes, one.shopper)
            for review_id, one in sorted(newest.items())
        },
        rating=(float(sum(rated) / len(rated)), len(rated), tuple(stars.count(star) for star in range(6)))
        if rated
        else None,
        texts={one.review_id: one.text for one in live if one.text and one.rank > floor},
    )


def _order(event: ReviewWrite) -> tuple[int, int, bytes]:
    return event.revision, event.timestamp_ms, event.body_hash
