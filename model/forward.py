"""What an encoder needs of whatever computes: ids in, unit vectors out, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.settings import UnusableModel

#: float32, (texts, dimension), each row of length 1.
Vectors = NDArray[np.float32]


def kept(dimension: int | None, hidden_size: int) -> int:
    """How many numbers of a pooled vector are kept. Raises UnusableModel where the model has fewer."""
    if dimension is not None and dimension > hidden_size:
        raise UnusableModel(
            f"vectors are to have {dimension} numbers, and the model makes {hidden_size}; set "
            "SIMSTREAM_MODEL__DIMENSION to so many or fewer"
        )
    return dimension or hidden_size


class Forward(Protocol):
    """A model ready to run. `model/forward_torch.py` and `model/forward_onnx.py` implement it."""

    #: "torch" or "onnx", for the log.
    engine: str
    #: Precision in use, and the least cosine to fp32 on probe texts where it was compared.
    dtype: str
    cosine: float | None
    dimension: int
    pad_id: int
    #: Whether a thread of lower priority gives way to others; a GPU has one queue of work.
    on_processor: bool
    #: Tokens of a batch, padding included, that suit it.
    batch_tokens: int
    #: Batches computed at a time, and batches of one encode handed over ahead of their turn.
    side_by_side: int
    ahead: int

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    def use_thread(self) -> None:
        """Set up the calling thread, which will run batches."""
        ...

    def start(self, batch: Sequence[Sequence[int]], *, skip: int) -> Callable[[], Vectors]:
        """Start one batch of ids, longest first; the answer waits for it and hands out its vectors.

        `skip` tokens at the front (a prompt) are left out of a mean.
        """
        ...
