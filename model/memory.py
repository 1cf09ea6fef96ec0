"""Memory of a run that has ended, given back: to other programs on the GPU, and to the next run."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress


def give_back() -> None:
    """Collect what only refers to itself, as failed runs do, and let go of the GPU's memory that is unused.

    Imports nothing: where torch was not needed, there is nothing of it to give back.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        # Where the failure was the GPU's own, it answers no more.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
