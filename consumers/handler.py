"""What a consumer is to the loop that runs it: it decodes records, does their work, and settles them.

Reads, writes  whatever its consumer does
Never          polls or commits: consumers/runner.py does
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from adapters.kafka import Record
from consumers.progress import Delivery

E = TypeVar("E")


class Handler(Protocol[E]):
    """What a consumer does with its records. It opens nothing, reads no settings, commits nothing."""

    name: str
    topics: Sequence[str]
    #: How long a commit trails the effect: longer than the store may lose on a crash.
    commit_delay_seconds: float
    #: Whether records of a partition must be handled in the order of offsets, so that no lane passes another.
    in_order: bool

    def decode(self, record: Record) -> E:
        """Parse one record. Raises PoisonMessage naming the field and the fix."""
        ...

    def handle(self, deliveries: Sequence[Delivery[E]]) -> None:
        """Do the work, now or later, and settle each record when it is done.

        Raises Transient when a store is away: the loop calls again with what is still unsettled.
        """
        ...

    def store_epoch(self) -> str | None:
        """Names the incarnation of the store that holds the effects; None where it loses nothing."""
        ...

    def adopt(self, epoch: str | None) -> None:
        """From now on the effects go to this incarnation: what was read before it is abandoned already."""
        ...

    def fatal(self) -> BaseException | None:
        """Why a thread of the handler died, if one did."""
        ...

    def close(self) -> None:
        """Stop the handler's own threads."""
        ...
