"""Vectors of the same texts under several models, each model's made once and kept as a file.

Reads   folders of models
Writes  one file per model in a folder
Never   encodes a text twice with one model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.sentence_config import read_encoder_config
from model.settings import ModelSettings
from schemas.items import digest

Floats32 = NDArray[np.float32]


class Vectors:
    """Encodes named sets of texts with any model that has the base model's tokens and pooling."""

    def __init__(
        self,
        base: Path,
        folder: Path,
        sets: Mapping[str, Sequence[str]],
        *,
        max_length: int | None = None,
    ) -> None:
        self.base = base
        self._folder = folder
        self._sets = sets
        self._settings = ModelSettings(dtype="fp32", max_length=max_length)

    def __call__(self, model: Path) -> dict[str, Floats32]:
        """Unit vectors by set, (texts, dimension), by the encoder that serves."""
        texts = [text for one in self._sets.values() for text in one]
        path = self._folder / f"{digest(str(model.resolve()), texts, self._settings.max_length)}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in self._sets}
        vectors = self.of(model, texts)
        starts = np.cumsum([len(one) for one in self._sets.values()])[:-1]
        found = dict(zip(self._sets, np.split(vectors, starts), strict=True))
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}")
        np.savez(aside, **found)  # type: ignore[arg-type]
        aside.replace(path)
        return found

    def of(self, model: Path, texts: Sequence[str]) -> Floats32:
        """Unit vectors of any texts; not kept."""
        from model.encoder import TextEncoder

        encoder = TextEncoder.load(model, read_encoder_config(self.base, self._settings), self._settings)
        try:
            return encoder.encode_array(list(texts))
        finally:
            encoder.close()
