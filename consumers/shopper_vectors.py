"""An item's sketch becomes its sparse vector `behaviour`.

Reads   sketches and registers of items, registers of their shoppers, in Redis
Writes  nothing
Never   stores a vector: it is made when the point is written, from what the sketch is then

An entry is at hash32(u) for each kept shopper u, so that two items' product counts the shoppers they share:

    value = s_u / max(p_u, least)^x / (N * mean(s^2) + shrinkage)^e

s_u = 1 / log2(2 + n_u), n_u how many items the shopper touched, in powers of two: who touches everything says
little about likeness. p_u is the probability with which u was kept. N is how many shoppers the item has, so
`shrinkage` weighs like that many shoppers nobody else has: two items with one shopper each, the same, are not
yet alike. With e = 1/2, two items' product is a cosine; above, popular items are fewer items' neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from adapters.behaviour_state import Header
from adapters.redis_behaviour import BehaviourStore
from adapters.registers import distinct
from consumers.assembly import Shoppers
from consumers.interest import SCORE_STEPS, shopper_from
from schemas.events import Frozen
from schemas.items import SHOPPERS_WEIGHED, digest
from schemas.vectors import SparseVector

Sketch = Sequence[tuple[bytes, float]]
#: Names what the vectors of these items would be made from now.
Fingerprints = Callable[[Sequence[str]], Mapping[str, str]]


class VectorSettings(Frozen):
    """How sketches become vectors. A change is written out by `simstream reconcile`; no rebuild.

    `inclusion` is x above: 0 takes the kept shoppers as they are, 1 scales them up in full on both sides, but
    none more than 1 / `least_kept` times: beyond that one shopper would stand for more than a sample can say.
    `norm_exponent` is e: more of it shows more of the catalogue, and hits less (benchmarks/sketch.py).
    """

    shrinkage: float = Field(default=2.0, ge=0)
    inclusion: float = Field(default=1.0, ge=0, le=1)
    least_kept: float = Field(default=0.05, gt=0, le=1)
    norm_exponent: float = Field(default=0.5, ge=0, le=1)
    weigh_shoppers: bool = True

    @property
    def mark(self) -> str:
        """Names these settings in fingerprints."""
        given = (self.shrinkage, self.inclusion, self.least_kept, self.norm_exponent, self.weigh_shoppers)
        return digest(*given)[:6]


def fingerprint(header: Header, weights: Sequence[float], settings_mark: str) -> str:
    """Names all that an item's vector is made from; `weights` in the order of the sketch.

    Its first part is the fingerprint of schemas.items.BehaviourState, which is read with every state.
    """
    return f"{header.mark}.{settings_mark}{SHOPPERS_WEIGHED}{digest(*weights)[:8]}"


class ShopperVectors:
    """Implements consumers.embeddings.BehaviourVectors."""

    def __init__(self, *, store: BehaviourStore, settings: VectorSettings) -> None:
        self._store = store
        self._settings = settings

    def read(self, product_ids: Sequence[str]) -> Mapping[str, Shoppers]:
        """The vector of each item that has behaviour. Raises Transient when Redis is away."""
        found = self._sketches(product_ids)
        names = {member: _name(member) for _, sketch in found.values() for member, _ in sketch}
        weights = self._weights(names)
        return {
            product_id: Shoppers(
                self._fingerprint(header, sketch, weights),
                vector_of(header, sketch, names, weights, self._settings),
            )
            for product_id, (header, sketch) in found.items()
        }

    def walk(self) -> Fingerprints:
        """Names the vectors of items, for one walk over all of them: each shopper is weighed once.

        About 150 bytes a shopper. Raises Transient when Redis is away.
        """
        weights: dict[bytes, float] = {}

        def fingerprints(product_ids: Sequence[str]) -> Mapping[str, str]:
            found = self._sketches(product_ids)
            members = {member for _, sketch in found.values() for member, _ in sketch}
            weights.update(self._weights({member: _name(member) for member in members - weights.keys()}))
            return {
                product_id: self._fingerprint(header, sketch, weights)
                for product_id, (header, sketch) in found.items()
            }

        return fingerprints

    def _sketches(self, product_ids: Sequence[str]) -> dict[str, tuple[Header, Sketch]]:
        # The header first: a sketch that moves meanwhile has a later digest, and is written again.
        headers = self._store.headers(product_ids)
        sketches = self._store.sketches(product_ids)
        return {
            product_id: (header, sketch)
            for product_id, header, sketch in zip(product_ids, headers, sketches, strict=True)
            if header is not None
        }

    def _fingerprint(self, header: Header, sketch: Sketch, weights: Mapping[bytes, float]) -> str:
        return fingerprint(header, [weights[member] for member, _ in sketch], self._settings.mark)

    def _weights(self, names: Mapping[bytes, bytes]) -> dict[bytes, float]:
        if not self._settings.weigh_shoppers:
            return dict.fromkeys(names, 1.0)
        registers = self._store.touched(list(names.values()))
        return {
            member: shopper_weight(distinct(packed or b""))
            for member, packed in zip(names, registers, strict=True)
        }


def _name(member: bytes) -> bytes:
    return int(member).to_bytes(8, "big", signed=True)


def shopper_weight(items: float) -> float:
    """1 / log2(2 + n), n rounded to a power of two, so that it seldom moves."""
    rounded = 2.0 ** round(math.log2(items)) if items >= 1 else 1.0
    return 1.0 / math.log2(2.0 + rounded)


def vector_of(
    header: Header,
    sketch: Sketch,
    names: Mapping[bytes, bytes],
    weights: Mapping[bytes, float],
    settings: VectorSettings,
) -> SparseVector:
    """The vector of one sketch: unique ascending indices below 2^32."""
    if not sketch:
        return SparseVector((), ())
    kept = [weights[member] for member, _ in sketch]
    shoppers = max(len(sketch), round_shoppers(header.shoppers))
    squares = shoppers * sum(weight * weight for weight in kept) / len(kept)
    norm = (squares + settings.shrinkage) ** settings.norm_exponent
    values: dict[int, float] = {}
    for (member, score), weight in zip(sketch, kept, strict=True):
        name = names[member]
        corrected = weight / norm
        if settings.inclusion and header.tau != math.inf:
            kept_with = inclusion(shopper_from(name).rank, score, header.tau)
            corrected *= max(kept_with, settings.least_kept) ** -settings.inclusion
        index = int.from_bytes(name[4:], "big")
        values[index] = values.get(index, 0.0) + corrected
    ordered = sorted(values.items())
    return SparseVector(tuple(index for index, _ in ordered), tuple(value for _, value in ordered))


def inclusion(rank: float, score: float, tau: float) -> float:
    """The probability that a shopper of this weight was kept: 1 - exp(-w e^tau), w = e^(rank - score)."""
    exponent = rank + (tau - score) / SCORE_STEPS
    return -math.expm1(-math.exp(min(exponent, 700.0)))


def round_shoppers(shoppers: int) -> int:
    """As many as their step of 6 % stands for, so that equal fingerprints make equal vectors."""
    return shoppers if shoppers < 16 else round(math.exp(round(16 * math.log(shoppers)) / 16))
