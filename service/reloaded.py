"""What a file says, taken anew when the file changes: the last version that was right is the one in force.

Reads   one file
Writes  nothing
Never   takes a version that is wrong anywhere, and never drops what it has because the next version is wrong
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from adapters.watched_file import WatchedFile
from schemas.errors import Halt

T = TypeVar("T")


class Reloaded(ABC, Generic[T]):
    """A file that may change under its readers. `value` may be read by any thread; one thread looks."""

    #: What the file holds, in a word: rules, keys.
    holds: ClassVar[str]

    def __init__(self, path: Path | None, *, setting: str, nothing: T, look_seconds: float) -> None:
        """Reads the file that `setting` names; None: there is none, and `nothing` stays.

        Raises Halt where it is missing or wrong: there is no version before.
        """
        self._file = WatchedFile(path) if path is not None else None
        self._look_seconds = look_seconds
        self._stopped = threading.Event()
        #: Whether the last content that was read is what is in force.
        self._file_is_taken = False
        self.value = nothing
        #: Why the file as it is now is not what is in force; None: it is.
        self.refused: str | None = None
        if self._file is not None:
            self.look()
            if self.refused is not None:
                raise Halt(f"{setting}: {self.refused}")

    @abstractmethod
    def parsed(self, content: bytes) -> T:
        """What a version says. Raises ValueError with a sentence for whoever wrote the file."""

    @abstractmethod
    def taken(self, path: Path, before: T) -> None:
        """A version is in force from now on."""

    @abstractmethod
    def standing(self, refused: str | None, *, new: bool) -> None:
        """Looked: `refused` says why the file is not in force; `new`: for the first time."""

    def notes(self) -> dict[str, str | None]:
        """For readiness, which answers without a key and so repeats nothing of the file."""
        what = self.holds
        said = f"the {what} file was refused, and the {what} before it are in force: the log says why"
        return {what: None if self.refused is None else said}

    def look(self) -> None:
        """Take a new version of the file, if there is one."""
        if self._file is None:
            return
        try:
            content = self._file.changed()
            if content is None:
                self._say(None if self._file_is_taken else self.refused)
                return
            self._file_is_taken = False
            before, self.value = self.value, self.parsed(content)
        except OSError as error:
            self._say(f"{self._file.path} cannot be read: {error.strerror}")
        except ValueError as error:
            self._say(f"{self._file.path}: {error}")
        except Exception as error:  # noqa: BLE001  a thread that died would take no later version
            self._say(f"{self._file.path}: cannot be taken ({type(error).__name__}: {error})")
        else:
            self._file_is_taken = True
            self._say(None)
            self.taken(self._file.path, before)

    def run(self) -> None:
        """Look again and again, until stopped."""
        while not self._stopped.wait(self._look_seconds):
            self.look()

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def _say(self, refused: str | None) -> None:
        """Remember why the file is not in force; each reason is new once."""
        new = refused is not None and refused != self.refused
        self.refused = refused
        self.standing(refused, new=new)
