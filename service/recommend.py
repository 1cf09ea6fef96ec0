"""Recommendations for a shopper, and what is trending.

Reads   behaviour: a shopper's recent and bought items, items with the most shoppers; the index
Writes  nothing
Never   learns who a user is: the reader is given the id and knows only its keyed hash
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from schemas.api import Answer, Filter, Hit, Page, Seed
from schemas.api_watch import RecentItem, RecentView
from schemas.behaviour import BehaviourReader, Interaction, Trending, Window
from schemas.items import CATEGORY_SEPARATOR
from schemas.vectors import AnyOf, Where
from service.catalogue import Catalogue, Target, searchable
from service.errors import Unanswerable, Unavailable
from service.filters import conditions, holds
from service.hits import hit_item, rounded
from service.parameters import RecommendationOptions, TrendingForm
from service.query import QueryEngine
from service.rules import NO_RULES, CompiledRules
from service.selection import Rules
from service.settings import ServiceSettings
from service.timing import BEHAVIOUR, INDEX, Timings

#: Trending items whose payload is looked up at once.
PAGE = 100
_NOT_CONFIGURED = "behaviour store is not configured"
_COLD = "no recent item of this user can be compared: these are trending in {where} instead"


class Recommender:
    """Answers for users and for nobody in particular. Thread-safe as its collaborators are."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        engine: QueryEngine,
        behaviour: BehaviourReader | None,
        settings: ServiceSettings,
        rules: Callable[[], CompiledRules] = lambda: NO_RULES,
    ) -> None:
        self._rules = rules
        self._catalogue = catalogue
        self._engine = engine
        self._behaviour = behaviour
        self._settings = settings

    def recommended(self, user_id: str, options: RecommendationOptions, timings: Timings) -> Answer:
        """Neighbours of the user's recent items, without what was bought; trending items for a cold user.

        Raises the exceptions of service.errors.
        """
        reader = self._reader()
        target = self._catalogue.target(options.release_id, timings)
        with timings.asking(BEHAVIOUR):
            recent = reader.recent(user_id, limit=self._settings.recent_items)
            bought = reader.bought(user_id)
        with timings.asking(INDEX):
            ids = [each.item_id for each in recent]
            points = self._catalogue.index.fetch(target.collection, ids, vectors=True)
        if not options.include_bought:
            left_out = [*options.filter.exclude, *sorted(bought)]
            options = options.model_copy(
                update={"filter": options.filter.model_copy(update={"exclude": left_out})}
            )
        if options.weights is None and options.preset is None:
            options = options.model_copy(update={"weights": self._settings.recommendation_weights})
        seeds = self._seeds([each for each in recent if searchable(points.get(each.item_id))])
        if seeds:
            # The recent items may have nothing of what is weighed.
            with suppress(Unanswerable):
                return self._engine.neighbours(
                    options,
                    target,
                    timings,
                    seeds=seeds,
                    points=points,
                    returnable=bought if options.include_bought else (),
                )
        return self._for_the_cold({*ids, *bought}, options, target, timings)

    def recent(self, user_id: str, timings: Timings) -> RecentView:
        """The items that recommendations start from. Raises Unavailable."""
        reader = self._reader()
        target = self._catalogue.target(None, timings)
        with timings.asking(BEHAVIOUR):
            recent = reader.recent(user_id, limit=self._settings.recent_items)
            bought = reader.bought(user_id)
        with timings.asking(INDEX):
            ids = [each.item_id for each in recent]
            points = self._catalogue.index.fetch(target.collection, ids, vectors=False)
        shown = {
            item_id: hit_item(item_id, point.payload)
            for item_id, point in points.items()
            if not point.payload.get("deleted")
        }
        return RecentView(
            items=[
                RecentItem(
                    item_id=each.item_id,
                    type=each.type,
                    at=each.at,
                    bought=each.item_id in bought,
                    item=shown.get(each.item_id),
                )
                for each in recent
            ]
        )

    def trending(self, form: TrendingForm, timings: Timings) -> Page:
        """A page of the items with the most shoppers in a window. Raises the exceptions of service.errors."""
        target = self._catalogue.target(None, timings)
        wanted = self._rules().widened(form.filter())
        where, notes = conditions(wanted, seeds=(), groups=(), price=None)
        found = self._read(form.window, timings)
        end = form.offset + form.limit
        hits = self._hits(found, where, wanted, end + 1, target, timings)
        more, hits = len(hits) > end, hits[form.offset : end]
        if not more and len(found) >= self._settings.trending_read:
            notes.append(f"only the first {len(found)} items of the window were looked at")
        answer = _answer(hits, target, notes, timings)
        return Page(next_offset=end if more else None, **dict(answer))

    def _reader(self) -> BehaviourReader:
        if self._behaviour is None:
            raise Unavailable(BEHAVIOUR, _NOT_CONFIGURED)
        return self._behaviour

    def _seeds(self, recent: Sequence[Interaction]) -> list[Seed]:
        """The recent items as seeds, newest heaviest, by what was done with each."""
        weighed = [(each.item_id, self._settings.event_weights.get(each.type, 1.0)) for each in recent]
        kept = [(item_id, weight) for item_id, weight in weighed if weight > 0]
        return [
            Seed.model_construct(
                item_id=item_id,
                item=None,
                weight=weight * self._settings.recent_decay**rank,
                occurred_at=None,
            )
            for rank, (item_id, weight) in enumerate(kept)
        ]

    def _for_the_cold(
        self, touched: Collection[str], options: RecommendationOptions, target: Target, timings: Timings
    ) -> Answer:
        """What is trending in the categories of what the user touched, as far as known; else overall."""
        where, notes = conditions(self._rules().widened(options.filter), seeds=(), groups=(), price=None)
        found = self._read(self._settings.cold_window, timings)
        categories = self._categories(touched, target, timings)
        if categories:
            narrow = Where((*where.must, AnyOf("category", categories)), where.must_not)
            hits = self._hits(found, narrow, options.filter, options.limit, target, timings)
            if hits:
                notes.append(_COLD.format(where="the categories of the user's earlier items"))
                return _answer(hits, target, notes, timings)
        hits = self._hits(found, where, options.filter, options.limit, target, timings)
        notes.append(_COLD.format(where="the whole catalogue"))
        return _answer(hits, target, notes, timings)

    def _categories(self, item_ids: Collection[str], target: Target, timings: Timings) -> tuple[str, ...]:
        with timings.asking(INDEX):
            points = self._catalogue.index.fetch(target.collection, sorted(item_ids), vectors=False)
        paths = [point.payload.get("category_path") or () for point in points.values()]
        return tuple(sorted({CATEGORY_SEPARATOR.join(path) for path in paths if path}))

    def _read(self, window: Window, timings: Timings) -> list[Trending]:
        reader = self._reader()
        with timings.asking(BEHAVIOUR):
            return reader.trending(window, limit=self._settings.trending_read)

    def _hits(
        self,
        found: Sequence[Trending],
        where: Where,
        wanted: Filter,
        limit: int,
        target: Target,
        timings: Timings,
    ) -> list[Hit]:
        """The first `limit` that the index still shows, the filter allows and the shop does not block."""
        book = self._rules()
        most = found[0].shoppers if found else 0.0
        rules = Rules(wanted, None)
        hits: list[Hit] = []
        for each, payload in self._shown(found, target, timings):
            if len(hits) >= limit:
                break
            if holds(where, payload) and not book.refuses(payload) and rules.admit(payload):
                score = rounded(each.shoppers / most) if most > 0 else 0.0
                item = hit_item(each.item_id, payload)
                hits.append(Hit(item_id=each.item_id, score=score, dimensions={}, item=item))
        return hits

    def _shown(
        self, found: Sequence[Trending], target: Target, timings: Timings
    ) -> Iterator[tuple[Trending, Any]]:
        """Each trending item that has a point, with its payload; a page is looked up when it is reached."""
        for start in range(0, len(found), PAGE):
            page = found[start : start + PAGE]
            with timings.asking(INDEX):
                ids = [each.item_id for each in page]
                points = self._catalogue.index.fetch(target.collection, ids, vectors=False)
            for each in page:
                if each.item_id in points:
                    yield each, points[each.item_id].payload


def _answer(hits: list[Hit], target: Target, notes: list[str], timings: Timings) -> Answer:
    took_ms = round(timings.elapsed_ms(), 3)
    return Answer(items=hits, release_id=target.release_id, took_ms=took_ms, notes=notes)
