"""What reviewers say about an item's aspects, as it was heard last.

Reads   opinions in Redis; the index, for whether the item is there
Writes  nothing
Never   hears anything itself: consumers/opinions.py does
"""

from __future__ import annotations

from schemas.opinions import KnownOpinions, OpinionReader, OpinionsView
from service.catalogue import Catalogue
from service.errors import Unavailable
from service.timing import ITEMS, Timings


class Opinions:
    """Looks opinions up. Thread-safe as its collaborators are."""

    def __init__(self, *, catalogue: Catalogue, reader: OpinionReader | None) -> None:
        """Without a `reader` what is asked for is Unavailable."""
        self._catalogue = catalogue
        self._reader = reader

    def opinions(self, item_id: str, timings: Timings) -> OpinionsView:
        """An item's opinions. Raises UnknownItem, DeletedItem, NotSearchableYet, Unavailable."""
        target = self._catalogue.target(None, timings)
        self._catalogue.seed_points(target, [item_id], timings)
        if self._reader is None:
            raise Unavailable(ITEMS, "this service was started without a store of opinions")
        with timings.asking(ITEMS):
            known = self._reader.of(item_id)
        return OpinionsView(
            item_id=item_id,
            head=known.item.head if known.item is not None else known.head,
            reviews=known.item.reviews if known.item is not None else 0,
            aspects=known.item.aspects if known.item is not None else [],
            evidence=_evidence(known),
            release_id=target.release_id,
            took_ms=round(timings.elapsed_ms(), 3),
        )


def _evidence(known: KnownOpinions) -> str:
    if known.item is None:
        if known.head is None:
            return "no head listens: `simstream opinions train` makes one from the stars of reviews"
        return "no review of the item has been heard yet"
    said = f"{len(known.item.aspects)} aspects in {known.item.reviews} reviews"
    if known.head is None:
        return f"{said}; no head listens any more, so this is how it was"
    return said if known.head == known.item.head else f"{said}, heard by the head before {known.head}"
