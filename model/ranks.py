"""Which of the processes that train one run this one is. Alone, it is the first of one.

Reads   torch's process group, where model/training_together.py has made one
Writes  nothing
"""

from __future__ import annotations

import torch.distributed


def processes() -> int:
    """How many train together."""
    return torch.distributed.get_world_size() if _together() else 1


def first() -> bool:
    """Whether this one writes files: one of them does."""
    return not _together() or torch.distributed.get_rank() == 0


def wait_for_all() -> None:
    """Until every process has come here."""
    if _together():
        torch.distributed.barrier()


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
