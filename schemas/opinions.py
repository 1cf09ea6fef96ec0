"""What reviewers say about aspects of an item: what a judge hears, what is kept of it, what the API answers.

model/opinions.py hears it, consumers/opinions.py adds it up, adapters/redis_opinions.py keeps it, the service
shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from schemas.events import Frozen

#: What reviewers come to. Mixed: neither has a clear majority.
Tendency = Literal["good", "mixed", "bad"]


class Opinion(NamedTuple):
    """One clause of a review that is about an aspect; `sentiment` from -1 (bad) to 1 (good)."""

    aspect: str
    sentiment: float
    text: str


class Quote(Frozen):
    """A clause as somebody wrote it, contact data masked."""

    review_id: str
    text: str
    sentiment: float


class AspectOpinion(Frozen):
    """What reviewers say about one aspect. A review counts once, by the mean of its clauses about it.

    `sentiment` is the mean over reviews, from -1 to 1; `count` is how many speak of it, `positive` and
    `negative` how many of these lie above and below 0. `tendency` is null where too few speak of it.
    """

    aspect: str
    sentiment: float
    count: int
    positive: int
    negative: int
    tendency: Tendency | None = None
    evidence: list[Quote] = []


class ItemOpinions(Frozen):
    """What is kept of an item: by which head it was heard, in how many reviews, aspect by aspect."""

    head: str
    reviews: int
    aspects: list[AspectOpinion] = []


def tendencies(item: ItemOpinions | None) -> dict[str, Tendency]:
    """What stands, by aspect; nothing for an item that nobody has an opinion of."""
    return {one.aspect: one.tendency for one in (item.aspects if item else ()) if one.tendency is not None}


def opinion_terms(standing: Mapping[str, Tendency]) -> list[str]:
    """`noise: good`, one per aspect: the words that a filter matches."""
    return [f"{aspect}: {tendency}" for aspect, tendency in sorted(standing.items())]


class OpinionsView(Frozen):
    """GET /v1/items/{item_id}/opinions. `head` is null as long as none has been trained."""

    item_id: str
    head: str | None = None
    reviews: int = 0
    aspects: list[AspectOpinion] = []
    evidence: str
    release_id: str
    took_ms: float


class OpinionJudge(Protocol):
    """Hears opinions in texts. One judge always hears the same in the same text."""

    @property
    def head(self) -> str:
        """Names everything that what is heard depends on."""
        ...

    def hear(self, texts: Sequence[str]) -> list[list[Opinion]]:
        """The opinions in each text, in its order. Raises Transient when the encoder is away."""
        ...


class KnownOpinions(NamedTuple):
    """The head that is live, None before the first; what was kept of an item, None for nothing."""

    head: str | None
    item: ItemOpinions | None


class OpinionReader(Protocol):
    """Reads what is kept. Raises Transient when the store is away."""

    def of(self, product_id: str) -> KnownOpinions:
        """What is known of an item."""
        ...
