"""Five poisoned candidates: none gets past the check that comes before a collection, each with its reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.releases import ReleaseStore, entry_of
from app.rollouts import RolloutWork
from app.settings import Settings
from model.candidate import finish, new_run
from model.learning_settings import GateSettings
from schemas.releases import Manifest
from schemas.rollouts import Rollout
from tests.support.learning import NOW, QUICK, little_examples, tiny_release
from tests.support.tiny_model import DIMENSION

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = "model.safetensors"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    store, _, model = tiny_release(tmp_path)
    releases = {"url": str(tmp_path / "releases"), "cache": str(tmp_path / "cache")}
    assert store.list()
    return Settings.model_validate({"releases": releases, "model": model.model_dump()})


def check(settings: Settings, release_id: str) -> None:
    """What a rollout does first; raises ValueError with its reason."""
    nothing = cast(Any, None)
    work = RolloutWork(settings, store=nothing, publisher=nothing, index=nothing, writes=lambda name: False)
    work.check(Rollout(release_id=release_id, collection="items__x__1", wanted=True, since=NOW))


def published(settings: Settings, release_id: str, harm: Callable[[Path], None], **changes: Any) -> Manifest:
    """The live release's files, harmed before their manifest was made."""
    store = ReleaseStore(settings.releases)
    (live,) = store.list()
    folder = store.fetch(live).parent.parent / release_id
    shutil.copytree(store.fetch(live), folder)
    harm(folder)
    manifest = store.manifest(live)
    files = {name: entry_of(folder / name) for name in manifest.files}
    update = {"release_id": release_id, "parent": live, "files": files, **changes}
    return store.publish(folder, manifest.model_copy(update=update))


def nothing(folder: Path) -> None:
    pass


def nan(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    next(tensor for name, tensor in sorted(tensors.items()) if "weight" in name)[:] = np.nan
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1_000])


def flipped(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0xFF
    path.write_bytes(bytes(body))


@pytest.mark.usefixtures("encoder_here")
def test_an_unharmed_candidate_gets_past_the_check(settings: Settings) -> None:
    check(settings, published(settings, "good", nothing).release_id)


@pytest.mark.usefixtures("encoder_here")
@pytest.mark.parametrize(
    ("harm", "changes", "reason"),
    [
        (nan, {}, "not finite"),
        (truncated, {}, "cannot be loaded"),
        (nothing, {"dimension": DIMENSION + 1}, f"vectors of {DIMENSION} numbers"),
    ],
    ids=["NaN weights", "truncated safetensors", "wrong dimension"],
)
def test_poison_in_the_files_is_named(
    settings: Settings, harm: Callable[[Path], None], changes: dict[str, Any], reason: str
) -> None:
    name = published(settings, "poisoned", harm, **changes).release_id
    with pytest.raises(ValueError, match=reason):
        check(settings, name)


def test_bytes_that_were_flipped_after_publishing_are_named(settings: Settings) -> None:
    name = published(settings, "flipped", nothing).release_id
    flipped(ReleaseStore(settings.releases).fetch(name) / WEIGHTS)
    with pytest.raises(ValueError, match=r"'model.safetensors' .* does not have the SHA-256"):
        check(settings, name)


@pytest.mark.usefixtures("encoder_here")
@pytest.mark.parametrize("shuffled", [False, True], ids=["true labels", "shuffled labels"])
def test_what_was_trained_on_shuffled_labels_is_refused_by_the_gates_figures(
    settings: Settings, tmp_path: Path, shuffled: bool
) -> None:
    store = ReleaseStore(settings.releases)
    (live,) = store.list()
    examples = little_examples()
    if shuffled:
        # Of other colours every time: what belongs together is learned to be apart.
        colour = examples.pairs.anchors // 16
        generator = np.random.default_rng(5)
        other = (colour + generator.integers(1, 4, len(colour))) % 4
        examples.pairs.positives[:] = other * 16 + generator.integers(0, 16, len(colour))
        examples = examples._replace(validation=None)
    (tmp_path / "runs").mkdir()
    run = new_run(
        tmp_path / "runs",
        parent=live,
        recipe=QUICK.model_copy(update={"mask": False}),
        prepared=examples,
        created_at=NOW,
    )
    # Lower bounds on counts alone: the sets have 40 queries.
    gate = GateSettings(least_queries=20, samples=200)
    outcome = finish(run, store=store, settings=settings.model, gate=gate, created_at=NOW)
    assert outcome.manifest is not None
    if not shuffled:
        assert outcome.verdict.passed, outcome.verdict.reasons
        check(settings, outcome.manifest.release_id)
        return
    assert any("no sure gain" in reason for reason in outcome.verdict.reasons)
    with pytest.raises(ValueError, match=r"the gate refused release .*: .*no sure gain"):
        check(settings, outcome.manifest.release_id)
