"""The releases folder: immutable releases of the model, on the local disk or behind any fsspec URL.

Reads, writes  `{url}/{release_id}/...` and `{url}/{release_id}/manifest.json`, the manifest last
Never          changes or removes a file of a release, nor hands out one that differs from its manifest

On a local disk a release is written aside, flushed and renamed, so it appears whole or not at all. On an
object store there is no rename: what has no manifest is no release. Leftovers of a crash begin with a dot.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import TypeAdapter, ValidationError

from schemas.errors import Transient
from schemas.events import Frozen
from schemas.parsing import explain
from schemas.releases import MANIFEST_NAME, FileEntry, Manifest, ReleaseId

_CHUNK_BYTES = 1 << 20
_release_id: TypeAdapter[str] = TypeAdapter(ReleaseId)


class ReleaseSettings(Frozen):
    """Where releases live: a folder or an fsspec URL (`s3://bucket/releases`; its library must be installed).

    `cache` is the local folder that releases of a remote URL are fetched into.
    """

    url: str = "./var/releases"
    cache: str = "./var/cache/releases"


class InvalidRelease(ValueError):
    """A release that is missing, incomplete or altered; the message names it, the file and the fix."""


class ReleaseStore:
    """Lists, publishes and fetches releases. Any number of processes may share one folder."""

    def __init__(self, settings: ReleaseSettings) -> None:
        self._url = settings.url
        fs, root = fsspec.core.url_to_fs(settings.url)
        self._fs: Any = fs
        self._root = str(root).rstrip("/")
        self._local = isinstance(fs, LocalFileSystem)
        self._cache = Path(settings.cache)

    def list(self) -> list[str]:
        """Ids of all complete releases, in alphabetical order."""
        with self._reachable():
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
            names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if _is_folder(entry)]
            return sorted(
                name
                for name in names
                if not name.startswith(".") and self._fs.exists(self._path(name, MANIFEST_NAME))
            )

    def manifest(self, release_id: str) -> Manifest:
        """The manifest of a release. Raises InvalidRelease if there is none, or none that makes sense."""
        _checked_id(release_id)
        with self._reachable():
            try:
                body = self._fs.cat_file(self._path(release_id, MANIFEST_NAME))
            except (FileNotFoundError, NotADirectoryError):
                known = ", ".join(self.list()) or "none"
                raise InvalidRelease(
                    f"release {release_id!r} is not in {self._url} (there: {known}); "
                    "check SIMSTREAM_RELEASES__URL"
                ) from None
        return _parsed(release_id, body)

    def line(self, release_id: str) -> builtins.list[Manifest]:
        """The release's manifest and those it descends from, oldest first, as far as they are still there."""
        found = [self.manifest(release_id)]
        known = {release_id}
        while (parent := found[0].parent) is not None and parent not in known:
            known.add(parent)
            try:
                found.insert(0, self.manifest(parent))
            except InvalidRelease:
                break
        return found

    def publish(self, folder: Path, manifest: Manifest) -> Manifest:
        """Store the files of `folder` that the manifest lists; answers the manifest that stands there now.

        Publishing the same files again has no effect and answers the first one's manifest. Raises
        InvalidRelease if the files are not what the manifest says, or the id is taken by another release.
        """
        verify(folder, manifest)
        if self._local:
            self._publish_locally(folder, manifest)
        else:
            self._publish_remotely(folder, manifest)
        standing = self.manifest(manifest.release_id)
        if _identity(standing) != _identity(manifest):
            raise InvalidRelease(
                f"release {manifest.release_id!r} already stands in {self._url} with other contents, and a "
                "release never changes; publish under another id"
            )
        return standing

    def fetch(self, release_id: str) -> Path:
        """A local folder with the release's files, each checked against the manifest by size and SHA-256.

        Raises InvalidRelease naming the first file that is missing, truncated, altered or foreign.
        """
        manifest = self.manifest(release_id)
        self._refuse_foreign(manifest)
        if self._local:
            folder = Path(self._path(release_id))
            verify(folder, manifest)
            return folder
        folder = self._cache / release_id
        if folder.is_dir():
            try:
                verify(folder, manifest)
            except InvalidRelease:
                # A cache is no evidence: fetch again, and let the copy behind the URL be judged.
                shutil.rmtree(folder, ignore_errors=True)
            else:
                return folder
        aside = self._cache / f".{release_id}-{uuid.uuid4().hex}"
        try:
            with self._reachable():
                for name in manifest.files:
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    try:
                        self._fs.get_file(self._path(release_id, name), str(aside / name))
                    except FileNotFoundError:
                        raise InvalidRelease(_missing(release_id, name)) from None
            verify(aside, manifest)
            _rename(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return folder

    def _publish_locally(self, folder: Path, manifest: Manifest) -> None:
        root, target = Path(self._root), Path(self._path(manifest.release_id))
        if (target / MANIFEST_NAME).exists():
            return
        root.mkdir(parents=True, exist_ok=True)
        aside = root / f".{manifest.release_id}-{uuid.uuid4().hex}"
        try:
            for name in manifest.files:
                copy = aside / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, copy)
                _flush(copy)
            (aside / MANIFEST_NAME).write_bytes(_body(manifest))
            _flush(aside / MANIFEST_NAME)
            # The copies were made from files that could have changed since they were checked.
            verify(aside, manifest)
            for parent in {(aside / name).parent for name in manifest.files} | {aside}:
                _flush(parent)
            _rename(aside, target)
            _flush(root)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _publish_remotely(self, folder: Path, manifest: Manifest) -> None:
        with self._reachable():
            if self._fs.exists(self._path(manifest.release_id, MANIFEST_NAME)):
                return
            self._fs.makedirs(self._path(manifest.release_id), exist_ok=True)
            for name in manifest.files:
                remote = self._path(manifest.release_id, name)
                self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(folder / name), remote)
            self._fs.pipe_file(self._path(manifest.release_id, MANIFEST_NAME), _body(manifest))

    def _refuse_foreign(self, manifest: Manifest) -> None:
        base = self._path(manifest.release_id)
        with self._reachable():
            found = {str(path)[len(base) + 1 :] for path in self._fs.find(base)}
        foreign = sorted(found - set(manifest.files) - {MANIFEST_NAME})
        if foreign:
            raise InvalidRelease(
                f"release {manifest.release_id!r} holds {foreign[0]!r}, which its manifest does not list; "
                "somebody wrote into it: remove that file, or publish again under another id"
            )

    def _path(self, release_id: str, name: str = "") -> str:
        return "/".join(part for part in (self._root, release_id, name) if part)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, TimeoutError) as error:
            raise Transient(f"the releases at {self._url} are away: {error}") from error


def entry_of(path: Path) -> FileEntry:
    """Size and SHA-256 of one file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileEntry(sha256=digest.hexdigest(), size_bytes=file.tell())


def verify(folder: Path, manifest: Manifest) -> None:
    """Check every listed file of a local folder. Raises InvalidRelease naming the file and the release."""
    release_id = manifest.release_id
    for name, wanted in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise InvalidRelease(_missing(release_id, name))
        size_bytes = path.stat().st_size
        if size_bytes != wanted.size_bytes:
            raise InvalidRelease(
                f"file {name!r} of release {release_id!r} has {size_bytes} bytes, not {wanted.size_bytes}: "
                "it was truncated or replaced; publish the release again under another id"
            )
        if entry_of(path).sha256 != wanted.sha256:
            raise InvalidRelease(
                f"file {name!r} of release {release_id!r} does not have the SHA-256 of its manifest: it was "
                "damaged or replaced; publish the release again under another id"
            )


def _is_folder(entry: Mapping[str, Any]) -> bool:
    return str(entry["type"]) == "directory"


def _checked_id(release_id: str) -> None:
    try:
        _release_id.validate_python(release_id)
    except ValidationError:
        raise InvalidRelease(
            f"{release_id!r} is no release id: lower-case letters, digits, dots and dashes, at most 64"
        ) from None


def _parsed(release_id: str, body: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRelease(
            f"file {MANIFEST_NAME!r} of release {release_id!r} cannot be read: {explain(error)}"
        ) from None
    if manifest.release_id != release_id:
        raise InvalidRelease(
            f"file {MANIFEST_NAME!r} of release {release_id!r} is that of {manifest.release_id!r}: a folder "
            "was renamed or a file copied; a release keeps its id"
        )
    return manifest


def _identity(manifest: Manifest) -> dict[str, Any]:
    """What makes two manifests the same release: everything but when it was made."""
    return manifest.model_dump(mode="json", exclude={"created_at"})


def _missing(release_id: str, name: str) -> str:
    return (
        f"file {name!r} of release {release_id!r} is missing; publish the release again under another id, "
        "or restore the file"
    )


def _body(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode() + b"\n"


def _rename(aside: Path, target: Path) -> None:
    """Move a finished folder to its name; if another process was first, its folder stands."""
    try:
        aside.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _flush(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
