"""model/encoder.py on a GPU: the same vectors, in half precision, from several threads and compiled.

Skipped with its reason where there is no GPU; nothing here is timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.encoder import TextEncoder
from model.precision import LEAST_COSINE
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

TEXTS = ["red lamp", "blue running shoe, size 44", "a", "the steel drill battery " * 12, "Lamp RED", ""] * 50


def load(
    folder: Path, device: str, *, compile_model: bool = False, batch_tokens: int | None = None
) -> TextEncoder:
    settings = ModelSettings(
        name=str(folder), device=device, compile=compile_model, batch_tokens=batch_tokens
    )
    return TextEncoder.load(folder, read_encoder_config(folder, settings), settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def expected(folder: Path) -> NDArray[np.float32]:
    settings = ModelSettings(name=str(folder), device="cpu", dtype="fp32")
    encoder = TextEncoder.load(folder, read_encoder_config(folder, settings), settings)
    vectors = encoder.encode_array(TEXTS)
    encoder.close()
    return vectors


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[TextEncoder]:
    # Small batches: many are in flight at once.
    encoder = load(folder, "auto", batch_tokens=256)
    yield encoder
    encoder.close()


def least_cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    return float((ours * theirs).sum(axis=1).min())


def test_the_gpu_is_chosen_and_its_vectors_are_those_of_the_processor(
    encoder: TextEncoder, expected: NDArray[np.float32]
) -> None:
    assert encoder.device.startswith("cuda")
    assert least_cosine(encoder.encode_array(TEXTS), expected) >= LEAST_COSINE


def test_texts_of_several_threads_do_not_mix(encoder: TextEncoder, expected: NDArray[np.float32]) -> None:
    orders = [np.random.default_rng(seed).permutation(len(TEXTS)) for seed in range(16)]

    def encoded(order: NDArray[np.int64]) -> NDArray[np.float32]:
        return encoder.encode_array([TEXTS[place] for place in order], background=bool(order[0] % 2))

    with ThreadPoolExecutor(8) as threads:
        for order, vectors in zip(orders, threads.map(encoded, orders), strict=True):
            assert least_cosine(vectors, expected[order]) >= LEAST_COSINE


def test_what_a_caller_was_given_is_not_overwritten_by_the_next_batch(encoder: TextEncoder) -> None:
    first = encoder.encode_array(TEXTS[:6])
    kept = first.copy()
    for _ in range(20):
        encoder.encode_array(TEXTS[::-1])
    assert np.array_equal(first, kept)


# torch 2.11 warns of what its own compiler imports.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_compiled_model_gives_the_same_vectors(folder: Path, expected: NDArray[np.float32]) -> None:
    compiled = load(folder, "cuda", compile_model=True)
    try:
        assert least_cosine(compiled.encode_array(TEXTS), expected) >= LEAST_COSINE
    finally:
        compiled.close()
