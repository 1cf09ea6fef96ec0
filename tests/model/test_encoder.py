"""model/encoder.py: vectors equal those of sentence-transformers, whatever is encoded beside them."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapters.metrics import ENCODED_TEXTS_TOTAL, ENCODED_TOKENS_TOTAL, TRUNCATED_TEXTS_TOTAL
from model.encoder import TextEncoder, token_batches
from model.forward_torch import TorchForward, pool
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, UnusableModel
from schemas.releases import Pooling
from schemas.vectors import Encoder
from tests.support.tiny_model import DIMENSION, write_tiny_model

TEXTS = ["red lamp", "blue running shoe, size 44", "a", "the steel drill battery " * 12, "Lamp RED", ""]
E5 = {"query": "query: ", "passage": "passage: "}


def settings_for(folder: Path, dtype: str = "fp32", batch_tokens: int | None = None) -> ModelSettings:
    return ModelSettings.model_validate(
        {"name": str(folder), "device": "cpu", "dtype": dtype, "batch_tokens": batch_tokens}
    )


def load(folder: Path, dtype: str = "fp32", batch_tokens: int | None = None) -> TextEncoder:
    settings = settings_for(folder, dtype, batch_tokens)
    return TextEncoder.load(folder, read_encoder_config(folder, settings), settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[TextEncoder]:
    encoder = load(folder)
    yield encoder
    encoder.close()


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (ours * theirs).sum(axis=1)
    return found


@pytest.mark.parametrize(
    ("pooling", "prompts", "include_prompt"),
    [
        ("mean", {}, True),
        ("cls", {}, True),
        ("last", {}, True),
        ("mean", E5, True),
        ("mean", E5, False),
        ("cls", {"query": "the red lamp of: "}, True),
    ],
)
def test_pooling_and_prompts_are_those_of_sentence_transformers(
    tmp_path: Path, pooling: Pooling, prompts: Mapping[str, str], include_prompt: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rival's, about its own older file layouts
        from sentence_transformers import SentenceTransformer

        folder = write_tiny_model(
            tmp_path / "tiny", pooling=pooling, prompts=prompts, include_prompt=include_prompt
        )
        rival = SentenceTransformer(str(folder), device="cpu")
    encoder = load(folder)
    queries = rival.encode(TEXTS, prompt=prompts.get("query"), normalize_embeddings=True)
    # By name: asked for documents, the library passes over a prompt that is called "passage".
    passages = rival.encode(TEXTS, prompt=prompts.get("passage"), normalize_embeddings=True)
    assert cosines(encoder.encode_array(TEXTS, query=True), queries).min() > 0.99999
    assert cosines(encoder.encode_array(TEXTS), passages).min() > 0.99999
    if prompts and pooling == "mean":  # the control: the two prompts can be told apart
        assert cosines(encoder.encode_array(TEXTS), queries).min() < 0.9999
    encoder.close()


def test_the_encoder_fits_its_port_and_answers_unit_vectors(encoder: TextEncoder) -> None:
    port: Encoder = encoder
    vectors = port.encode(TEXTS)
    assert port.dimension == DIMENSION
    assert [len(vector) for vector in vectors] == [DIMENSION] * len(TEXTS)
    assert all(isinstance(number, float) for number in vectors[0])
    assert np.linalg.norm(np.array(vectors), axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)


def test_no_texts_give_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.encode([]) == []
    assert encoder.encode_array([]).shape == (0, DIMENSION)


@pytest.mark.parametrize("batch_tokens", [1, 30, 100_000])
def test_a_vector_does_not_depend_on_its_neighbours_in_the_batch(
    folder: Path, encoder: TextEncoder, batch_tokens: int
) -> None:
    alone = np.concatenate([encoder.encode_array([text]) for text in TEXTS])
    other = load(folder, batch_tokens=batch_tokens)
    together = other.encode_array(TEXTS)
    other.close()
    assert np.abs(alone - together).max() < 1e-5


def test_texts_tokens_and_cut_texts_are_counted(encoder: TextEncoder) -> None:
    counters = (ENCODED_TEXTS_TOTAL, ENCODED_TOKENS_TOTAL, TRUNCATED_TEXTS_TOTAL)
    before = [counter._value.get() for counter in counters]  # noqa: SLF001 - prometheus has no public read
    encoder.encode_array(["red lamp", "lamp", "the " * 22, "the " * 23])
    moved = [
        counter._value.get() - old  # noqa: SLF001
        for counter, old in zip(counters, before, strict=True)
    ]
    # Two special tokens each; 24 tokens fit, so 22 words do and 23 do not.
    assert moved == [4, 4 + 3 + 24 + 24, 1]


def test_loading_counts_no_texts(folder: Path) -> None:
    before = ENCODED_TEXTS_TOTAL._value.get()  # noqa: SLF001
    load(folder, dtype="bf16").close()
    assert ENCODED_TEXTS_TOTAL._value.get() == before  # noqa: SLF001


def test_threads_that_share_an_encoder_get_their_own_vectors(encoder: TextEncoder) -> None:
    texts = [f"lamp {number} {'red ' * (number % 7)}" for number in range(120)]
    expected = encoder.encode_array(texts)
    wrong: list[int] = []

    def ask(offset: int) -> None:
        for start in range(offset, len(texts), 4):
            found = encoder.encode_array(texts[start : start + 3])
            if np.abs(found - expected[start : start + 3]).max() > 1e-5:
                wrong.append(start)

    askers = [threading.Thread(target=ask, args=(offset,)) for offset in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert wrong == []


def test_a_query_waits_for_the_batch_that_runs_and_not_for_the_bulk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(name=str(folder), dtype="fp32", batch_tokens=1, threads=1)
    # One batch per text, one at a time.
    encoder = TextEncoder.load(folder, read_encoder_config(folder, settings), settings)
    forward, started, order = encoder._forward, threading.Event(), []  # noqa: SLF001 - watched, not changed
    assert isinstance(forward, TorchForward)
    hidden = forward.hidden
    go = threading.Semaphore(0)

    def watched(ids: torch.Tensor, lengths: torch.Tensor, *, padded: bool) -> torch.Tensor:
        order.append("query" if ids.shape[1] == 3 else "bulk")
        started.set()
        assert go.acquire(timeout=30)
        return hidden(ids, lengths, padded=padded)

    monkeypatch.setattr(forward, "hidden", watched)
    bulk = threading.Thread(target=encoder.encode_array, args=(["red blue"] * 20,))
    bulk.start()
    assert started.wait(30)
    query = threading.Thread(target=encoder.encode_array, args=(["red"],))
    query.start()
    deadline = time.monotonic() + 30
    # Until the query has been handed over: the bulk has one batch there at a time, and it is running.
    while encoder._lane._work_queue.qsize() == 0:  # noqa: SLF001
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for _ in range(21):
        go.release()
    bulk.join(30)
    query.join(30)
    encoder.close()
    assert order.count("bulk") == 20
    assert order.index("query") <= 2


def test_batches_hold_every_text_once_and_stay_within_their_tokens() -> None:
    lengths = [5, 1, 9, 3, 3, 40, 2, 8]
    batches = list(token_batches(lengths, 20))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    assert batches[0] == [5]  # longer than a batch may be: alone
    for batch in batches[1:]:
        assert len(batch) * max(lengths[position] for position in batch) <= 20
    longest = [max(lengths[position] for position in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert list(token_batches([], 20)) == []


def test_pooling_ignores_padding_and_sums_in_fp32() -> None:
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]], dtype=torch.bfloat16)
    lengths = torch.tensor([2])
    diagonal = [2**-0.5, 2**-0.5]
    assert pool(hidden, lengths, "mean").tolist()[0] == pytest.approx(diagonal)
    assert pool(hidden, lengths, "cls").tolist()[0] == [1.0, 0.0]
    assert pool(hidden, lengths, "last").tolist()[0] == [0.0, 1.0]
    assert pool(hidden, lengths, "mean", skip=1).tolist()[0] == [0.0, 1.0]
    # 300 ones and a half: bf16 could not hold the sum's last digits.
    many = torch.ones((1, 301, 2), dtype=torch.bfloat16)
    many[0, 0, 1] = 0.5
    ratio = pool(many, torch.tensor([301]), "mean")[0]
    assert float(ratio[1] / ratio[0]) == pytest.approx(300.5 / 301, rel=1e-6)


def test_a_folder_without_its_tokeniser_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnusableModel, match=r"tokenizer\.json is missing"):
        load(folder)
