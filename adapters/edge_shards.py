"""Qdrant Edge shards on disk: one folder per collection, one owner per collection, aliases in a pointer file.

Reads   a root folder: `<collection>/` (a shard and its `spec.json`), `<collection>.owner`, `aliases.json`
Writes  the same; a collection appears whole or not at all, a pointer file is replaced by rename
Never   opens a collection that another process (or another opener in this one) holds: that is Halt

An update is durable against a killed process once it returned: the engine logs it ahead. The log is cut by
`flush`, which syncs some 170 files and holds the interpreter meanwhile: a second on a slow disk. So it
happens every FLUSH_EVERY_POINTS and on close, after the kernel has written what it could while nobody waited.
What a power cut may take from the page cache, `simstream reconcile` brings back.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import orjson
from qdrant_edge import (
    BinaryQuantizationConfig,
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    EdgeVectorParams,
    Memory,
    Modifier,
    PayloadSchemaType,
    ScalarQuantizationConfig,
    ScalarType,
    UpdateOperation,
)

from adapters.index_port import (
    PAYLOAD_INDEXES,
    SPARSE_SCAN_POINTS,
    Quantisation,
    same_but_for_pictures,
)
from adapters.index_words import kept_quantisation
from schemas.errors import Halt, Transient
from schemas.vectors import CollectionSpec

#: At most that many points to replay after a kill; a whole one takes about 5 kB of log.
FLUSH_EVERY_POINTS = 32_768
MAX_NAME_BYTES = 200
#: `MatchValue(True)` of qdrant-edge-py 0.9 matches nothing (it arrives as an integer), so booleans are
#: stored as 0 and 1 in the fields that filters may name.
_SCHEMA = {
    "keyword": PayloadSchemaType.Keyword,
    "integer": PayloadSchemaType.Integer,
    "float": PayloadSchemaType.Float,
    "bool": PayloadSchemaType.Integer,
}
_QUANTISATIONS = {
    "none": None,
    "int8": ScalarQuantizationConfig(ScalarType.Int8, quantile=0.99, memory=Memory.Pinned),
    "binary": BinaryQuantizationConfig(memory=Memory.Pinned),
}
#: How the engine's messages begin when trying again later may help; every other one is about the input.
_NOT_NOW = ("Service runtime error", "Out of", "Timeout", "Operation is cancelled", "Operation was cancelled")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The engine raises bare `Exception`s: make them Transient or ValueError by their first words."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:
            raise
        if str(error).startswith(_NOT_NOW):
            raise Transient(f"the embedded index failed while {what}: {error}") from error
        raise ValueError(f"the embedded index refused {what}: {error}") from error


@dataclass(slots=True)
class Opened:
    """A shard that this object owns, and how much it has written since its last flush."""

    shard: EdgeShard
    folder: Path
    spec: CollectionSpec
    quantisation: Quantisation
    lock_fd: int
    users: int = 0
    unflushed_points: int = 0
    idle: threading.Condition = field(default_factory=threading.Condition)


class EdgeShards:
    """Opens, creates and drops shards under one root folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._pointer = folder / "aliases.json"
        self._lock = threading.RLock()
        self._opened: dict[str, Opened] = {}
        self._closed = False

    # --- collections -----------------------------------------------------------------------------

    def ensure(
        self, collection: str, spec: CollectionSpec, quantisation: Quantisation = "none"
    ) -> CollectionSpec:
        """Create the collection, or open it; what it holds. Raises ValueError if it has other vectors.

        One that exists keeps its quantisation.
        """
        with self._lock:
            self._refuse_closed()
            if collection not in self._opened:
                path, lock_fd = self._path(collection), self._take(collection)
                try:
                    if not path.exists():
                        self._create(path, spec, quantisation)
                    self._opened[collection] = _load(path, lock_fd)
                except BaseException:
                    os.close(lock_fd)
                    raise
            kept_quantisation(collection, self._opened[collection].quantisation, quantisation)
            stands = self._opened[collection].spec
            if not same_but_for_pictures(stands, spec):
                raise ValueError(
                    f"collection {collection!r} exists with other vectors: it has {_plain(stands)}, "
                    f"asked for {_plain(spec)}; a release with other sizes gets a collection of its own"
                )
            return stands

    @contextmanager
    def using(self, collection: str) -> Iterator[Opened]:
        """The opened shard, kept open until the block ends. Raises ValueError for an unknown collection."""
        with self._lock:
            self._refuse_closed()
            opened = self._opened.get(collection) or self._open(collection)
            with opened.idle:
                opened.users += 1
        try:
            yield opened
        finally:
            with opened.idle:
                opened.users -= 1
                opened.idle.notify_all()

    def names(self) -> list[str]:
        """Names of all collections, whoever owns them."""
        found = [path for path in self._folder.iterdir() if path.is_dir() and "." not in path.name]
        return sorted(unquote(path.name) for path in found)

    def drop(self, collection: str) -> None:
        """Remove a collection once nobody uses it; no effect where it does not exist."""
        with self._lock:
            self._refuse_closed()
            opened = self._opened.pop(collection, None)
            lock_fd = opened.lock_fd if opened is not None else self._take(collection)
            try:
                if opened is not None:
                    _shut(opened)
                path = self._path(collection)
                if path.exists():
                    doomed = path.with_name(path.name + ".dropped")
                    shutil.rmtree(doomed, ignore_errors=True)
                    path.rename(doomed)
                    shutil.rmtree(doomed)
            finally:
                os.close(lock_fd)

    def wrote(self, opened: Opened, points: int) -> None:
        """Count a write; flush when enough has gathered, so that the log stays short."""
        with opened.idle:
            opened.unflushed_points += points
            due = opened.unflushed_points >= FLUSH_EVERY_POINTS
            if due:
                opened.unflushed_points = 0
        if due:
            _write_back(opened.folder)
            opened.shard.flush()

    def close(self) -> None:
        """Flush and release everything, after the calls under way have ended. Safe to repeat."""
        with self._lock:
            self._closed = True
            for opened in self._opened.values():
                _shut(opened)
                os.close(opened.lock_fd)
            self._opened.clear()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RuntimeError(f"the index in {self._folder} is closed")

    def _path(self, collection: str) -> Path:
        name = quote(collection, safe="").replace(".", "%2E")
        if not name or len(name) > MAX_NAME_BYTES:
            raise ValueError(
                f"collection {collection[:80]!r} has no name that fits a folder: 1 to {MAX_NAME_BYTES} bytes "
                "with every character but letters, digits, '_', '-' and '~' counted three times per byte"
            )
        return self._folder / name

    def _open(self, collection: str) -> Opened:
        path = self._path(collection)
        if not path.exists():
            raise ValueError(f"collection {collection!r} does not exist in {self._folder}")
        lock_fd = self._take(collection)
        try:
            opened = self._opened[collection] = _load(path, lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise
        return opened

    def _take(self, collection: str) -> int:
        """Become the owner: an advisory lock that the kernel releases with the process, however it ends."""
        path = self._path(collection)
        lock_path = path.with_name(path.name + ".owner")
        lock_fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock_fd, 1_000, 0).decode(errors="replace").strip()
            os.close(lock_fd)
            raise Halt(
                f"collection {collection!r} in {self._folder} is owned by "
                f"{owner or 'a process just started'}: the embedded index has one owner; "
                "stop that process, or speak to it over HTTP"
            ) from None
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"pid {os.getpid()} ({' '.join(sys.argv)[:500]})\n".encode(), 0)
        return lock_fd

    def _create(self, path: Path, spec: CollectionSpec, quantisation: Quantisation) -> None:
        """Build the shard aside and rename it, so that a crash leaves no half of one."""
        aside = path.with_name(path.name + ".creating")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        (aside / "spec.json").write_bytes(orjson.dumps({**_plain(spec), "quantisation": quantisation}))
        shard_folder = aside / "shard"
        shard_folder.mkdir()
        with translated("creating a collection"):
            shard = EdgeShard.create(str(shard_folder), _config(spec, quantisation))
            for name, kind in PAYLOAD_INDEXES.items():
                shard.update(UpdateOperation.create_field_index(name, _SCHEMA[kind]))
            shard.flush()
            shard.close()
        aside.rename(path)
        _sync(self._folder)

    # --- aliases ---------------------------------------------------------------------------------

    def aliases(self) -> dict[str, str]:
        """Every alias and its collection. Other processes may move them, so the file is read each time."""
        try:
            found: dict[str, str] = orjson.loads(self._pointer.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def set_alias(self, alias: str, collection: str) -> None:
        """Move or create one alias: the new pointer file is synced, then renamed over the old one."""
        if not self._path(collection).exists():
            raise ValueError(f"alias {alias!r} cannot point at {collection!r}: no such collection")
        with self._lock, _locked(self._folder / "aliases.owner"):
            self._refuse_closed()
            aside = self._folder / "aliases.json.new"
            with aside.open("wb") as file:
                file.write(orjson.dumps({**self.aliases(), alias: collection}))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._pointer)
            _sync(self._folder)


def _plain(spec: CollectionSpec) -> dict[str, object]:
    return {
        "dense": dict(sorted(spec.dense.items())),
        "sparse_with_idf": sorted(spec.sparse_with_idf),
        "sparse": sorted(spec.sparse),
    }


def _config(spec: CollectionSpec, quantisation: Quantisation) -> EdgeConfig:
    # The originals of what is quantised are read from disk for the candidates alone.
    return EdgeConfig(
        vectors={
            name: EdgeVectorParams(
                size=size,
                distance=Distance.Cosine,
                memory=None if quantisation == "none" else Memory.Cold,
                quantization_config=_QUANTISATIONS[quantisation],
            )
            for name, size in spec.dense.items()
        },
        sparse_vectors={
            name: EdgeSparseVectorParams(
                modifier=Modifier.Idf if name in spec.sparse_with_idf else None,
                full_scan_threshold=SPARSE_SCAN_POINTS,
            )
            for name in (*spec.sparse_with_idf, *spec.sparse)
        },
    )


def _load(path: Path, lock_fd: int) -> Opened:
    stored: dict[str, Any] = orjson.loads((path / "spec.json").read_bytes())
    quantisation: Quantisation = stored.pop("quantisation", "none")  # older folders do not say
    spec = CollectionSpec(**stored)
    with translated(f"opening {path.name}"):
        shard = EdgeShard.load(str(path / "shard"), _config(spec, quantisation))
        known = shard.info().payload_schema
        for name, kind in PAYLOAD_INDEXES.items():
            if name not in known:  # an index that a newer version of this code filters on
                shard.update(UpdateOperation.create_field_index(name, _SCHEMA[kind]))
    return Opened(shard=shard, folder=path, spec=spec, quantisation=quantisation, lock_fd=lock_fd)


def _shut(opened: Opened) -> None:
    with opened.idle:
        opened.idle.wait_for(lambda: opened.users == 0)
    with translated("closing a collection"):
        opened.shard.flush()
        opened.shard.close()


def _write_back(folder: Path) -> None:
    """Have the kernel write a shard's files, the interpreter being free: a flush then has little to do."""
    for file in folder.rglob("*"):
        with suppress(OSError):  # the engine replaces files as it likes
            file_fd = os.open(file, os.O_RDONLY)
            try:
                os.fdatasync(file_fd)
            finally:
                os.close(file_fd)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for, and hold, an advisory lock between processes."""
    lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock_fd)


def _sync(folder: Path) -> None:
    """Make renames in a folder durable, where the file system knows how."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
