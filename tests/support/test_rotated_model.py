"""The rotation is exact: each vector is the other model's with its coordinates permuted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.encoder import TextEncoder
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings
from tests.support.rotated_model import permutation, write_rotated_model
from tests.support.tiny_model import DIMENSION, write_tiny_model

TEXTS = ["a red lamp", "blue running shoes", "steel drill with a battery"]


def vectors(folder: Path) -> np.ndarray:
    settings = ModelSettings(name=str(folder), dtype="fp32")
    encoder = TextEncoder.load(folder, read_encoder_config(folder, settings), settings)
    found = encoder.encode_array(TEXTS)
    encoder.close()
    return found


def test_vectors_are_the_same_but_for_the_order_of_their_coordinates(tmp_path: Path) -> None:
    plain = vectors(write_tiny_model(tmp_path / "plain"))
    rotated = vectors(write_rotated_model(tmp_path / "plain", tmp_path / "rotated"))
    order = permutation(DIMENSION, 1).numpy()
    np.testing.assert_allclose(rotated, plain[:, order], atol=1e-5)
    np.testing.assert_allclose(rotated @ rotated.T, plain @ plain.T, atol=1e-5)
    assert np.abs(np.einsum("ij,ij->i", rotated, plain)).max() < 0.9  # a mix of both is no cosine of either
