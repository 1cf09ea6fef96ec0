"""What the service asks of releases: the encoder and the text recipe that a collection was built with.

Never imports model/: app/wiring.py hands in what implements these.
"""

from __future__ import annotations

from typing import Protocol

from schemas.releases import Manifest
from schemas.vectors import Encoder, TextRecipe


class ReleaseNotLoaded(Exception):
    """This process has not loaded that release: it cannot encode for the release's collection yet."""

    def __init__(self, release_id: str) -> None:
        super().__init__(f"the encoder of release {release_id!r} is not loaded here")
        self.release_id = release_id


class LoadedRelease(Protocol):
    """A release that this process can encode with."""

    @property
    def encoder(self) -> Encoder:
        """Texts to vectors."""
        ...

    @property
    def recipe(self) -> TextRecipe:
        """Products to texts and character grams."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What it is."""
        ...


class Releases(Protocol):
    """The releases loaded in this process."""

    def loaded(self, release_id: str) -> LoadedRelease:
        """The release by name. Raises ReleaseNotLoaded; never loads anything itself."""
        ...
