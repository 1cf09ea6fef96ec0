"""What an item's reviews say about its aspects, in figures. Pure: the same reviews give the same figures.

A review counts once for an aspect, by the mean of its clauses about it. With p reviews above 0 and n below,
the tendency is good where (p - n) / (p + n + 2) is at least `majority`, bad where it is at most -`majority`:
two reviews that disagree are assumed before any is read (Laplace's rule of succession).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from pydantic import Field

from consumers.review_digest import ReviewText, usefulness
from schemas.events import Frozen
from schemas.opinions import AspectOpinion, ItemOpinions, Opinion, Quote, Tendency


class OpinionSettings(Frozen):
    """Whether somebody listens to reviews, and when reviewers come to something.

    `least_reviews` must speak of an aspect before it has a tendency; `majority` is explained above. `quotes`
    clauses of an aspect are kept as evidence.
    """

    #: `simstream up` listens, and every process takes what was heard for a part of an item's state, encoded
    #: with the digest of its reviews. Needs a head (`simstream opinions train`); off by default.
    consume: bool = False
    least_reviews: int = Field(default=3, ge=1)
    majority: float = Field(default=0.25, gt=0, lt=1)
    quotes: int = Field(default=3, ge=0, le=20)


def item_opinions(
    reviews: Sequence[ReviewText],
    heard: Mapping[str, Sequence[Opinion]],
    *,
    head: str,
    settings: OpinionSettings,
) -> ItemOpinions:
    """Figures of one item: `heard` are the opinions in each review, by its id.

    Aspects that most speak of come first. Evidence is of the most useful reviews: one clause of each, those
    first that agree with the mean, and if somebody disagrees, one of these last.
    """
    ordered = sorted(reviews, key=lambda one: (-usefulness(one.votes, one.at), one.review_id))
    said: dict[str, list[Quote]] = {}
    for review in ordered:
        of_review: dict[str, list[Opinion]] = {}
        for opinion in heard.get(review.review_id, ()):
            of_review.setdefault(opinion.aspect, []).append(opinion)
        for aspect, opinions in of_review.items():
            mean = fmean(one.sentiment for one in opinions)
            # The clause that says best what the review says of it.
            best = min(opinions, key=lambda one: (abs(one.sentiment - mean), one.text))
            quote = Quote(review_id=review.review_id, text=best.text, sentiment=round(mean, 3))
            said.setdefault(aspect, []).append(quote)
    aspects = [_aspect(aspect, quotes, settings) for aspect, quotes in said.items()]
    aspects.sort(key=lambda one: (-one.count, one.aspect))
    return ItemOpinions(head=head, reviews=len(reviews), aspects=aspects)


def _aspect(aspect: str, quotes: Sequence[Quote], settings: OpinionSettings) -> AspectOpinion:
    sentiment = fmean(one.sentiment for one in quotes)
    positive, negative = sum(one.sentiment > 0 for one in quotes), sum(one.sentiment < 0 for one in quotes)
    agreeing = [one for one in quotes if one.sentiment * sentiment > 0] or list(quotes)
    others = [one for one in quotes if one.sentiment * sentiment < 0]
    shown = agreeing[: settings.quotes]
    if others and settings.quotes > 1:
        shown = [*shown[: settings.quotes - 1], others[0]]
    return AspectOpinion(
        aspect=aspect,
        sentiment=round(sentiment, 3),
        count=len(quotes),
        positive=positive,
        negative=negative,
        tendency=_tendency(positive, negative, settings) if len(quotes) >= settings.least_reviews else None,
        evidence=shown,
    )


def _tendency(positive: int, negative: int, settings: OpinionSettings) -> Tendency:
    balance = (positive - negative) / (positive + negative + 2)
    if balance >= settings.majority:
        return "good"
    return "bad" if balance <= -settings.majority else "mixed"
