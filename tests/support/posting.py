"""A client in a process of its own that posts events until somebody kills it.

Reads   nothing
Writes  the ids that were acknowledged, one a line, each on disk before the next post

    python -m tests.support.posting URL FILE PREFIX
"""

from __future__ import annotations

import itertools
import os
import sys
from datetime import UTC, datetime

from client import Simstream
from schemas.events import UserEvent


def event(event_id: str, number: int) -> UserEvent:
    """One view; shoppers and items repeat."""
    return UserEvent(
        event_id=event_id,
        type="view",
        user_id=f"u{number % 7}",
        product_id=f"p{number % 3}",
        occurred_at=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
    )


def main(url: str, file: str, prefix: str) -> None:
    """Post for ever."""
    with Simstream(url) as client, open(file, "ab", buffering=0) as said:
        for number in itertools.count():
            event_id = f"{prefix}-{number}"
            client.publish_events([event(event_id, number)])
            said.write(f"{event_id}\n".encode())
            os.fsync(said.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
