"""A file that people change while a process runs: its content, when it is another than before.

Reads   one file
Writes  nothing
Never   watches a descriptor: mounted configuration is replaced by a link to another file
"""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024


class WatchedFile:
    """One file by its path. Not thread-safe: one thread looks."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._seen: tuple[int, ...] | None = None
        self._content: bytes | None = None

    def changed(self) -> bytes | None:
        """The content, if it differs from what the call before gave; else None.

        A file whose times and size stand is not read again. Raises OSError, and ValueError for one too large.
        """
        about = self.path.stat()
        seen = (about.st_mtime_ns, about.st_size, about.st_ino, about.st_dev)
        if seen == self._seen:
            return None
        if about.st_size > self._max_bytes:
            raise ValueError(f"{about.st_size} bytes are more than the {self._max_bytes} that are read")
        content = self.path.read_bytes()
        self._seen = seen
        if content == self._content:
            return None
        self._content = content
        return content
