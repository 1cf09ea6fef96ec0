"""model/weights.py: complete, finite safetensors, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.settings import UnusableModel
from model.weights import load_model
from tests.support.tiny_model import write_tiny_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny")


def change(folder: Path, name: str, value: float | None) -> None:
    """Set one number of a weight, or leave the weight out."""
    weights = load_file(folder / "model.safetensors")
    if value is None:
        del weights[name]
    else:
        weights[name].view(-1)[3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_is_loaded_in_fp32_ready_to_infer(folder: Path) -> None:
    model = load_model(folder, CPU)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, value: float) -> None:
    change(folder, "embeddings.word_embeddings.weight", value)
    with pytest.raises(UnusableModel, match=r"'embeddings\.word_embeddings\.weight'.* is not finite"):
        load_model(folder, CPU)


def test_a_missing_weight_is_refused_and_a_missing_pooler_is_not(folder: Path) -> None:
    change(folder, "pooler.dense.weight", None)
    load_model(folder, CPU)
    change(folder, "encoder.layer.1.output.dense.bias", None)
    with pytest.raises(UnusableModel, match=r"lack 'encoder\.layer\.1\.output\.dense\.bias'"):
        load_model(folder, CPU)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnusableModel, match="cannot be loaded"):
        load_model(folder, CPU)


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnusableModel, match="pickled weights are not opened"):
        load_model(folder, CPU)


def test_loading_says_nothing_on_standard_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(folder, CPU)
    assert capfd.readouterr() == ("", "")
