"""Labelled queries judged against the running service: figures, slices, and weights fitted on one half.

Reads   the service, through an Asker
Writes  nothing
Never   lets the fit see a query of the half that it is checked on
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from app.asking import DIMENSIONS, Asker, Refused, each
from app.labels import Query
from schemas.api import ItemView
from service.fitting import Question, fitted
from service.judging import METRICS, Interval, Metric, interval, intervals, judged

#: Categories that are shown on their own, those with the most queries.
CATEGORIES = 8
#: A slice of fewer queries has an interval as wide as the scale.
SLICE_QUERIES = 20
Progress = Callable[[str, int], Callable[[], None]]
Each = TypeVar("Each")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of all queries that could be asked, and of slices of them by name."""

    k: int
    overall: Mapping[Metric, Interval]
    slices: Mapping[str, Mapping[Metric, Interval]] = field(default_factory=dict)
    refused: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights, and what they are worth on the half that the fit never saw.

    `gain` is the paired difference of NDCG there: fitted minus present.
    """

    k: int
    weights: Mapping[str, float]
    present: Mapping[str, float]
    next_item: bool
    fit_queries: int
    with_present: Mapping[Metric, Interval]
    with_fitted: Mapping[Metric, Interval]
    gain: Interval
    refused: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """In one sentence, whether to change anything."""
        if self.gain.low > 0:
            return "The fitted weights are better than the present ones, and not by chance (95 %)."
        if self.gain.high < 0:
            return (
                "The fitted weights are worse than the present ones on the half they never saw: keep yours."
            )
        return "The gain is not significant (zero lies in its 95 % interval): keep the present weights."


def evaluated(
    asker: Asker,
    queries: Sequence[Query],
    *,
    k: int,
    seed: int,
    weights: Mapping[str, float] | None = None,
    slices: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Ask every query, judge its first `k` hits. Raises ValueError where none could be asked, Transient."""
    figures, refused = _judged(asker, queries, k, weights, progress)
    if not figures:
        raise ValueError(_none(refused))
    overall = intervals(list(figures.values()), seed=seed)
    cut = _slices(asker, list(figures), progress) if slices else {}
    return Evaluation(
        k=k,
        overall=overall,
        slices={
            name: intervals([figures[query] for query in members], seed=seed)
            for name, members in cut.items()
            if len(members) >= SLICE_QUERIES
        },
        refused=refused,
    )


def fit(
    asker: Asker, queries: Sequence[Query], *, k: int, seed: int, progress: Progress | None = None
) -> Fit:
    """Fit on one half, check on the other. Raises ValueError where either has nothing to say, Transient."""
    fit_half, check_half = halves(queries, seed=seed)
    if not fit_half or not check_half:
        raise ValueError("weights are fitted on one half and checked on the other: two queries at the least")
    questions: list[Question] = []
    refused: list[str] = []
    for answer in _with(progress, "fitting", len(fit_half), each(asker.question, fit_half)):
        if isinstance(answer, Refused):
            refused.append(str(answer))
        elif answer.places:
            questions.append(answer)
    if not questions:
        raise ValueError(
            "no relevant item is among what any dimension proposes: no weights can help"
            + (f" ({_none(refused)})" if refused else "")
        )
    present = asker.present_weights(queries[0])
    weights = fitted(questions, DIMENSIONS, present, k=k, seed=seed)
    before, refused_before = _judged(asker, check_half, k, None, progress)
    after, _ = _judged(asker, check_half, k, weights, progress)
    both = [query for query in before if query in after]
    if not both:
        raise ValueError(_none(refused_before))
    return Fit(
        k=k,
        weights=weights,
        present=present,
        next_item=queries[0].next_item,
        fit_queries=len(questions),
        with_present=intervals([before[query] for query in both], seed=seed),
        with_fitted=intervals([after[query] for query in both], seed=seed),
        gain=interval([after[query]["ndcg"] - before[query]["ndcg"] for query in both], seed=seed),
        refused=[*refused, *refused_before],
    )


def halves(queries: Sequence[Query], *, seed: int) -> tuple[list[Query], list[Query]]:
    """Two halves by drawing; all queries of one shopper, item or first item are in one of them."""
    owners: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        owners[query.user or query.item or query.history[0]].append(query)
    drawn = sorted(owners)
    Random(seed).shuffle(drawn)
    middle = len(drawn) // 2
    first, second = drawn[:middle], drawn[middle:]
    return [q for name in first for q in owners[name]], [q for name in second for q in owners[name]]


def _judged(
    asker: Asker,
    queries: Sequence[Query],
    k: int,
    weights: Mapping[str, float] | None,
    progress: Progress | None,
) -> tuple[dict[Query, dict[Metric, float]], list[str]]:
    figures: dict[Query, dict[Metric, float]] = {}
    refused: list[str] = []
    found = each(lambda query: asker.found(query, limit=k, weights=weights), queries)
    for query, answer in zip(queries, _with(progress, "asking", len(queries), found), strict=True):
        if isinstance(answer, Refused):
            refused.append(str(answer))
        else:
            figures[query] = judged(answer, query.relevant, k)
    return figures, refused


def _slices(asker: Asker, queries: Sequence[Query], progress: Progress | None) -> dict[str, list[Query]]:
    """Queries by what their relevant item is: warm or cold (nobody touched it), and by its first category."""
    wanted = sorted({min(query.relevant) for query in queries})
    views: dict[str, ItemView] = {}
    for item_id, view in zip(
        wanted, _with(progress, "slicing", len(wanted), each(asker.item, wanted)), strict=True
    ):
        if isinstance(view, ItemView):
            views[item_id] = view
    cut: dict[str, list[Query]] = {"warm": [], "cold": [], "not in the catalogue": []}
    categories: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        view = views.get(min(query.relevant))
        if view is None:
            cut["not in the catalogue"].append(query)
            continue
        cut["warm" if "behaviour" in view.dimensions else "cold"].append(query)
        if view.category:
            categories[view.category[0]].append(query)
    largest = sorted(categories, key=lambda name: (-len(categories[name]), name))[:CATEGORIES]
    return {**cut, **{f"category {name}": categories[name] for name in largest}}


def _with(progress: Progress | None, what: str, count: int, given: Iterable[Each]) -> Iterable[Each]:
    step = progress(what, count) if progress is not None else None
    for one in given:
        if step is not None:
            step()
        yield one


def _none(refused: Sequence[str]) -> str:
    first = f", the first because: {refused[0]}" if refused else ""
    return f"none of the queries could be asked{first}"


def as_json(result: Evaluation | Fit) -> dict[str, object]:
    """The result as JSON-able values."""

    def shown(of: Mapping[Metric, Interval]) -> dict[str, object]:
        return {metric: _interval(of[metric]) for metric in METRICS}

    refused: dict[str, object] = {"k": result.k, "refused": len(result.refused)}
    if isinstance(result, Evaluation):
        return {
            **refused,
            "overall": shown(result.overall),
            "slices": {name: shown(figures) for name, figures in result.slices.items()},
        }
    return {
        **refused,
        "weights": dict(result.weights),
        "present": dict(result.present),
        "fit_queries": result.fit_queries,
        "with_present": shown(result.with_present),
        "with_fitted": shown(result.with_fitted),
        "gain_ndcg": _interval(result.gain),
        "significant": result.gain.significant,
        "verdict": result.verdict,
    }


def _interval(one: Interval) -> dict[str, float]:
    return {"mean": one.mean, "low": one.low, "high": one.high, "queries": one.count}
