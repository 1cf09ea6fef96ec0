"""A multilingual encoder by the name of the hub: found, released, and encoding as its makers do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from adapters.releases import ReleaseSettings, ReleaseStore
from model.encoder import TextEncoder
from model.release import LoadedRelease, first_release, load_release
from model.settings import ModelSettings, UnusableModel, base_folder
from schemas.events import Product
from tests.support.tiny_multilingual import DIMENSION, MAX_TOKENS, in_hub_cache

NAME = "example/multilingual-e5-small"
TEXTS = ["越野跑鞋 男款 红色", "red shoe", "红色手机壳 for 手机", "龘", "", "台灯 " * 60]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the hub with the model in it, and no hub."""
    folder = tmp_path_factory.mktemp("hub")
    in_hub_cache(folder, NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield folder


@pytest.fixture(scope="module")
def release(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedRelease[TextEncoder]]:
    """The first release of the model, loaded."""
    store = ReleaseStore(ReleaseSettings(url=str(tmp_path_factory.mktemp("releases"))))
    settings = ModelSettings(name=NAME, device="cpu", dtype="fp32", engine="torch")
    manifest = first_release(settings, store, created_at=datetime(2026, 11, 26, tzinfo=UTC))
    loaded = load_release(store, manifest.release_id, settings)
    yield loaded
    loaded.encoder.close()


def test_the_name_alone_finds_it_with_the_prompts_and_the_length_of_its_family(
    release: LoadedRelease[TextEncoder],
) -> None:
    encoder = release.manifest.encoder
    assert release.manifest.base_model == NAME
    assert release.release_id.startswith("multilingual-e5-small-")
    assert (encoder.query_prompt, encoder.passage_prompt) == ("query: ", "passage: ")
    assert (encoder.pooling, encoder.max_length, release.manifest.dimension) == (
        "mean",
        MAX_TOKENS,
        DIMENSION,
    )


def test_a_name_that_the_hub_does_not_give_is_said(cache: Path) -> None:
    with pytest.raises(UnusableModel, match=r"SIMSTREAM_MODEL__NAME='example/another'"):
        base_folder(ModelSettings(name="example/another"))


def test_chinese_english_and_both_in_one_text_are_encoded_as_sentence_transformers_does(
    release: LoadedRelease[TextEncoder], cache: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rival's, about its own older file layouts
        from sentence_transformers import SentenceTransformer

        rival = SentenceTransformer(str(base_folder(ModelSettings(name=NAME))), device="cpu")
    for query, prompt in ((False, "passage: "), (True, "query: ")):
        ours = release.encoder.encode_array(TEXTS, query=query)
        theirs = rival.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
        assert ours.shape == (len(TEXTS), DIMENSION)
        assert np.abs((ours * theirs).sum(axis=1) - 1).max() < 1e-5
    apart = release.encoder.encode_array(TEXTS[:3])
    assert np.abs(apart @ apart.T - np.eye(3)).max() < 0.999, "Chinese texts are one unknown token"


def test_the_release_reads_chinese_fields_into_text_and_grams(release: LoadedRelease[TextEncoder]) -> None:
    shoe = Product(title="越野跑鞋 男款", category=["鞋靴", "运动鞋"], attributes={"颜色": "红色"})
    assert release.recipe.content(shoe) == "越野跑鞋 男款. 鞋靴 > 运动鞋. 颜色: 红色"
    assert {"跑", "跑鞋", "颜色", "红色"} <= set(release.recipe.grams(shoe).values())
