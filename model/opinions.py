"""Opinions in reviews: each clause's aspect by the nearest phrase, its sentiment by a head on the encoder.

Reads   a head: head.safetensors and opinions.json, checked against their manifest
Writes  nothing
Never   imports torch, changes the encoder, or listens with another encoder than the head was trained on

With x the unit vector of a clause, p_j those of the aspects' phrases, w and b the head:

    aspect     a = that of the phrase with the greatest p_j . x, where that is at least `near`
    sentiment  s = tanh((w . x + b) / 2) = 2 P(good) - 1

w and b come from the stars of reviews (model/opinion_training.py); nobody has labelled a clause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from adapters.releases import InvalidRelease, ReleaseStore
from model.aspects import Aspect, Aspects
from schemas.events import Frozen
from schemas.opinions import Opinion
from schemas.parsing import explain
from schemas.releases import Manifest
from schemas.vectors import Encoder

WEIGHTS_FILE = "head.safetensors"
WORDS_FILE = "opinions.json"
CLAUSES_OF_TEXT = 40
CLAUSE_CHARS = 240
_CLAUSE_LETTERS = 3

#: Where one opinion may end and the next begin: sentences, lines, and words that turn what was said around.
_ENDS = re.compile(
    r"(?<=[.!\u2026])\s+|(?<=[\u3002\uff01])|\n+|;\s+"
    r"|,?\s+(?:but|although|though|however|yet|aber|jedoch|mais|pero|ma)\s+"
    r"|[,\uff0c](?=\u4f46|\u4e0d\u8fc7|\u53ef\u662f)",
    re.IGNORECASE,
)
#: A rating told in words would teach the head the answer.
_STARS = re.compile(r"\b(?:one|two|three|four|five|[0-5]) stars?\b", re.IGNORECASE)

Floats = NDArray[np.float32]


class HeadWords(Frozen):
    """What of a head is no number: its aspects, and how near a clause has to be to one."""

    aspects: Aspects
    near: float = Field(ge=-1, le=1)


@dataclass(frozen=True)
class OpinionHead:
    """`weight` (dimension,) and `bias` give a logit; `phrases` (n, dimension) have their `owners`."""

    name: str
    words: HeadWords
    weight: Floats
    bias: float
    phrases: Floats
    owners: NDArray[np.int64]

    def sentiment(self, vectors: Floats) -> NDArray[np.float64]:
        """From -1 to 1, one for each row of `vectors` (n, dimension)."""
        logits: NDArray[np.float64] = vectors.astype(np.float64) @ self.weight + self.bias
        return np.tanh(logits / 2)

    def aspects(self, vectors: Floats) -> list[str | None]:
        """The aspect of each row; None for what is near none."""
        names = list(self.words.aspects)
        cosines = vectors @ self.phrases.T
        best = cosines.argmax(axis=1)
        return [
            names[self.owners[column]] if cosines[row, column] >= self.words.near else None
            for row, column in enumerate(best)
        ]


class OpinionListener:
    """A head and the encoder it was trained on. Implements schemas.opinions.OpinionJudge."""

    def __init__(self, head: OpinionHead, encoder: Encoder) -> None:
        self._head = head
        self._encoder = encoder

    @property
    def head(self) -> str:
        """Names the head, whose manifest names its encoder's release."""
        return self._head.name

    def hear(self, texts: Sequence[str]) -> list[list[Opinion]]:
        """See the protocol. Each clause is encoded once for all texts."""
        parts = [clauses(text) for text in texts]
        unique = list(dict.fromkeys(clause for one in parts for clause in one))
        if not unique:
            return [[] for _ in texts]
        vectors = np.asarray(self._encoder.encode(unique, background=True), dtype=np.float32)
        heard = {
            clause: Opinion(aspect, round(float(sentiment), 3), clause)
            for clause, aspect, sentiment in zip(
                unique, self._head.aspects(vectors), self._head.sentiment(vectors), strict=True
            )
            if aspect is not None
        }
        return [[heard[clause] for clause in one if clause in heard] for one in parts]

    def sentiments(self, texts: Sequence[str]) -> list[float]:
        """The mean sentiment of each text's clauses, whatever they are about; 0 where it has none."""
        parts = [clauses(text) for text in texts]
        unique = list(dict.fromkeys(clause for one in parts for clause in one))
        if not unique:
            return [0.0 for _ in texts]
        vectors = np.asarray(self._encoder.encode(unique, background=True), dtype=np.float32)
        of = dict(zip(unique, self._head.sentiment(vectors).tolist(), strict=True))
        return [float(np.mean([of[clause] for clause in one])) if one else 0.0 for one in parts]


def clauses(text: str) -> list[str]:
    """The parts of a text that may each be about something else, without those that name a rating.

    A question belongs to what follows, which is its answer: "The battery? Superb!"
    """
    found = []
    for part in _ENDS.split(text):
        clause = " ".join(part.split())[:CLAUSE_CHARS]
        if sum(letter.isalpha() for letter in clause) >= _CLAUSE_LETTERS and not _STARS.search(clause):
            found.append(clause)
            if len(found) == CLAUSES_OF_TEXT:
                break
    return found


def embedded_phrases(aspects: dict[str, Aspect], encoder: Encoder) -> tuple[Floats, NDArray[np.int64]]:
    """Vectors of all phrases, (n, dimension), and the number of the aspect each belongs to, (n,)."""
    phrases = [(place, one) for place, each in enumerate(aspects.values()) for one in each.good + each.bad]
    vectors = np.asarray(encoder.encode([one for _, one in phrases]), dtype=np.float32)
    return vectors, np.array([place for place, _ in phrases], dtype=np.int64)


def write_head(folder: Path, head: OpinionHead) -> None:
    """The files of a head."""
    tensors = {
        "weight": head.weight,
        "bias": np.array([head.bias], dtype=np.float32),
        "phrases": head.phrases,
        "owners": head.owners,
    }
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS_FILE)
    (folder / WORDS_FILE).write_text(
        json.dumps(head.words.model_dump(mode="json"), ensure_ascii=False, indent=1), encoding="utf-8"
    )


def load_head(store: ReleaseStore, name: str) -> tuple[OpinionHead, Manifest]:
    """A head, checked whole, and its manifest, whose `parent` is the release of its encoder.

    Raises InvalidRelease naming the head and what is wrong with it.
    """
    manifest = store.manifest(name)
    folder = store.fetch(name)
    try:
        words = HeadWords.model_validate_json((folder / WORDS_FILE).read_bytes())
        tensors: dict[str, NDArray[Any]] = load_file(folder / WEIGHTS_FILE)
        head = OpinionHead(
            name=name,
            words=words,
            weight=tensors["weight"],
            bias=float(tensors["bias"][0]),
            phrases=tensors["phrases"],
            owners=tensors["owners"],
        )
    except ValidationError as error:
        raise InvalidRelease(f"head {name!r}: {WORDS_FILE} cannot be read: {explain(error)}") from None
    except (KeyError, IndexError, OSError, SafetensorError) as error:
        raise InvalidRelease(f"head {name!r}: {WEIGHTS_FILE} is not one of a head: {error}") from error
    _refuse_unless_whole(head, manifest)
    return head, manifest


def _refuse_unless_whole(head: OpinionHead, manifest: Manifest) -> None:
    shapes = head.weight.shape, head.phrases.shape[1:], head.owners.shape
    if shapes != ((manifest.dimension,), (manifest.dimension,), head.phrases.shape[:1]):
        raise InvalidRelease(f"head {head.name!r} has weights of other shapes than its manifest says")
    numbers = np.concatenate([head.weight, [head.bias], head.phrases.ravel()])
    if not np.isfinite(numbers).all():
        raise InvalidRelease(f"head {head.name!r} has weights that are not finite")
    if len(head.owners) and not 0 <= head.owners.min() <= head.owners.max() < len(head.words.aspects):
        raise InvalidRelease(f"head {head.name!r} has phrases of aspects that it does not name")
