"""Register sketches, which count distinct things: HyperLogLog with ranks of 4 bits, two to a byte.

Adding again, and any order, ends the same; several are together the maximum of each register. (P. Flajolet et
al., HyperLogLog, AofA 2007; linear counting while few have come.) The standard error is 1.04 / sqrt(m): 13 %
with 64 registers, 18 % with 32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

_ALPHA = {32: 0.697, 64: 0.709}
#: Of each byte, which holds two registers: the sum of 2^-rank, and how many ranks are 0.
_BYTES = np.arange(256)
_SUMS = 2.0 ** -(_BYTES >> 4) + 2.0 ** -(_BYTES & 15)
_ZEROS = ((_BYTES >> 4) == 0).astype(np.int64) + ((_BYTES & 15) == 0)


def ranks_of(packed: bytes) -> list[int]:
    """The rank in each register."""
    return [rank for byte in packed for rank in (byte >> 4, byte & 15)]


def estimated(ranks: Sequence[int]) -> float:
    """How many distinct things they have seen. Of 32 or 64 registers; none is 0."""
    if not ranks:
        return 0.0
    m, zeros = len(ranks), ranks.count(0)
    raw = _ALPHA[m] * m * m / sum(2.0**-rank for rank in ranks)
    return m * math.log(m / zeros) if raw <= 2.5 * m and zeros else raw


@lru_cache(65_536)
def distinct(packed: bytes) -> float:
    """`estimated` of one packed sketch; remembered, for most of those met are of a few things."""
    return estimated(ranks_of(packed))


def distinct_each(sketches: Sequence[bytes]) -> list[float]:
    """`estimated` of each of many packed sketches of one size, none of them empty."""
    if not sketches:
        return []
    packed = np.frombuffer(b"".join(sketches), dtype=np.uint8).reshape(len(sketches), -1)
    sums, zeros = _SUMS[packed].sum(axis=1), _ZEROS[packed].sum(axis=1)
    m = 2 * packed.shape[1]
    raw = _ALPHA[m] * m * m / sums
    linear = m * np.log(m / np.maximum(zeros, 1))
    found: list[float] = np.where((raw <= 2.5 * m) & (zeros > 0), linear, raw).tolist()
    return found


def distinct_of(sketches: Iterable[bytes]) -> float:
    """`estimated` of several packed sketches of one size together."""
    together: list[int] = []
    for packed in sketches:
        ranks = ranks_of(packed)
        if ranks:
            together = [max(pair) for pair in zip(together, ranks, strict=True)] if together else ranks
    return estimated(together)
