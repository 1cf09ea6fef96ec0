"""What the vector `reviews` gains and loses by opinions: a part of benchmarks/opinions.py.

Planted: items are alike as far as the same aspects of them are good, and the same ones bad (the cosine of two
rows of 1, -1 and 0). Asked is whether the nearest by the vector `reviews` alone agree, and in what order the
vector brings all pairs. And what the digest must not lose: a sentence about a further aspect, in no truth,
that most reviews of an item share; pairs of items that share it should stay near (the head may hear some of
these). The words and their place were chosen on the shops of seeds 501 and 502.

Real: which magazines with reviews were viewed or bought with a magazine, by their reviews alone.

Beside both, each item with the opinions of another one: what any words before the digest would do.

Reads   what benchmarks/opinions.py hands in: reviews, what was heard in them, the truth
Never   encodes anything but what consumers/review_digest.py makes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.harness import Figure
from consumers.review_digest import review_digest, reviews_text
from consumers.reviews import ReviewsSettings
from producers.shop_opinions import ASIDES
from producers.shop_reviews import ASPECTS
from schemas.opinions import AspectOpinion, opinion_terms

NEAREST = 10
_DRAWS = 2_000

Encode = Callable[[Sequence[str]], list[list[float]]]
Rows = NDArray[np.float64]
Opinions = Mapping[str, Mapping[str, AspectOpinion]]


@dataclass(frozen=True, slots=True)
class Said:
    """One review. Implements consumers.review_digest.ReviewText."""

    review_id: str
    votes: int
    at: int
    text: str


class Reviewed(NamedTuple):
    """A shop's reviews by item, what was heard of its items, and what is true of them."""

    reviews: Mapping[str, Sequence[Said]]
    opinions: Opinions
    truth: Mapping[str, Mapping[str, int]]


class _Scores(NamedTuple):
    """`agreement` has one number per item: the mean agreement of its nearest."""

    agreement: Rows
    order: float
    aside: float


def planted_figures(encode: Encode, shops: Sequence[Reviewed], *, small: bool) -> list[Figure]:
    """Digests alone, with what reviewers come to, and with that of another item; the mean over shops."""
    scores = {
        "digest alone": [_scores(encode, shop, {}) for shop in shops],
        "with opinions": [_scores(encode, shop, shop.opinions) for shop in shops],
        "with another item's opinions": [
            _scores(encode, shop, _shifted(sorted(shop.truth), shop.opinions)) for shop in shops
        ],
    }
    agreement = {name: np.concatenate([one.agreement for one in of]) for name, of in scores.items()}
    alone, heard = scores["digest alone"], scores["with opinions"]
    gain = agreement["with opinions"] - agreement["digest alone"]
    low, high = _interval(gain)
    for name, of in scores.items():
        told = [
            (round(float(one.agreement.mean()), 4), round(one.order, 4), round(one.aside, 4)) for one in of
        ]
        print(f"{name}: agreement of the {NEAREST} nearest, order, asides, by shop: {told}", flush=True)
    note = f"the vector `reviews` alone, {len(gain)} items"
    rows: list[tuple[str, float, float | None, str]] = [
        row
        for name, of in scores.items()
        for row in (
            (
                f"agreement of the {NEAREST} nearest by reviews, {name}",
                float(agreement[name].mean()),
                None,
                note,
            ),
            (
                f"order of pairs by agreement, {name}",
                fmean(one.order for one in of),
                None,
                f"{note}, Spearman",
            ),
            (
                f"pairs that share a further aspect, {name}",
                fmean(one.aside for one in of),
                None,
                f"{note}, AUC",
            ),
        )
    ]
    kept = fmean(one.aside for one in heard) - fmean(one.aside for one in alone)
    wanted = None if small else 0.0
    rows += [
        (
            f"agreement of the {NEAREST} nearest by reviews, gained by opinions",
            float(gain.mean()),
            wanted,
            f"95 % interval {low:.4f} to {high:.4f}",
        ),
        ("pairs that share a further aspect, by reviews, gained by opinions", kept, wanted, note),
    ]
    return [
        Figure(name, value, "", target=target, kind="quality", note=said)
        for name, value, target, said in rows
    ]


def _shifted(names: Sequence[str], opinions: Opinions) -> Opinions:
    """To each item the opinions of the next one: what any such words before the digest would do."""
    return {one: opinions.get(other, {}) for one, other in zip(names, [*names[1:], names[0]], strict=True)}


def related_figures(
    encode: Encode,
    digests: Mapping[str, str],
    opinions: Opinions,
    related: Sequence[tuple[str, frozenset[str]]],
) -> list[Figure]:
    """Items related to others, as far as both have reviews: how many are nearest, how near all are."""
    names = sorted(digests)
    asked = [(one, rest) for one, among in related if one in digests and (rest := among & digests.keys())]
    found = {
        name: _related(_vectors(encode, digests, of, names), names, asked)
        for name, of in (
            ("digest alone", {}),
            ("with opinions", opinions),
            ("with another item's opinions", _shifted(names, opinions)),
        )
    }
    note = f"amazon-magazines, {len(asked)} questions, {len(names)} items with reviews"
    figures = []
    for name, values in found.items():
        for what, row, alone in zip((f"recall@{NEAREST}", "AUC"), values, found["digest alone"], strict=True):
            low, high = _interval(row - alone)
            gained = "" if row is alone else f", gain {low:+.3f} to {high:+.3f}"
            figures.append(
                Figure(
                    f"{what} of related items by reviews, {name}",
                    float(row.mean()),
                    "",
                    kind="quality",
                    note=note + gained,
                )
            )
            print(f"magazines: {what}, {name}: {row.mean():.4f}{gained}", flush=True)
    return figures


def _vectors(encode: Encode, digests: Mapping[str, str], opinions: Opinions, names: Sequence[str]) -> Rows:
    return np.array(encode([reviews_text(digests[one], _terms(opinions.get(one, {}))) for one in names]))


def _terms(opinions: Mapping[str, AspectOpinion]) -> list[str]:
    return opinion_terms({one.aspect: one.tendency for one in opinions.values() if one.tendency is not None})


def _scores(encode: Encode, shop: Reviewed, opinions: Opinions) -> _Scores:
    names = sorted(shop.truth)
    digests = {one: digest_of(shop.reviews[one]) for one in names}
    vectors = _vectors(encode, digests, opinions, names)
    aspects = sorted({aspect for poles in shop.truth.values() for aspect in poles})
    poles = np.array([[float(shop.truth[one].get(aspect, 0)) for aspect in aspects] for one in names])
    poles /= np.linalg.norm(poles, axis=1, keepdims=True)
    likeness, agreement = vectors @ vectors.T, poles @ poles.T
    pairs = np.triu_indices(len(names), 1)
    asides = [_aside(shop.reviews[one]) for one in names]
    same = np.array([[one is not None and one == other for other in asides] for one in asides])
    return _Scores(
        agreement=np.take_along_axis(agreement, _nearest(likeness), axis=1).mean(axis=1),
        order=float(spearmanr(likeness[pairs], agreement[pairs])[0]),
        aside=float(roc_auc_score(same[pairs], likeness[pairs])),
    )


def digest_of(reviews: Sequence[Said]) -> str:
    """As long as the product makes it."""
    return review_digest(reviews, chars=ReviewsSettings().digest_chars)


def _aside(reviews: Sequence[Said]) -> tuple[str, int] | None:
    """The further aspect that reviews of the item have a sentence of, and which side it takes."""
    for aspect in ASIDES:
        for side, pole in enumerate(ASPECTS[aspect]):
            if any(sentence in review.text for sentence in pole.split("|") for review in reviews):
                return aspect, side
    return None


def _nearest(likeness: Rows) -> NDArray[np.int64]:
    others = likeness.copy()
    np.fill_diagonal(others, -np.inf)
    return np.argsort(-others, axis=1, kind="stable")[:, :NEAREST]


def _related(
    vectors: Rows, names: Sequence[str], asked: Sequence[tuple[str, frozenset[str]]]
) -> tuple[Rows, Rows]:
    """Of each question the share of its answers among the nearest, and the area under the curve."""
    likeness = vectors @ vectors.T
    nearest = _nearest(likeness)
    place = {one: row for row, one in enumerate(names)}
    recalls, areas = [], []
    for one, wanted in asked:
        row = place[one]
        recalls.append(len({names[other] for other in nearest[row]} & wanted) / min(NEAREST, len(wanted)))
        right = [other in wanted for other in names if other != one]
        areas.append(roc_auc_score(right, np.delete(likeness[row], row)))
    return np.array(recalls), np.array(areas)


def _interval(values: Rows) -> tuple[float, float]:
    """95 % of the means of so many drawn with replacement (Efron 1979)."""
    draws = np.random.default_rng(1).integers(0, len(values), size=(_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
