"""Register sketches: how many distinct things they tell, one by one, together, and many at once."""

from __future__ import annotations

from random import Random

import pytest

from adapters.registers import distinct, distinct_each, distinct_of, estimated, ranks_of
from consumers.interest import register


def sketch(numbers: range, registers: int = 64, seed: int = 1) -> bytes:
    """The sketch of as many random hashes as there are numbers, each the same wherever it appears."""
    ranks = [0] * registers
    for number in numbers:
        index, rank = divmod(register(Random(seed * 1_000_003 + number).getrandbits(64), registers), 16)
        ranks[index] = max(ranks[index], rank)
    return bytes(ranks[2 * place] << 4 | ranks[2 * place + 1] for place in range(registers // 2))


@pytest.mark.parametrize(("registers", "error"), [(64, 0.13), (32, 0.18)])
@pytest.mark.parametrize("count", [1, 10, 100, 1_000, 20_000])
def test_the_mean_of_many_sketches_is_the_number_of_things(registers: int, error: float, count: int) -> None:
    found = [distinct(sketch(range(count), registers, seed)) for seed in range(30)]
    assert sum(found) / 30 == pytest.approx(count, rel=3 * error / 30**0.5 + 0.03)


def test_several_sketches_together_count_what_they_share_once() -> None:
    first, second = sketch(range(600)), sketch(range(300, 900))
    assert distinct_of([first, second]) == distinct(sketch(range(900)))
    assert distinct_of([first, b"", first]) == distinct(first)
    assert distinct_of([]) == 0.0 == distinct_of([b""])


def test_many_at_once_are_what_each_is_alone() -> None:
    sketches = [sketch(range(count), seed=count) for count in (1, 2, 50, 800, 9_000)]
    assert distinct_each(sketches) == pytest.approx([estimated(ranks_of(one)) for one in sketches])
    assert distinct_each([]) == []
