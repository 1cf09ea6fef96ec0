"""Which index, by its URL: a Qdrant server, or Qdrant's engine in this process.

Reads   nothing
Writes  nothing
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from adapters.index_port import Quantisation, VectorIndex
from schemas.events import Frozen

EDGE = "edge:"


class IndexSettings(Frozen):
    """Where vectors live: `http://host:6333`, or `edge:FOLDER` for the embedded engine."""

    url: str = "http://127.0.0.1:6333"
    api_key: SecretStr | None = None
    timeout_seconds: float = Field(default=10.0, gt=0)
    prefer_grpc: bool = False
    #: Of the dense vectors of collections that are made from now on; `simstream rebuild` makes one.
    quantisation: Quantisation = "none"


def open_index(settings: IndexSettings) -> VectorIndex:
    """Open the index. An embedded one has one owner: raises Halt naming it when that is somebody else."""
    if settings.url.startswith(EDGE):
        from adapters.index_edge import EdgeIndex

        return EdgeIndex(Path(settings.url.removeprefix(EDGE)), quantisation=settings.quantisation)
    from adapters.index_server import ServerIndex

    return ServerIndex.connect(settings)
