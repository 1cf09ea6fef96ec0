"""Vectors that were made once: a benchmark that is run again encodes nothing that it does not measure.

Reads, writes  one file
Never          takes the place of an encoder whose time is measured
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.encoder import TextEncoder


class RememberedEncoder:
    """The release's encoder with every vector it ever made in a file. Implements schemas.vectors.Encoder."""

    def __init__(self, encoder: TextEncoder, file: Path) -> None:
        self._encoder = encoder
        self._file = file
        self._vectors: dict[bytes, NDArray[np.float32]] = {}
        self.encoded = 0
        if file.is_file():
            with np.load(file) as kept:
                self._vectors = dict(
                    zip((key.tobytes() for key in kept["keys"]), kept["vectors"], strict=True)
                )

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._encoder.dimension

    def encode(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> list[list[float]]:
        """`encode_array` as plain lists of floats."""
        vectors: list[list[float]] = self.encode_array(texts, query=query, background=background).tolist()
        return vectors

    def encode_array(
        self, texts: Sequence[str], *, query: bool = False, background: bool = False
    ) -> NDArray[np.float32]:
        """Unit vectors, float32, shape (texts, dimension)."""
        keys = [hashlib.blake2b(f"{query}:{text}".encode(), digest_size=16).digest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        if missing:
            made = self._encoder.encode_array(list(missing.values()), query=query, background=background)
            self._vectors.update(zip(missing, made, strict=True))
            self.encoded += len(missing)
        if not keys:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.stack([self._vectors[key] for key in keys])

    def keep(self) -> None:
        """Write what is new aside, then into its place."""
        if not self.encoded:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside = self._file.with_suffix(".new.npz")
        keys = np.frombuffer(b"".join(self._vectors), dtype=np.uint8).reshape(-1, 16)
        np.savez(aside, keys=keys, vectors=np.stack(list(self._vectors.values())))
        aside.replace(self._file)
        self.encoded = 0
