"""Cold items asked for through the whole fusion, before and after training: `learning`'s figure beside it.

The same split and the same queries, of which some are drawn; the index holds every item, and behaviour is
that of shoppers with the other items: a cold item has none. Asked is the service's own engine: by texts
alone; with its default weights, of texts and words or of all dimensions; and with the weight of words that
finds most on the validation queries, for each model its own, as `simstream evaluate --fit-weights` would.

Reads   amazon-beauty in the data folder; vectors that are there
Writes  an index that goes away
Never   encodes a text
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Figure
from benchmarks.learning_sets import SEED, Beauty, Split
from benchmarks.quality import answers
from benchmarks.quality_index import Asked, Contents, Remembering, filled, remembering
from benchmarks.quality_sets import Question, ordered_events, products_of
from benchmarks.remembered import RememberedEncoder
from model.evaluation import Floats, compare
from schemas.api import DimensionName, Seed
from service.settings import ServiceSettings

ASKED, ASKED_TO_CHOOSE = 3_000, 1_500
WAYS: Mapping[str, Sequence[DimensionName]] = {
    "texts": ("content",),
    "texts and words": ("content", "lexical"),
    "all dimensions": ("content", "lexical", "behaviour"),
}
FITTED = "texts and words, weights fitted"
HEADLINES = ("texts and words", FITTED)
#: Weights of words that are tried, that of texts being 1.
WORDS = (0.0, 0.1, 0.3, 0.6, 1.0, 1.5)


class KnownVectors:
    """Vectors of texts that are there. Takes the place of a RememberedEncoder."""

    def __init__(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return int(self._vectors.shape[1])

    def encode(self, texts: Sequence[str], **_: Any) -> list[list[float]]:
        """Unit vectors. Raises KeyError for a text that is not known."""
        found: list[list[float]] = self._vectors[[self._rows[text] for text in texts]].tolist()
        return found

    def keep(self) -> None:
        """Nothing is new."""


def fused_figures(
    data: Path,
    beauty: Beauty,
    split: Split,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> Iterator[Figure]:
    """hit@10 of cold items by both models in the whole fusion, and the gain with its interval."""
    draw = Random(SEED)
    queries = draw.sample(split.queries, min(ASKED, len(split.queries)))
    questions = [_question(beauty, *one) for one in queries]
    choosing = draw.sample(split.validation_queries, min(ASKED_TO_CHOOSE, len(split.validation_queries)))
    to_choose = [_question(beauty, *one) for one in choosing]
    cold = {beauty.items[row] for row in split.cold}
    histories = {
        str(number): [item for row in history if (item := beauty.items[row]) not in cold]
        for number, history in enumerate(beauty.histories)
    }
    products = products_of(data / "amazon-beauty" / "products.jsonl.gz")
    contents = Contents(products, interactions=ordered_events(histories, products))
    defaults = ServiceSettings().weights
    hits: dict[tuple[str, bool], Floats] = {}
    words: dict[bool, float] = {}
    with tempfile.TemporaryDirectory(prefix="simstream-fused-") as folder, remembering(Path(folder)) as base:
        for trained, vectors in ((False, before), (True, after)):
            release = _with(base, KnownVectors(beauty.texts, vectors))
            with filled(contents, release, ServiceSettings()) as asked:
                for way, dimensions in WAYS.items():
                    weights = {name: defaults[name] for name in dimensions}
                    hits[way, trained] = _hits(asked, questions, weights)
                chosen = [_hits(asked, to_choose, _texts_and(weight)).mean() for weight in WORDS]
                words[trained] = WORDS[int(np.argmax(chosen))]
                print(f"fused, words {WORDS}: {chosen} on validation queries", flush=True)
                hits[FITTED, trained] = _hits(asked, questions, _texts_and(words[trained]))
    targets = np.array([target for _, target in queries], dtype=np.int64)
    for way in (*WAYS, FITTED):
        one = compare(hits[way, False], hits[way, True], clusters=targets, seed=SEED)
        print(f"fused, {way}: {one}", flush=True)
        note = f"{len(queries):,} queries"
        for model, value in (("base model", one.before), ("trained", one.after)):
            yield Figure(
                f"cold items hit@10, fused, {way}, {model}",
                round(value, 4),
                "",
                kind="quality",
                note=note,
                headline=way in HEADLINES,
            )
        yield Figure(f"cold items, gain, fused, {way}", round(100 * one.gain.value, 1), "%", note=note)
        yield Figure(f"fused, {way}, lower 95 % bound", round(100 * one.gain.low, 1), "%", note=note)
        yield Figure(f"fused, {way}, upper 95 % bound", round(100 * one.gain.high, 1), "%", note=note)
    note = "that of texts is 1; chosen on validation queries"
    yield Figure("weight of words, base model", words[False], "", note=note)
    yield Figure("weight of words, trained", words[True], "", note=note)


def _question(beauty: Beauty, query: int, target: int) -> Question:
    return Question(frozenset([beauty.items[target]]), [Seed(item_id=beauty.items[query])])


def _texts_and(words: float) -> dict[DimensionName, float]:
    return {"content": 1.0, "lexical": words} if words else {"content": 1.0}


def _hits(asked: Asked, questions: Sequence[Question], weights: Mapping[DimensionName, float]) -> Floats:
    """1 where the target is among the ten hits, for each question."""
    found = answers(asked, questions, {"weights": weights})
    return np.array(
        [not one.relevant.isdisjoint(answer) for one, answer in zip(questions, found, strict=True)],
        dtype=np.float64,
    )


def _with(release: Remembering, known: KnownVectors) -> Remembering:
    manifest = release.manifest.model_copy(update={"dimension": known.dimension})
    return dataclasses.replace(release, encoder=cast(RememberedEncoder, known), manifest=manifest)
