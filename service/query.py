"""A request becomes ranked neighbours: candidates, exact scores of the best, one fused score.

Reads   the index, one collection per request; the release's encoder where a seed is not an item; relations
Writes  nothing
Never   mixes two releases in one request; never touches an encoder when every seed is an item

The shop's rules are taken once per query, so that none is answered by halves of two versions.

Path: preset -> seeds' vectors -> one vector per dimension -> what is mined of the seeds, if the preset asks
-> one `candidates` call (prefetches + formula) -> exact `scores` of the best in every dimension -> weighted
mean over the dimensions both sides have, behaviour by its evidence -> rules and diversity -> the final few.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from schemas.api import (
    Answer,
    DimensionScore,
    Explanation,
    Hit,
    QueryOptions,
    SearchRequest,
    Seed,
    SimilarRequest,
)
from schemas.relations import RelationReader
from schemas.vectors import Point
from service.catalogue import Catalogue, Target
from service.dimensions import Dimensions
from service.errors import Unanswerable
from service.explained import Explainer
from service.filters import conditions
from service.hits import hit_item, rounded
from service.idf import RememberedIdf
from service.presets import Wanted, wanted
from service.ranking import Query, Ranker
from service.related import Relater
from service.rules import NO_RULES, CompiledRules, Seen
from service.seeds import Part, decayed, inline_parts, item_part
from service.selection import Chosen
from service.settings import ServiceSettings
from service.timing import ENCODER, Timings


class QueryEngine:
    """Answers similar and search. Thread-safe; every method blocks: the API calls it from worker threads."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        settings: ServiceSettings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rules: Callable[[], CompiledRules] = lambda: NO_RULES,
        relations: RelationReader | None = None,
        relations_away: Callable[[], bool] = lambda: False,
    ) -> None:
        """`rules` gives those in force: asked once per query. For `relations` see service/related.py."""
        self._catalogue = catalogue
        self._settings = settings
        self._clock = clock
        self._rules = rules
        index, idf = catalogue.index, RememberedIdf(catalogue.index)
        self._dimensions = Dimensions(index=index, idf=idf, settings=settings)
        self._ranker = Ranker(index=index, settings=settings, clock=clock)
        self._explainer = Explainer(catalogue=catalogue, idf=idf)
        self._relater = Relater(
            catalogue=catalogue, reader=relations, alike=settings.alike, away=relations_away
        )

    def search(self, request: SearchRequest, timings: Timings) -> Answer:
        """Items that a text describes: the text is the only seed."""
        target = self._catalogue.target(request.release_id, timings)
        return self.neighbours(request, target, timings, text=request.text)

    def similar(self, request: SimilarRequest, timings: Timings) -> Answer:
        """Neighbours of the seeds. Raises the exceptions of service.errors, each a status of HTTP."""
        target = self._catalogue.target(request.release_id, timings)
        ids = list(dict.fromkeys(seed.item_id for seed in request.seeds if seed.item_id is not None))
        points = self._catalogue.seed_points(target, ids, timings)
        half_life = request.half_life_seconds or self._settings.half_life_seconds
        seeds = decayed(request.seeds, half_life)
        return self.neighbours(request, target, timings, seeds=seeds, points=points, text=request.text)

    def neighbours(
        self,
        options: QueryOptions,
        target: Target,
        timings: Timings,
        *,
        seeds: Sequence[Seed] = (),
        points: Mapping[str, Point] | None = None,
        text: str | None = None,
        returnable: Collection[str] = (),
    ) -> Answer:
        """Neighbours of seeds whose points are in hand, and of a text.

        Seeds are no hits and neither are their variants, but for those in `returnable`. Raises Unanswerable
        where the seeds or the weights leave nothing to look for.
        """
        if text is None and not any(seed.weight > 0 for seed in seeds):
            raise Unanswerable(
                "no seed has a weight above 0 left: those that had one are too many half-lives older than the"
                " newest; leave out their 'occurred_at', or give a longer 'half_life_seconds'"
            )
        query = wanted(options, self._settings)
        book = self._rules()
        query = replace(query, filter=book.widened(query.filter))
        parts = self._parts(seeds, points or {}, text, target, query, timings)
        asked = self._dimensions.asked(parts, target, query.weights, timings)
        if not any(one.weight > 0 for one in asked):
            raise Unanswerable(
                "the seeds have no dimension with a weight above 0 in common with the collection: they cancel"
                " each other out, or 'weights' names only dimensions that they do not have"
            )
        positive = [part for part in parts if part.weight > 0]
        price = next((part.about.price for part in positive if part.about.price is not None), None)
        apart = [part for part in parts if part.product_id is None or part.product_id not in returnable]
        where, notes = conditions(
            query.filter,
            seeds=[part.product_id for part in apart if part.product_id is not None],
            groups=[
                part.about.group_id for part in apart if part.weight > 0 and part.about.group_id is not None
            ],
            price=price,
        )
        notes.extend(self._dimensions.lacking(options.weights or {}, asked, target, timings))
        leaves = {book.leaf(part.about.category) for part in positive if part.about.category}
        ruling = book.ruling([Seen(part.product_id, part.about.category) for part in positive], self._clock())
        relating = self._relater.of(query, parts, target, notes, timings)
        where = relating.narrowed(ruling.narrowed(where))
        asking = Query(asked, where, query, price, leaves, ruling, relating)
        ranked = self._ranker.ranked(asking, target, timings)
        explained: dict[str, Explanation] = {}
        if query.explain:
            notes.extend(ruling.notes)
        if query.explain and ranked:
            explained = self._explainer.explained(ranked, asking, parts, target, notes, timings)
        hits = [_hit(one, explained.get(one.scored.product_id)) for one in ranked]
        return Answer(
            items=hits, release_id=target.release_id, took_ms=round(timings.elapsed_ms(), 3), notes=notes
        )

    def _parts(
        self,
        seeds: Sequence[Seed],
        points: Mapping[str, Point],
        text: str | None,
        target: Target,
        query: Wanted,
        timings: Timings,
    ) -> list[Part]:
        with timings.asking(ENCODER):
            inline = inline_parts(
                seeds,
                text,
                load=lambda: self._catalogue.loaded(target.release_id),
                dense=bool(query.weights.get("content")),
            )
        # In the order given, so that "the first positive seed" is what the client thinks it is.
        others = iter(inline)
        ordered = [
            item_part(seed, points[seed.item_id]) if seed.item_id is not None else next(others)
            for seed in seeds
        ]
        return ordered + list(others)


def _hit(one: Chosen, why: Explanation | None) -> Hit:
    scored = one.scored
    return Hit(
        item_id=scored.product_id,
        score=rounded(scored.score),
        dimensions={
            name: DimensionScore(score=rounded(score), weight=round(scored.weights[name], 6))
            for name, score in scored.dimensions.items()
        },
        item=hit_item(scored.product_id, scored.payload),
        explanation=why,
    )
