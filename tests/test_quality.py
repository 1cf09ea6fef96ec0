"""benchmarks/quality_index.py: an index filled without Kafka answers as the service does, encoding once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality import answers
from benchmarks.quality_index import Contents, Remembering, filled
from benchmarks.quality_sets import DataSet, Question, smaller
from benchmarks.remembered import RememberedEncoder
from benchmarks.sketching import Interactions
from model.text import ProductText
from schemas.api import Seed
from service.settings import ServiceSettings
from tests.service.shop import PRODUCTS, RELEASE, REVIEW_TEXTS, manifest
from tests.support.fake_encoder import FakeEncoder


class Counting:
    """An encoder that counts, with the one method that is asked for."""

    def __init__(self) -> None:
        self._fake = FakeEncoder()
        self.dimension = self._fake.dimension
        self.texts = 0

    def encode_array(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> NDArray[np.float32]:
        self.texts += len(texts)
        return np.array(self._fake.encode(list(texts), query=query), dtype=np.float32)


def release(folder: Path, counting: Counting) -> Remembering:
    encoder = RememberedEncoder(cast(Any, counting), folder / "vectors.npz")
    return Remembering(RELEASE, encoder, ProductText(), manifest(RELEASE, counting.dimension))


def shop() -> DataSet:
    items = [product.product_id for product in PRODUCTS]
    place = {item: number for number, item in enumerate(items)}
    visits = [(user, place[item]) for user in range(6) for item in ("s1", "c1")] + [(6, place["s1"])]
    users, touched = (np.array(column) for column in zip(*visits, strict=True))
    events = Interactions(
        [f"u{user}" for user in range(7)], items, users, touched, np.full(len(visits), 1.7e9), users
    )
    contents = Contents(PRODUCTS, REVIEW_TEXTS, events, {"u6": ["s1"]})
    questions = {
        "also viewed": [Question(frozenset({"s6"}), [Seed(item_id="s5")])],
        "next item": [Question(frozenset({"c1"}), user="u6")],
    }
    return DataSet(contents, questions, ("content", "lexical", "reviews", "behaviour"))


def test_every_dimension_is_there_and_a_second_run_encodes_nothing(tmp_path: Path) -> None:
    first, again = Counting(), Counting()
    whole = shop()
    for counting in (first, again):
        with filled(whole.contents, release(tmp_path, counting), ServiceSettings()) as asked:
            ((best, *_),) = answers(asked, whole.questions["next item"], {"weights": {"behaviour": 1.0}})
            assert best == "c1"
            (words,) = answers(asked, whole.questions["also viewed"], {"weights": {"lexical": 1.0}})
            assert "s6" in words[:4]
            (reviews,) = answers(
                asked, [Question(frozenset({"s3"}), [Seed(item_id="s1")])], {"weights": {"reviews": 1.0}}
            )
            assert set(reviews) == {"s3", "s5", "c1"}
    assert first.texts == len(PRODUCTS) + len(REVIEW_TEXTS)
    assert again.texts == 0


def test_a_question_that_a_dimension_cannot_answer_finds_nothing(tmp_path: Path) -> None:
    nobody = [Question(frozenset({"s6"}), [Seed(item_id="z1")])]
    with filled(shop().contents, release(tmp_path, Counting()), ServiceSettings()) as asked:
        assert answers(asked, nobody, {"weights": {"behaviour": 1.0}}) == [[]]


def test_a_smaller_data_set_still_holds_what_is_asked_and_what_answers_it() -> None:
    part = smaller(shop(), items=4, asked=1)
    kept = {product.product_id for product in part.contents.products}
    assert {"s5", "s6", "c1"} <= kept
    assert len(kept) == 4
