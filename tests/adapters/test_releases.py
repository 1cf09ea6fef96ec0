"""adapters/releases.py: releases appear whole or not at all, and never change."""

from __future__ import annotations

import multiprocessing
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapters.releases import InvalidRelease, ReleaseSettings, ReleaseStore, entry_of
from schemas.errors import Transient
from schemas.releases import EncoderConfig, Manifest

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def files_of(folder: Path, weights: bytes = b"weights") -> Path:
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "1_Pooling" / "config.json").write_bytes(b"{}")
    return folder


def manifest_of(folder: Path, release_id: str = "tiny-1", created_at: datetime = NOW) -> Manifest:
    names = ("model.safetensors", "1_Pooling/config.json")
    return Manifest(
        release_id=release_id,
        created_at=created_at,
        base_model="tiny",
        dimension=4,
        encoder=EncoderConfig(pooling="mean", max_length=16),
        files={name: entry_of(folder / name) for name in names},
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return files_of(tmp_path / "source")


@pytest.fixture(params=["disk", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ReleaseStore:
    url = str(tmp_path / "releases") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/releases"
    return ReleaseStore(ReleaseSettings(url=url, cache=str(tmp_path / "cache")))


@pytest.fixture
def on_disk(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(ReleaseSettings(url=str(tmp_path / "releases"), cache=str(tmp_path / "cache")))


def test_a_published_release_is_listed_and_fetched_with_its_files(store: ReleaseStore, source: Path) -> None:
    assert store.list() == []
    manifest = store.publish(source, manifest_of(source))
    assert store.list() == ["tiny-1"]
    assert store.manifest("tiny-1") == manifest
    folder = store.fetch("tiny-1")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "1_Pooling" / "config.json").read_bytes() == b"{}"


def test_publishing_the_same_files_again_keeps_the_first_manifest(store: ReleaseStore, source: Path) -> None:
    first = store.publish(source, manifest_of(source))
    later = manifest_of(source, created_at=NOW + timedelta(days=1))
    assert store.publish(source, later) == first


def test_a_release_never_changes(store: ReleaseStore, source: Path, tmp_path: Path) -> None:
    store.publish(source, manifest_of(source))
    other = files_of(tmp_path / "other", b"other weights")
    with pytest.raises(InvalidRelease, match=r"'tiny-1' already stands .* another id"):
        store.publish(other, manifest_of(other))
    assert (store.fetch("tiny-1") / "model.safetensors").read_bytes() == b"weights"


def test_files_that_differ_from_their_manifest_are_not_published(store: ReleaseStore, source: Path) -> None:
    manifest = manifest_of(source)
    (source / "model.safetensors").write_bytes(b"weightS")
    with pytest.raises(InvalidRelease, match=r"'model.safetensors' of release 'tiny-1'"):
        store.publish(source, manifest)
    assert store.list() == []


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[0] ^= 1
    path.write_bytes(bytes(body))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_truncate, "'model.safetensors' of release 'tiny-1' has 6 bytes, not 7"),
        (_flip, "'model.safetensors' of release 'tiny-1' does not have the SHA-256"),
        (Path.unlink, "'model.safetensors' of release 'tiny-1' is missing"),
        (lambda path: (path.parent / "extra.bin").write_bytes(b"x"), "'tiny-1' holds 'extra.bin'"),
    ],
    ids=["truncated", "flipped", "missing", "foreign"],
)
def test_a_spoiled_release_is_refused_by_file_and_name(
    on_disk: ReleaseStore, source: Path, tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    on_disk.publish(source, manifest_of(source))
    assert on_disk.fetch("tiny-1").is_dir()  # the control: unspoiled, it is given out
    spoil(tmp_path / "releases" / "tiny-1" / "model.safetensors")
    with pytest.raises(InvalidRelease, match=sentence):
        on_disk.fetch("tiny-1")


def test_a_copy_of_another_release_is_refused(on_disk: ReleaseStore, source: Path, tmp_path: Path) -> None:
    on_disk.publish(source, manifest_of(source))
    shutil.copytree(tmp_path / "releases" / "tiny-1", tmp_path / "releases" / "tiny-2")
    with pytest.raises(InvalidRelease, match="of release 'tiny-2' is that of 'tiny-1'"):
        on_disk.fetch("tiny-2")


def test_a_manifest_that_cannot_be_read_names_the_field(
    on_disk: ReleaseStore, source: Path, tmp_path: Path
) -> None:
    on_disk.publish(source, manifest_of(source))
    path = tmp_path / "releases" / "tiny-1" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"dimension": 4', b'"dimension": 0'))
    with pytest.raises(InvalidRelease, match=r"manifest.json.*'tiny-1'.*dimension"):
        on_disk.manifest("tiny-1")


def test_an_unknown_release_is_told_from_those_that_exist(store: ReleaseStore, source: Path) -> None:
    store.publish(source, manifest_of(source))
    with pytest.raises(InvalidRelease, match=r"'tiny-2' is not in .* \(there: tiny-1\)"):
        store.fetch("tiny-2")
    with pytest.raises(InvalidRelease, match="is no release id"):
        store.fetch("../tiny-1")


def test_what_a_crash_left_behind_is_no_release(
    on_disk: ReleaseStore, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(path: Path, target: Path) -> Path:
        shutil.copytree(path, path.with_name(".left-behind"))
        raise Crash

    manifest = manifest_of(source)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(Crash):
            on_disk.publish(source, manifest)
    # Everything was written, manifest included, but not under its name.
    assert (tmp_path / "releases" / ".left-behind" / "manifest.json").is_file()
    assert on_disk.list() == []
    on_disk.publish(source, manifest)
    assert on_disk.list() == ["tiny-1"]


def test_without_its_manifest_a_remote_upload_is_no_release(source: Path, tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    store = ReleaseStore(ReleaseSettings(url=url, cache=str(tmp_path / "cache")))
    store.publish(source, manifest_of(source))
    assert store.list() == ["tiny-1"]
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    fs.rm(f"{root}/tiny-1/manifest.json")
    assert store.list() == []


def test_a_damaged_copy_in_the_cache_is_fetched_again(source: Path, tmp_path: Path) -> None:
    settings = ReleaseSettings(url=f"memory://{uuid.uuid4().hex}", cache=str(tmp_path / "cache"))
    store = ReleaseStore(settings)
    store.publish(source, manifest_of(source))
    weights = store.fetch("tiny-1") / "model.safetensors"
    _flip(weights)
    assert (store.fetch("tiny-1") / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny-1"]


def test_a_store_that_is_away_is_waited_for(
    on_disk: ReleaseStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    def refuse(*args: object, **kwargs: object) -> object:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(LocalFileSystem, "cat_file", refuse)
    with pytest.raises(Transient, match="are away"):
        on_disk.manifest("tiny-1")


def _publish(url: str, source: str, barrier: object) -> None:
    barrier.wait(30)  # type: ignore[attr-defined]
    folder = Path(source)
    ReleaseStore(ReleaseSettings(url=url)).publish(folder, manifest_of(folder))


def test_processes_that_race_to_publish_make_one_release(tmp_path: Path) -> None:
    source = files_of(tmp_path / "source", b"w" * 3_000_000)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    url = str(tmp_path / "releases")
    racers = [context.Process(target=_publish, args=(url, str(source), barrier)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["tiny-1"]
    ReleaseStore(ReleaseSettings(url=url)).fetch("tiny-1")


@pytest.mark.parametrize("name", ["../weights", "/weights", "a//b", ".hidden", "a\\b", "manifest.json", "."])
def test_a_manifest_cannot_name_a_file_outside_its_folder(source: Path, name: str) -> None:
    entry = entry_of(source / "model.safetensors").model_dump()
    body = {**manifest_of(source).model_dump(), "files": {name: entry}}
    with pytest.raises(ValidationError):
        Manifest.model_validate(body)


@pytest.mark.parametrize("release_id", ["", "a__b", "A", "-a", "a/b", "a" * 65])
def test_a_release_id_fits_into_the_name_of_a_collection(source: Path, release_id: str) -> None:
    with pytest.raises(ValidationError):
        manifest_of(source, release_id=release_id)
