"""What the trainer learns from beside the archive: the catalogue, labelled pairs, the index's neighbours.

Reads   item state in Redis, files of pairs, the running service; the archive, to say what is in it
Writes  nothing
Never   names a shopper
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from adapters.archive import Archive
from adapters.redis_items import ItemStore
from adapters.redis_reports import ReportStore
from app.asking import Asker, Refused, each
from app.discovery import service_url
from app.labels import Query
from app.settings import Settings
from app.wiring import patiently
from consumers.archive import DAY_MS
from consumers.review_digest import reviews_text
from schemas.errors import Halt

if TYPE_CHECKING:
    from model.examples import Labelled
    from model.mining import Nearest
    from model.sessions import Item

log = logging.getLogger(__name__)

#: Items read from Redis at a time.
BATCH = 1_000
#: Asked of the index for each item: the very nearest, the far ones and false negatives are left out of them.
_NEIGHBOURS = 80


def catalogue(store: ItemStore) -> dict[str, Item]:
    """Every live item, as training sees it."""
    from model.sessions import Item

    found: dict[str, Item] = {}
    for ids in store.scan_ids(batch=BATCH):
        for item, state in store.read(ids).items():
            if state.product is not None:
                reviews = state.reviews
                rating = reviews.rating.mean if reviews is not None and reviews.rating is not None else None
                text = reviews_text(reviews.digest, state.opinions) if reviews is not None else ""
                found[item] = Item(state.product, text, rating)
    return found


def neighbours_by_service(settings: Settings, data_dir: Path, *, parent: str) -> Nearest:
    """Asks the running service for the nearest items by content.

    Raises Halt where another release than `parent` answers, Transient where nobody does.
    """
    client = httpx.Client(
        base_url=service_url(None, settings.service, data_dir),
        timeout=settings.service.client_timeout_seconds,
        headers=settings.api.client_headers(),
    )
    asker = Asker(client, settings.service)
    serving = asker.release()
    if serving != parent:
        raise Halt(f"the index is that of release {serving}, and hard negatives are to be those of {parent}")

    def one(item: str) -> list[str]:
        return asker.found(
            Query(item=item, relevant=frozenset()), limit=_NEIGHBOURS, weights={"content": 1.0}
        )

    def nearest(items: Sequence[str]) -> dict[str, Sequence[str]]:
        # An item that the service does not know, or that has no vector yet, has no neighbours.
        answers = zip(items, each(one, items), strict=True)
        return {item: found for item, found in answers if not isinstance(found, Refused)}

    return nearest


def labelled_pairs(path: Path | None) -> list[Labelled]:
    """Pairs of products: JSON Lines with `a`, `b`, and `label`, 1 (also where it lacks) together, 0 not.

    A label that is null is one that nobody has filled in yet (`simstream pairs suggest`): such pairs are left
    out, and a warning says how many. Raises ValueError naming the line.
    """
    from model.examples import Labelled

    if path is None:
        return []
    pairs, unfilled = [], []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                if (given := row.get("label", 1)) is None:
                    unfilled.append(number)
                    continue
                label = float(given)
                if not 0 <= label <= 1:
                    raise ValueError("label is not between 0 and 1")
                pairs.append(Labelled(str(row["a"]), str(row["b"]), label))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}: expected an object with a, b and a label from 0 to 1 ({error})"
                ) from None
    if unfilled:
        log.warning(
            "pairs_without_a_label path=%s pairs=%d first_line=%d reason=%s",
            path,
            len(unfilled),
            unfilled[0],
            "label is null and the pair left out: write 1 (together), 0 (not), or remove the line",
        )
    return pairs


def reported_pairs(reports: ReportStore) -> list[Labelled]:
    """Pairs that people reported as not similar and somebody approved: a release is judged by them."""
    from model.examples import Labelled

    approved = patiently("redis", lambda: reports.listed("approved"))
    return [Labelled(one.seed, one.item_id, 0.0) for one in approved if one.seed is not None]


def path_of(name: str | None) -> Path | None:
    """A file that a setting names; None where it names none."""
    return Path(name) if name else None


def archive_figures(settings: Settings) -> dict[str, object]:
    """What the archive holds, in numbers; no shopper is named."""
    held = Archive(Path(settings.archive.folder))
    figures: dict[str, object] = {"folder": str(held.folder)}
    period_ms = round(settings.archive.period_days * DAY_MS)
    for name, table in (("window", held.recent()), ("past", held.past())):
        times = table["at_ms"].to_pylist()
        figures[name] = {
            "events": table.num_rows,
            "shoppers": len(set(table["shopper"].to_pylist())),
            "products": len(set(table["product"].to_pylist())),
            "from": _day(min(times)) if times else None,
            "to": _day(max(times)) if times else None,
        }
        periods = Counter(_day(at // period_ms * period_ms) for at in times)
        figures[f"{name}, events by period"] = dict(sorted(periods.items()))
        figures[f"{name}, events by category"] = dict(Counter(table["category"].to_pylist()).most_common(10))
    positions = {f"{part.topic}, partition {part.partition}": part.end for part in held.parts()}
    figures["next offset"] = positions
    return figures


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()
