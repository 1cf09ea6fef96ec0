"""A head is trained from stars alone, keeps it through its files, and is refused where it did not learn."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
import pytest

from adapters.releases import InvalidRelease, ReleaseSettings, ReleaseStore
from model.aspects import Aspect, InvalidAspects, read_aspects
from model.opinion_settings import HeadSettings
from model.opinion_training import NothingLearned, RatedText, learn, publish_head, train_head
from model.opinions import CLAUSE_CHARS, CLAUSES_OF_TEXT, WEIGHTS_FILE, OpinionListener, clauses, load_head
from schemas.releases import EncoderConfig, FileEntry, Manifest
from tests.support.fake_encoder import FakeEncoder

NOW = datetime(2026, 11, 26, tzinfo=UTC)
ASPECTS = {
    "noise": Aspect(good=["quiet fan noise"], bad=["loud fan noise"]),
    "battery": Aspect(good=["battery lasts long"], bad=["battery dies fast"]),
}
SETTINGS = HeadSettings(least=10, near=0.3)
RELEASE = Manifest(
    release_id="base",
    created_at=NOW,
    base_model="tiny",
    dimension=64,
    encoder=EncoderConfig(pooling="mean", max_length=64),
    files={"model.safetensors": FileEntry(sha256="0" * 64, size_bytes=1)},
)
#: Of two opinions each: what reviewers say, and how many stars they give.
SAYS = {
    5: ("The fan noise is quiet.", "The battery lasts and lasts long."),
    1: ("The fan noise is loud.", "The battery dies too fast."),
}


def reviews(count: int, *, contrary: float = 0.1, shuffled: bool = False) -> list[RatedText]:
    draw = Random(3)
    found = []
    for number in range(count):
        stars = draw.choice((1, 5))
        said = [draw.choice(SAYS[6 - stars if draw.random() < contrary else stars]) for _ in range(2)]
        found.append(RatedText(f"Bought number {number}. {' '.join(said)}", float(stars)))
    if shuffled:
        stars_of = [one.rating for one in found]
        draw.shuffle(stars_of)
        found = [one._replace(rating=rating) for one, rating in zip(found, stars_of, strict=True)]
    return found


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder(64)


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(ReleaseSettings(url=str(tmp_path / "heads"), cache=str(tmp_path / "cache")))


def trained(encoder: FakeEncoder, store: ReleaseStore) -> Manifest:
    return train_head(
        reviews(200),
        encoder=encoder,
        release=RELEASE,
        aspects=ASPECTS,
        settings=SETTINGS,
        store=store,
        created_at=NOW,
    )


def test_a_head_learned_from_stars_hears_aspect_and_sentiment_after_its_files(
    encoder: FakeEncoder, store: ReleaseStore
) -> None:
    made = trained(encoder, store)
    assert made.parent == "base"
    assert made.figures["auc"] > 0.9
    head, manifest = load_head(store, made.release_id)
    assert manifest == made
    listener = OpinionListener(head, encoder)
    assert listener.head == made.release_id
    (heard, nothing, both) = listener.hear(
        ["A quiet fan.", "Yesterday.", "Loud fan noise, but the battery lasts."]
    )
    assert [(one.aspect, one.sentiment > 0) for one in heard] == [("noise", True)]
    assert nothing == []
    assert [(one.aspect, one.sentiment > 0) for one in both] == [("noise", False), ("battery", True)]
    good, bad, none = listener.sentiments(["quiet noise", "it dies fast", ""])
    assert good > 0 > bad
    assert none == 0
    # Made again of the same reviews it is the same head.
    assert trained(encoder, store).release_id == made.release_id


def test_stars_that_do_not_follow_the_texts_teach_nothing(encoder: FakeEncoder) -> None:
    with pytest.raises(NothingLearned, match="follows their stars too little"):
        learn(reviews(300, shuffled=True), encoder=encoder, aspects=ASPECTS, settings=SETTINGS)
    asked = SETTINGS.model_copy(update={"least_auc": 0.0})
    found = learn(reviews(300, shuffled=True), encoder=encoder, aspects=ASPECTS, settings=asked)
    assert abs(found.figures["auc"] - 0.5) < 0.1


def test_too_few_reviews_of_one_answer_are_counted_and_refused(encoder: FakeEncoder) -> None:
    some = [one for one in reviews(100) if one.rating > 4]
    middle = [RatedText("It is quiet enough.", 3.0)] * 50
    with pytest.raises(NothingLearned, match=rf"{len(some)} reviews of 4 stars and more and 0 of 2"):
        learn(some + middle, encoder=encoder, aspects=ASPECTS, settings=SETTINGS)
    with pytest.raises(NothingLearned, match="0 reviews"):
        learn([], encoder=encoder, aspects=ASPECTS, settings=SETTINGS)


def test_a_head_that_was_altered_or_is_not_finite_is_refused(
    encoder: FakeEncoder, store: ReleaseStore, tmp_path: Path
) -> None:
    made = trained(encoder, store)
    file = tmp_path / "heads" / made.release_id / WEIGHTS_FILE
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    with pytest.raises(InvalidRelease, match="SHA-256"):
        load_head(store, made.release_id)
    learned = learn(reviews(200), encoder=encoder, aspects=ASPECTS, settings=SETTINGS)
    learned.head.weight[0] = np.nan
    bad = publish_head(learned, store=store, release=RELEASE, settings=SETTINGS, created_at=NOW)
    with pytest.raises(InvalidRelease, match="not finite"):
        load_head(store, bad.release_id)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Quiet. Lasts long! Good", ["Quiet.", "Lasts long!", "Good"]),
        ("The battery? Superb!", ["The battery? Superb!"]),
        ("It is quiet, but the battery dies.", ["It is quiet", "the battery dies."]),
        ("Leise, aber teuer; schwer", ["Leise", "teuer", "schwer"]),
        ("电池很好\uff0c但声音大。外观漂亮。", ["电池很好", "但声音大。", "外观漂亮。"]),
        ("Five stars. Very quiet", ["Very quiet"]),
        ("No. 1!\n\n ... ", []),
        ("", []),
    ],
)
def test_a_text_falls_into_clauses_that_may_each_be_about_something_else(text: str, parts: list[str]) -> None:
    assert clauses(text) == parts


def test_clauses_are_bounded_in_length_and_number() -> None:
    assert [len(one) for one in clauses("x" * 5_000)] == [CLAUSE_CHARS]
    assert len(clauses("Very good. " * 500)) == CLAUSES_OF_TEXT


def test_the_aspects_that_come_along_are_right_and_wrong_files_are_named(tmp_path: Path) -> None:
    assert {"noise", "fit", "overall"} <= read_aspects(None).keys()
    file = tmp_path / "aspects.yaml"
    for body, reason in (
        ("noise: {good: [quiet]}", "bad"),
        ("[1, 2]", "expected aspect"),
        ("noise: {good: [", "no YAML"),
        ("Noise!: {good: [a], bad: [b]}", "Noise"),
        ("noise: {good: [], bad: [b]}", "good"),
    ):
        file.write_text(body)
        with pytest.raises(InvalidAspects, match=reason):
            read_aspects(file)
    with pytest.raises(InvalidAspects, match="cannot be read"):
        read_aspects(tmp_path / "none.yaml")
