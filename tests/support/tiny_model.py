"""A BERT of a few thousand random weights, written as sentence-transformers lays it out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

from schemas.releases import Pooling

DIMENSION = 32
#: Where the graph of this architecture is kept from test to test: a process that finds it starts in a second.
GRAPHS = str(Path(__file__).resolve().parents[2] / "var" / "cache" / "graphs")
_WORDS = ("query", "passage", "red", "blue", "lamp", "shoe", "the", "running", "steel", "drill", "battery")
_FLAGS: Mapping[Pooling, str] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}


def write_tiny_model(
    folder: Path,
    *,
    pooling: Pooling = "mean",
    max_length: int = 24,
    prompts: Mapping[str, str] | None = None,
    include_prompt: bool = True,
    seed: int = 0,
) -> Path:
    """Write the model and answer its folder. The same arguments write the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *characters]
    vocabulary += [f"##{character}" for character in characters if character.isalnum()]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(
            BertConfig(
                vocab_size=len(vocabulary),
                hidden_size=DIMENSION,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
                # Wide enough that texts differ clearly; the default leaves all vectors alike.
                initializer_range=0.3,
            )
        ).save_pretrained(folder)
    _write(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
    )
    _write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": DIMENSION,
            "include_prompt": include_prompt,
            **{flag: mode == pooling for mode, flag in _FLAGS.items()},
        },
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": dict(prompts or {})})
    return folder


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
