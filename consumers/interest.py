"""What one event says about a shopper's interest in an item: the score in the item's bottom-k sketch. Pure.

score(u) = min over u's events e of  ln(-ln h(u)) - ln w_e - lambda * (t_e - landmark)

h(u) in (0,1) comes from the shopper's keyed hash and is the same for every item, so sketches are coordinated:
two items keep the same shoppers as far as they share any. (E. Cohen and H. Kaplan, Summarizing data using
bottom-k sketches, PODC 2007: exponential ranks.) An item keeps the k smallest scores, and tau, the smallest
that did not stay; a shopper whose events weigh w_u in all was kept with probability 1 - exp(-w_u * e^tau).
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SecretStr, field_validator

from adapters.behaviour_scripts import ITEM_REGISTERS
from adapters.shopper_hash import shopper_hash
from adapters.shopper_scripts import SHOPPER_REGISTERS
from schemas.events import Frozen, UserEventType

#: Scores are kept as integers, which a small sorted set stores in 8 bytes: in steps of 2^-28.
SCORE_STEPS = 1 << 28
LANDMARK = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
_REMEMBERED = 1 << 18


class SketchSettings(Frozen):
    """What a sketch is made with. All of it is the sketch's epoch: another value needs a rebuild.

    Set `hash_key` where users are real: with the public one anybody can tell whether a hash is theirs, and
    pick ids that own every sketch. `half_life_days` None: an old interaction counts as much as a new one. A
    rating from `good_rating` on is an interest, one below is none, as an impression is none.
    """

    hash_key: SecretStr = SecretStr("")
    members: int = Field(default=128, ge=8, le=128)
    half_life_days: float | None = Field(default=90.0, gt=0)
    weights: dict[UserEventType, float] = {
        "view": 1.0,
        "click": 1.0,
        "cart": 2.0,
        "purchase": 4.0,
        "share": 2.0,
        "rate": 2.0,
    }
    good_rating: float = 3.5

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[UserEventType, float]) -> dict[UserEventType, float]:
        if "impression" in weights:
            raise ValueError("an impression is no interaction: leave it out")
        if not weights or any(not 0 < weight < math.inf for weight in weights.values()):
            raise ValueError("every weight must be above 0; leave out the types that are no interaction")
        return weights

    @property
    def key(self) -> bytes:
        """The hash key as bytes; a public one where none is set."""
        return (self.hash_key.get_secret_value() or "simstream").encode()[:64]

    @property
    def epoch(self) -> str:
        """Names everything that scores depend on."""
        parts = [sorted(self.weights.items()), self.members, self.half_life_days, self.good_rating]
        return hashlib.blake2b(repr(parts).encode(), digest_size=6, key=self.key).hexdigest()


class Shopper(NamedTuple):
    """What is derived from a user id, once."""

    hash: bytes
    #: The member of sketches: the hash as a signed integer, which a small sorted set stores in 8 bytes.
    member: str
    #: ln(-ln h(u)).
    rank: float
    #: index * 16 + rank of this shopper in an item's register sketch.
    register: int


def shopper_of(user_id: str, key: bytes) -> Shopper:
    """The shopper behind a user id."""
    return shopper_from(shopper_hash(user_id, key))


def shopper_from(name: bytes) -> Shopper:
    """The shopper behind a hash."""
    number = int.from_bytes(name, "big")
    member = str(int.from_bytes(name, "big", signed=True))
    return Shopper(name, member, log_exponential(number), register(number, ITEM_REGISTERS))


def log_exponential(number: int) -> float:
    """ln(-ln h) for h = (number + 1/2) / 2^64, exact at both ends."""
    rest = (2**64 - number - 0.5) * 2.0**-64  # 1 - h
    return math.log(-math.log1p(-rest) if rest < 0.5 else -math.log((number + 0.5) * 2.0**-64))


def register(number: int, registers: int) -> int:
    """index * 16 + rank of a 64-bit hash in a register sketch of 4-bit ranks (HyperLogLog's)."""
    index = (number >> 16) % registers
    rest = (number >> 24) & 0x3FFF
    return index * 16 + (15 - rest.bit_length() if rest else 15)


def item_register(product_id: str) -> int:
    """index * 16 + rank of an item in a shopper's register sketch."""
    number = int.from_bytes(hashlib.blake2b(product_id.encode(), digest_size=8).digest(), "big")
    return register(number, SHOPPER_REGISTERS)


class Scorer:
    """Scores events. Remembers shoppers and items, about 300 bytes each; thread-safe."""

    def __init__(self, settings: SketchSettings) -> None:
        self._key = settings.key
        # Dictionaries that are emptied when they are full: keeping the latest costs as much as it saves.
        self._shoppers: dict[str, Shopper] = {}
        self._item_registers: dict[str, int] = {}
        self._log_weights = {name: math.log(weight) for name, weight in settings.weights.items()}
        half_life = settings.half_life_days
        self._decay = math.log(2) / (half_life * 86_400) if half_life is not None else 0.0
        self._good_rating = settings.good_rating

    def shopper(self, user_id: str) -> Shopper:
        """The shopper behind a user id."""
        found = self._shoppers.get(user_id)
        if found is None:
            if len(self._shoppers) >= _REMEMBERED:
                self._shoppers.clear()
            found = self._shoppers[user_id] = shopper_of(user_id, self._key)
        return found

    def item_register(self, product_id: str) -> int:
        """`item_register` of an item."""
        found = self._item_registers.get(product_id)
        if found is None:
            if len(self._item_registers) >= _REMEMBERED:
                self._item_registers.clear()
            found = self._item_registers[product_id] = item_register(product_id)
        return found

    def interest(self, kind: UserEventType, value: Decimal | None) -> float | None:
        """ln w of an event; None if it is no interaction."""
        if kind == "rate" and (value is None or float(value) < self._good_rating):
            return None
        return self._log_weights.get(kind)

    def scores(
        self, ranks: NDArray[np.float64], log_weights: NDArray[np.float64], seconds: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Scores in whole steps of 2^-28, of ln(-ln h), ln w and seconds of each event; NaN stays NaN."""
        decayed = ranks - log_weights - self._decay * (seconds - LANDMARK)
        rounded: NDArray[np.float64] = np.rint(decayed * SCORE_STEPS)
        return rounded
