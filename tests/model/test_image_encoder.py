"""model/image_encoder.py: a tiny CLIP by folder; its unit vectors, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.image_encoder import ImageEncoder, dimension_of, image_folder, load_image_encoder
from model.settings import ModelSettings, UnusableModel
from schemas.vectors import PictureEncoder
from tests.support.pictures import IMAGE_DIMENSION, write_tiny_clip
from tests.support.tiny_model import write_tiny_model

CPU = ModelSettings(device="cpu")


def picture(red: int, size: tuple[int, int] = (40, 60)) -> NDArray[np.uint8]:
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[..., 0] = red
    pixels[: size[0] // 2, :, 2] = 200
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="module")
def encoder(folder: Path, one_thread: None) -> ImageEncoder:
    return load_image_encoder(str(folder), CPU)


def test_vectors_have_unit_length_and_the_size_that_the_config_says(
    encoder: ImageEncoder, folder: Path
) -> None:
    port: PictureEncoder = encoder
    found = np.array(port.encode([picture(0), picture(255), picture(255, (90, 30))]))
    assert found.shape == (3, port.dimension) == (3, dimension_of(folder))
    assert port.dimension == IMAGE_DIMENSION
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert port.encode([]) == []


def test_a_picture_is_the_same_alone_and_in_a_batch_and_nearer_to_a_like_one(encoder: ImageEncoder) -> None:
    red, dark, other = picture(250), picture(240), picture(0)
    batch = np.array(encoder.encode([red, dark, other]))
    assert np.array(encoder.encode([red]))[0] == pytest.approx(batch[0], abs=1e-5)
    assert batch[0] @ batch[1] > batch[0] @ batch[2]


def test_a_vector_is_that_of_the_library_itself(encoder: ImageEncoder, folder: Path) -> None:
    import torch
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model: Any = CLIPModel.from_pretrained(str(folder), local_files_only=True)
    model.eval()
    processor = CLIPImageProcessorPil.from_pretrained(str(folder))
    with torch.inference_mode():
        pixels = processor([picture(90)], return_tensors="pt")["pixel_values"]
        features = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0].numpy()
    ours = np.array(encoder.encode([picture(90)])[0])
    assert ours @ features / np.linalg.norm(features) == pytest.approx(1, abs=1e-5)


def test_a_model_without_a_picture_side_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "words-only")
    with pytest.raises(UnusableModel, match="projection_dim"):
        load_image_encoder(str(folder), CPU)
    with pytest.raises(UnusableModel, match="SIMSTREAM_IMAGES__MODEL"):
        image_folder(str(tmp_path / "nowhere at all"), CPU)


def test_weights_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnusableModel, match="not finite"):
        load_image_encoder(str(broken), CPU)
