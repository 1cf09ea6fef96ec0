"""Texts of pairs are varied before they are trained on: words left out, parts left out, other words put in.

Reads, writes  nothing: texts in memory
Never          touches the first part of a text (the title) but by words, nor leaves a text without any

Words that take each other's place are the catalogue's own: each is the other's nearest among the words of the
texts at hand, by the vectors of the model that is trained.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from model.recipe import Augment

#: Words that are looked at, the most frequent ones, and in how many texts they have to be.
MOST_WORDS, LEAST_TEXTS = 3_000, 3
#: Chosen by reading what it lets through of the synthetic shop's words: below it are opposites and colours.
LEAST_COSINE = 0.8
#: A word of letters; numbers and model names stay what they are.
_WORD = re.compile(r"[^\W\d_]{3,}")


def augmented(
    texts: Sequence[str], how: Augment, *, synonyms: Mapping[str, str], random: Random
) -> list[str]:
    """Each text once more, varied as `how` says; `synonyms` are in lower case."""
    return [_varied(text, how, synonyms, random) for text in texts]


def _varied(text: str, how: Augment, synonyms: Mapping[str, str], random: Random) -> str:
    first, *others = text.split(how.separator)
    parts = [first, *(part for part in others if random.random() >= how.field_dropout)]
    varied = []
    for part in parts:
        words = [_exchanged(word, how, synonyms, random) for word in part.split(" ")]
        left = [word for word in words if random.random() >= how.token_dropout]
        varied.append(" ".join(left or words))
    return how.separator.join(varied)


def _exchanged(word: str, how: Augment, synonyms: Mapping[str, str], random: Random) -> str:
    other = synonyms.get(word.lower()) if how.synonyms else None
    return other if other is not None and random.random() < how.synonyms else word


def synonyms_of(
    texts: Sequence[str], encode: Callable[[Sequence[str]], NDArray[np.float32]]
) -> dict[str, str]:
    """Words of these texts, in lower case, that are each other's nearest; `encode` makes unit vectors."""
    counts = Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
    words = sorted(word for word, texts_with in counts.most_common(MOST_WORDS) if texts_with >= LEAST_TEXTS)
    if len(words) < 2:
        return {}
    vectors = np.asarray(encode(words), dtype=np.float32)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1.0)
    nearest = likeness.argmax(axis=1)
    return {
        words[row]: words[other]
        for row, other in enumerate(nearest.tolist())
        if nearest[other] == row and likeness[row, other] >= LEAST_COSINE
    }
