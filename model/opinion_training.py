"""A head that hears opinions is trained from the stars of reviews, on the encoder as it stands.

Reads   texts and ratings of reviews that are handed in
Writes  a head, through adapters/releases.py
Never   publishes one whose sentiment does not follow the stars of reviews it has not seen

Reviews of 4 stars and more are good, of 2 and fewer bad; what lies between teaches nothing. Each clause takes
the answer of its review, and weighs as one of however many that has: what is wrong of one clause is right of
most like it. The two answers weigh the same in all.

With d_a the mean of an aspect's phrases of praise less that of its phrases of complaint, the head's weights
are w = sum of v_a d_a, and only v and b are learned, by logistic regression. Free weights learn the very
phrases that reviewers use and know nothing of others; along these directions they learn what praise has in
common (docs/opinions.md has both, measured).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.releases import ReleaseStore, entry_of
from model.aspects import Aspect
from model.opinion_settings import FOLDS, HeadSettings
from model.opinions import (
    WEIGHTS_FILE,
    WORDS_FILE,
    Floats,
    HeadWords,
    OpinionHead,
    clauses,
    embedded_phrases,
    write_head,
)
from schemas.items import digest
from schemas.releases import Manifest, Training
from schemas.vectors import Encoder

GOOD_STARS, BAD_STARS = 4.0, 2.0


class NothingLearned(ValueError):
    """No head was made; the message says why."""


class RatedText(NamedTuple):
    """A review as far as training reads it."""

    text: str
    rating: float


class Examples(NamedTuple):
    """Clauses along the aspects' directions, (n, aspects), whose each is, (n,), and what reviews say."""

    along: Floats
    review: NDArray[np.int64]
    good: NDArray[np.bool_]


class Learned(NamedTuple):
    """A head, and what was measured of such heads on reviews that they had not seen."""

    head: OpinionHead
    figures: dict[str, float]


def learn(
    reviews: Sequence[RatedText], *, encoder: Encoder, aspects: dict[str, Aspect], settings: HeadSettings
) -> Learned:
    """Train a head. Raises NothingLearned where there is too little, or where it learns too little."""
    phrases, owners = embedded_phrases(aspects, encoder)
    directions = _directions(aspects, phrases, owners)
    examples = _examples(reviews, encoder, directions, settings)
    good = int(examples.good.sum())
    bad = len(examples.good) - good
    if min(good, bad) < settings.least:
        raise NothingLearned(
            f"{good} reviews of {GOOD_STARS:g} stars and more and {bad} of {BAD_STARS:g} and fewer say "
            f"anything, and {settings.least} of either are needed"
        )
    auc = _unseen_auc(examples, settings.strength)
    if auc < settings.least_auc:
        raise NothingLearned(
            "the sentiment of reviews that it has not seen follows their stars too little: area under the "
            f"curve {auc:.3f}, and {settings.least_auc:g} is the least"
        )
    along, bias = _fitted(examples, np.ones(len(examples.good), dtype=bool), settings.strength)
    head = OpinionHead(
        name="",
        words=HeadWords(aspects=aspects, near=settings.near),
        weight=(directions.T @ along).astype(np.float32),
        bias=bias,
        phrases=phrases,
        owners=owners,
    )
    return Learned(head, {"auc": round(auc, 6), "good": float(good), "bad": float(bad)})


def publish_head(
    learned: Learned,
    *,
    store: ReleaseStore,
    release: Manifest,
    settings: HeadSettings,
    created_at: datetime,
) -> Manifest:
    """Store a head that was trained on the encoder of `release`, under a name made of its contents.

    One that is there already stays: how long it took, or when it was made, makes no other head.
    """
    with tempfile.TemporaryDirectory(prefix="simstream-head-") as scratch:
        folder = Path(scratch)
        write_head(folder, learned.head)
        files = {name: entry_of(folder / name) for name in (WEIGHTS_FILE, WORDS_FILE)}
        named = digest({name: entry.sha256 for name, entry in files.items()}, release.release_id)
        return store.publish(
            folder,
            Manifest(
                release_id=f"opinions-{named}",
                created_at=created_at,
                base_model=release.base_model,
                parent=release.release_id,
                dimension=release.dimension,
                encoder=release.encoder,
                files=files,
                figures=learned.figures,
                training=Training(
                    run="opinions",
                    recipe=settings.model_dump(exclude={"url", "cache", "aspects"}),
                    versions={"scikit-learn": version("scikit-learn")},
                ),
            ),
        )


def train_head(
    reviews: Sequence[RatedText],
    *,
    encoder: Encoder,
    release: Manifest,
    aspects: dict[str, Aspect],
    settings: HeadSettings,
    store: ReleaseStore,
    created_at: datetime,
) -> Manifest:
    """`learn` and `publish_head`."""
    learned = learn(reviews, encoder=encoder, aspects=aspects, settings=settings)
    return publish_head(learned, store=store, release=release, settings=settings, created_at=created_at)


def _directions(aspects: dict[str, Aspect], phrases: Floats, owners: NDArray[np.int64]) -> Floats:
    """From complaint to praise, one row for each aspect, (aspects, dimension)."""
    rows = []
    for place, aspect in enumerate(aspects.values()):
        own, good = phrases[owners == place], len(aspect.good)
        rows.append(own[:good].mean(axis=0) - own[good:].mean(axis=0))
    return np.stack(rows)


def _examples(
    reviews: Sequence[RatedText], encoder: Encoder, directions: Floats, settings: HeadSettings
) -> Examples:
    told = [one for one in dict.fromkeys(reviews) if not BAD_STARS < one.rating < GOOD_STARS]
    if len(told) > settings.most_reviews:
        told = Random(0).sample(told, settings.most_reviews)
    parts = [(one.rating >= GOOD_STARS, found) for one in told if (found := clauses(one.text))]
    place = {clause: row for row, clause in enumerate(dict.fromkeys(c for _, one in parts for c in one))}
    made = encoder.encode(list(place), background=True) if place else []
    vectors = np.asarray(made, dtype=np.float32).reshape(len(place), encoder.dimension)
    return Examples(
        (vectors @ directions.T)[[place[clause] for _, one in parts for clause in one]],
        np.repeat(np.arange(len(parts)), [len(one) for _, one in parts]),
        np.array([good for good, _ in parts], dtype=bool),
    )


def _fitted(examples: Examples, reviews: NDArray[np.bool_], strength: float) -> tuple[Floats, float]:
    """v and b from the clauses of the chosen `reviews` (a mask)."""
    from sklearn.linear_model import LogisticRegression

    rows = reviews[examples.review]
    owner = examples.review[rows]
    fitted = LogisticRegression(C=strength, class_weight="balanced", max_iter=1_000)
    weights = 1.0 / np.bincount(examples.review)[owner]
    fitted.fit(examples.along[rows], examples.good[owner], sample_weight=weights)
    along: Floats = fitted.coef_[0]
    return along, float(fitted.intercept_[0])


def _unseen_auc(examples: Examples, strength: float) -> float:
    """Area under the ROC curve of reviews' mean logit, each told by a head that has not seen it."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    aucs = []
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for seen, unseen in folds.split(examples.good, examples.good):
        mask = np.zeros(len(examples.good), dtype=bool)
        mask[seen] = True
        along, bias = _fitted(examples, mask, strength)
        means = np.bincount(examples.review, examples.along @ along + bias) / np.bincount(examples.review)
        aucs.append(float(roc_auc_score(examples.good[unseen], means[unseen])))
    return float(np.mean(aucs))
