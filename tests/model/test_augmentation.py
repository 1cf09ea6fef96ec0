"""model/augmentation.py: texts are varied, titles stay, and words change places with their own kind."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from model.augmentation import augmented, synonyms_of
from model.recipe import Augment

TEXT = "Steel kettle. Northpath. Kitchen > Kettles. Boils a litre in three minutes"


def varied(how: Augment, *, synonyms: dict[str, str] | None = None, times: int = 50) -> set[str]:
    random = Random(1)
    return {augmented([TEXT], how, synonyms=synonyms or {}, random=random)[0] for _ in range(times)}


def test_parts_behind_the_title_are_left_out() -> None:
    found = varied(Augment(field_dropout=0.5))
    assert len(found) > 4
    assert all(text.startswith("Steel kettle") for text in found)
    assert {part for text in found for part in text.split(". ")} == set(TEXT.split(". "))


def test_words_are_left_out_and_no_part_without_any() -> None:
    found = varied(Augment(token_dropout=0.5))
    assert len(found) > 10
    assert all(part for text in found for part in text.split(". "))
    words = {word for text in found for part in text.split(". ") for word in part.split()}
    assert words == {word for part in TEXT.split(". ") for word in part.split()}


def test_only_words_that_have_another_are_exchanged() -> None:
    found = varied(Augment(synonyms=0.5), synonyms={"kettle": "teapot"})
    assert found == {TEXT, TEXT.replace("kettle", "teapot")}


def test_nothing_changes_where_nothing_is_asked_for() -> None:
    assert not Augment()
    assert varied(Augment(), synonyms={"kettle": "teapot"}) == {TEXT}


def test_synonyms_are_words_of_the_texts_that_are_each_others_nearest() -> None:
    placed = {"kettle": 0.0, "teapot": 0.1, "lamp": 1.5, "torch": 1.6, "saw": 3.0}

    def encode(words: Sequence[str]) -> NDArray[np.float32]:
        angles = np.array([placed[word] for word in words])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    texts = ["Kettle and teapot 12 W", "lamp, torch", "saw"] * 3
    found = synonyms_of([text.replace(" and ", " ") for text in texts], encode)
    assert found == {"kettle": "teapot", "teapot": "kettle", "lamp": "torch", "torch": "lamp"}
