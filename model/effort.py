"""What an encoder has done, as numbers that can be counted here or told to another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from adapters.metrics import (
    ENCODED_TEXTS_TOTAL,
    ENCODED_TOKENS_TOTAL,
    ENCODER_SECONDS_TOTAL,
    TRUNCATED_TEXTS_TOTAL,
)


class Effort(NamedTuple):
    """A piece of work: tokens without padding, seconds in which the encoder was busy."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0


def count_effort(effort: Effort) -> None:
    """Add it to this process' metrics."""
    ENCODED_TEXTS_TOTAL.inc(effort.texts)
    ENCODED_TOKENS_TOTAL.inc(effort.tokens)
    TRUNCATED_TEXTS_TOTAL.inc(effort.truncated)
    ENCODER_SECONDS_TOTAL.inc(effort.seconds)


Counts = Callable[[Effort], None]
