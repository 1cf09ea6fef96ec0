"""An XLM-RoBERTa of a few thousand random weights with pieces of two languages, laid out as multilingual e5.

Its vocabulary is a Unigram one over Han and Latin pieces, its positions begin behind the padding id, and its
files name no prompts: all as the real family has it, and other than in tests/support/tiny_model.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

DIMENSION = 32
MAX_TOKENS = 62
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_PIECES = (
    "▁",
    "▁red",
    "▁shoe",
    "▁lamp",
    "▁query",
    "▁passage",
    "越野",
    "跑鞋",
    "手机",
    "红色",
    "男款",
    "台灯",
)


def write_tiny_multilingual(folder: Path) -> Path:
    """Write the model and answer its folder. It is the same at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    singles = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    singles += sorted(set("越野跑鞋手机红色男女款台灯黑白蓝壳充电"))
    pieces = [*_SPECIAL, *dict.fromkeys([*_PIECES, *singles]), "<mask>"]
    vocabulary = [(piece, -float(rank)) for rank, piece in enumerate(pieces)]
    XLMRobertaTokenizer(vocab=vocabulary, model_max_length=MAX_TOKENS).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        XLMRobertaModel(
            XLMRobertaConfig(
                vocab_size=len(pieces),
                hidden_size=DIMENSION,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=MAX_TOKENS + 2,
                pad_token_id=1,
                initializer_range=0.3,
            )
        ).save_pretrained(folder)
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        )
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": DIMENSION, "pooling_mode_mean_tokens": True})
    )
    return folder


def in_hub_cache(cache: Path, name: str) -> Path:
    """Lay the model into a cache of the hub under this name, as if it had been downloaded; its folder."""
    repository = cache / f"models--{name.replace('/', '--')}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    return write_tiny_multilingual(repository / "snapshots" / revision)
