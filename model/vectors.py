"""Texts to vectors with a release's own encoder, each text once.

Reads, writes  nothing but the release's folder
Never          puts a prompt before a text: whoever asks has done so, for queries and items share a table
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.settings import ModelSettings
from schemas.releases import Manifest

if TYPE_CHECKING:
    from model.encoder import TextEncoder

#: Beyond so many the oldest are encoded again: about 300 MB of 384 numbers each.
_REMEMBERED = 200_000


class ReleaseVectors:
    """Called with texts, answers unit vectors (texts, dimension). The encoder is loaded at the first use."""

    def __init__(self, folder: Path, manifest: Manifest, settings: ModelSettings) -> None:
        self._folder = folder
        self._manifest = manifest
        self._settings = settings
        self._encoder: TextEncoder | None = None
        self._known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known]
        if unknown:
            if self._encoder is None:
                from model.encoder import TextEncoder

                bare = self._manifest.encoder.model_copy(update={"query_prompt": "", "passage_prompt": ""})
                self._encoder = TextEncoder.load(self._folder, bare, self._settings)
            vectors = self._encoder.encode_array(unknown, background=True)
            self._known.update(zip(unknown, vectors, strict=True))
        found = np.empty((len(texts), self._manifest.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            found[row] = self._known[text]
        for text in list(self._known)[: max(0, len(self._known) - _REMEMBERED)]:
            del self._known[text]
        return found

    def close(self) -> None:
        """Let go of the encoder."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
