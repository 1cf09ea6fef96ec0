"""Releases as the encoder sees them: the first one is made from the base model, any one is loaded whole.

Reads   the base model's folder; a release's folder
Writes  a release, through adapters/releases.py
Never   guesses which release to load: it is named, and its manifest says how it encodes
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from pydantic import ValidationError

from adapters.releases import InvalidRelease, ReleaseStore, entry_of
from model.encoder_process import EncoderProcess
from model.forward import kept
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, UnusableModel, base_folder
from model.text import ProductText, TextSettings
from schemas.items import digest
from schemas.parsing import explain
from schemas.releases import EncoderConfig, FileEntry, Manifest

if TYPE_CHECKING:
    from model.encoder import TextEncoder

log = logging.getLogger(__name__)

#: What a release takes over from the base model's folder, where it is there.
_TAKEN = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "*_Pooling/config.json",
)


#: Vectors of different texts that are nowhere further apart than this are one vector.
_ALIKE = 1e-4
#: The priority of trying a release out.
_LOWEST = 19

EncoderT = TypeVar("EncoderT", "TextEncoder", EncoderProcess)


@dataclass(frozen=True)
class LoadedRelease(Generic[EncoderT]):
    """A release ready to use: its encoder and the recipe its texts were made with."""

    release_id: str
    encoder: EncoderT
    recipe: ProductText
    manifest: Manifest


def first_release(settings: ModelSettings, store: ReleaseStore, *, created_at: datetime) -> Manifest:
    """The release of the unchanged base model; made if the store has none of the same contents.

    Its id names its contents, so processes that race make the same one. Raises UnusableModel, InvalidRelease.
    """
    source = base_folder(settings)
    config = read_encoder_config(source, settings)
    with tempfile.TemporaryDirectory(prefix="simstream-release-") as scratch:
        files = _files(source, Path(scratch))
        manifest = _manifest(settings, config, files, created_at)
        if manifest.release_id in store.list():
            return store.manifest(manifest.release_id)
        _refuse_unless_finite(source)
        for name, path in files.items():
            link = Path(scratch) / "release" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        standing = store.publish(Path(scratch) / "release", manifest)
    log.info("release_published release=%s base_model=%s", standing.release_id, standing.base_model)
    return standing


def load_release(store: ReleaseStore, release_id: str, settings: ModelSettings) -> LoadedRelease[TextEncoder]:
    """Fetch, check and load a release; device and precision come from `settings`, the rest from its manifest.

    Raises InvalidRelease or UnusableModel naming the release and what is wrong with it.
    """
    # Here and not above: naming and listing releases should not cost the import of torch.
    from model.encoder import TextEncoder

    return _loaded(store, release_id, lambda folder, config: TextEncoder.load(folder, config, settings))


def start_release(
    store: ReleaseStore, release_id: str, settings: ModelSettings
) -> LoadedRelease[EncoderProcess]:
    """As `load_release`, the encoder in a process of its own."""
    return _loaded(store, release_id, lambda folder, config: EncoderProcess.load(folder, config, settings))


def try_release(
    store: ReleaseStore, release_id: str, settings: ModelSettings, *, probes: Sequence[str]
) -> Manifest:
    """Load a release as it would be loaded for good, encode a few texts, let go of it again.

    At the lowest priority: nobody waits for it, and others may be serving.

    Raises InvalidRelease or UnusableModel saying what is wrong: a file, a weight that is not finite, vectors
    of another length than the manifest's, vectors that are not finite or the same for every text.
    """
    loaded = _loaded(
        store,
        release_id,
        lambda folder, config: EncoderProcess.load(folder, config, settings, nice=_LOWEST),
    )
    try:
        vectors = loaded.encoder.encode_array(probes)
    finally:
        loaded.encoder.close()
    if not bool(np.isfinite(vectors).all()):
        raise UnusableModel(
            f"release {release_id!r} makes vectors that are not finite; it would poison the index"
        )
    if len(probes) > 1 and float(np.ptp(vectors, axis=0).max()) < _ALIKE:
        raise UnusableModel(
            f"release {release_id!r} makes the same vector of {len(probes)} different texts: it "
            "has collapsed in training, and everything would be similar to everything"
        )
    return loaded.manifest


def release_recipe(store: ReleaseStore, release_id: str) -> ProductText:
    """The text recipe alone, for whoever compares texts and encodes none: it stands in the manifest.

    Raises InvalidRelease naming the release and what is wrong with it.
    """
    return _recipe(store.manifest(release_id))


def _recipe(manifest: Manifest) -> ProductText:
    try:
        return ProductText(TextSettings.model_validate(manifest.text))
    except ValidationError as error:
        raise InvalidRelease(
            f"the text recipe of release {manifest.release_id!r} is not one of this version: {explain(error)}"
        ) from None


def _loaded(
    store: ReleaseStore, release_id: str, load: Callable[[Path, EncoderConfig], EncoderT]
) -> LoadedRelease[EncoderT]:
    manifest = store.manifest(release_id)
    recipe = _recipe(manifest)
    try:
        encoder = load(store.fetch(release_id), manifest.encoder)
    except UnusableModel as error:
        raise UnusableModel(f"release {release_id!r}: {error}") from error
    if encoder.dimension != manifest.dimension:
        encoder.close()
        raise InvalidRelease(
            f"release {release_id!r} has vectors of {encoder.dimension} numbers and its manifest says "
            f"{manifest.dimension}; publish it again under another id"
        )
    return LoadedRelease(release_id=release_id, encoder=encoder, recipe=recipe, manifest=manifest)


def _files(source: Path, scratch: Path) -> dict[str, Path]:
    """Each file of the release and where it lies now; a fast tokeniser is written out where there is none."""
    files = {
        str(path.relative_to(source)): path
        for pattern in _TAKEN
        for path in sorted(source.glob(pattern))
        if path.is_file()
    }
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise UnusableModel(
            f"the model in {source} has no config.json or no *.safetensors; pickled weights are not opened, "
            "so convert it, or set SIMSTREAM_MODEL__NAME to another model"
        )
    if "tokenizer.json" not in files:
        files["tokenizer.json"] = _written_tokenizer(source, scratch)
    return files


def _written_tokenizer(source: Path, scratch: Path) -> Path:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise UnusableModel(f"the tokeniser in {source} cannot be loaded: {error}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnusableModel(f"the tokeniser in {source} has no fast version; set SIMSTREAM_MODEL__NAME")
    path = scratch / "tokenizer.json"
    backend.save(str(path))
    return path


def _manifest(
    settings: ModelSettings, config: EncoderConfig, files: dict[str, Path], created_at: datetime
) -> Manifest:
    entries: dict[str, FileEntry] = {name: entry_of(path) for name, path in sorted(files.items())}
    text = settings.text.model_dump(mode="json", exclude={"remembered_words"})
    shape = json.loads(files["config.json"].read_bytes())
    dimension = shape.get("hidden_size") or shape.get("dim") or shape.get("d_model")
    if not isinstance(dimension, int):
        raise UnusableModel(f"config.json of {settings.name} names no hidden_size; set SIMSTREAM_MODEL__NAME")
    name = Path(settings.name).name if Path(settings.name).is_dir() else settings.name.rpartition("/")[2]
    contents = {file: entry.sha256 for file, entry in entries.items()}
    # A field that says nothing is left out: releases made before there was one keep their names.
    encoder = config.model_dump(mode="json", exclude={"dimension"} if config.dimension is None else None)
    return Manifest(
        release_id=f"{_slug(name)}-{digest(contents, encoder, text)}",
        created_at=created_at,
        base_model=name if Path(settings.name).is_dir() else settings.name,
        dimension=kept(config.dimension, dimension),
        encoder=config,
        text=text,
        files=entries,
    )


def _slug(name: str) -> str:
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:40].strip("-") or "model"


def _refuse_unless_finite(source: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for path in sorted(source.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():
                    tensor = weights.get_tensor(name)
                    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                        raise UnusableModel(
                            f"weight {name!r} in {path} is not finite; it would poison vectors"
                        )
        except SafetensorError as error:
            raise UnusableModel(f"{path} is no complete safetensors file: {error}") from error
