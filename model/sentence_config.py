"""How a model wants its texts: pooling, length limit and prompts, from its sentence-transformers files.

Reads   modules.json, N_Pooling/config.json, sentence_bert_config.json, config_sentence_transformers.json,
        config.json and tokenizer_config.json of a model's folder
Writes  nothing
Never   guesses around a part it cannot reproduce (Dense layers, exotic pooling): that is refused by name
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from model.settings import ModelSettings, UnusableModel
from schemas.releases import EncoderConfig, Pooling

log = logging.getLogger(__name__)

_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_POOLING_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
#: Names of the prompt for items, in the order the library looks for them.
_PASSAGE_NAMES = ("document", "passage", "corpus")
#: Families whose model cards ask for prompts that their configuration files do not carry.
_CARD_PROMPTS = (
    (re.compile(r"(^|[/_-])e5-(small|base|large)(-v2)?$"), "query: ", "passage: "),
    (
        re.compile(r"(^|[/_-])bge-(small|base|large)-en(-v1\.5)?$"),
        "Represent this sentence for searching relevant passages: ",
        "",
    ),
)
#: Families whose positions are counted from behind the padding id, so that fewer are left for tokens.
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
#: Tokenisers that know no limit say so with a very large number.
_NO_LIMIT = 1_000_000


def read_encoder_config(folder: Path, settings: ModelSettings) -> EncoderConfig:
    """The encoder configuration of the model in `folder`; what `settings` names explicitly wins.

    Raises UnusableModel for a model that is built from parts this encoder does not have.
    """
    modules = _modules(folder)
    pooling, include_prompt = _pooling(folder, modules, settings.pooling)
    sentence = _object(folder / _transformer_path(modules) / "sentence_bert_config.json")
    query_prompt, passage_prompt = _prompts(folder, settings.name)
    return EncoderConfig(
        pooling=pooling,
        max_length=settings.max_length or _max_length(folder, sentence),
        query_prompt=query_prompt if settings.query_prompt is None else settings.query_prompt,
        passage_prompt=passage_prompt if settings.passage_prompt is None else settings.passage_prompt,
        include_prompt=include_prompt,
        lower_case=bool(sentence.get("do_lower_case", False)),
        dimension=settings.dimension,
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(kind, path) of each module in order; empty for a plain transformers model."""
    found = _read(folder / "modules.json") or []
    modules = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in found]
    for kind, _ in modules:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise UnusableModel(
                f"the model in {folder} has a module {kind!r}, and this encoder has only Transformer, "
                "Pooling and Normalize; set SIMSTREAM_MODEL__NAME to another model"
            )
    if any(kind == "Transformer" and path for kind, path in modules):
        raise UnusableModel(
            f"the model in {folder} keeps its weights in a folder of its own; set SIMSTREAM_MODEL__NAME to a "
            "model whose config.json lies at the top"
        )
    return modules


def _transformer_path(modules: list[tuple[str, str]]) -> str:
    return next((path for kind, path in modules if kind == "Transformer"), "")


def _pooling(folder: Path, modules: list[tuple[str, str]], wanted: Pooling | None) -> tuple[Pooling, bool]:
    paths = [path for kind, path in modules if kind == "Pooling"]
    if not paths:
        return wanted or "mean", True  # what the library does with a plain transformers model
    config = _object(folder / paths[0] / "config.json")
    given = config.get("pooling_mode") or [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    include_prompt = bool(config.get("include_prompt", True))
    if wanted is not None:
        return wanted, include_prompt
    modes = [given] if isinstance(given, str) else list(given) or ["mean"]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise UnusableModel(
            f"the model in {folder} pools by {' + '.join(modes)}, and this encoder by one of "
            f"{', '.join(_POOLINGS)}; set SIMSTREAM_MODEL__POOLING if one of them will do"
        )
    return _POOLINGS[modes[0]], include_prompt


def _prompts(folder: Path, name: str) -> tuple[str, str]:
    """(query, passage). Named prompts first, then the default one, then what the model's card asks for."""
    config = _object(folder / "config_sentence_transformers.json")
    prompts: dict[str, str] = {key: text for key, text in (config.get("prompts") or {}).items() if text}
    default = prompts.get(config.get("default_prompt_name") or "", "")
    query = prompts.get("query", default)
    passage = next((prompts[key] for key in _PASSAGE_NAMES if key in prompts), default)
    if not prompts:
        for family, query_prompt, passage_prompt in _CARD_PROMPTS:
            if family.search(name.rstrip("/")):
                log.info("prompts_from_model_card model=%s query_prompt=%r", name, query_prompt)
                return query_prompt, passage_prompt
    return query, passage


def _max_length(folder: Path, sentence: dict[str, Any]) -> int:
    if sentence.get("max_seq_length"):
        return int(sentence["max_seq_length"])
    config = _object(folder / "config.json")
    limits = []
    positions = config.get("max_position_embeddings")
    if positions:
        offset = int(config.get("pad_token_id") or 0) + 1
        limits.append(int(positions) - (offset if config.get("model_type") in _OFFSET_POSITIONS else 0))
    tokens = _object(folder / "tokenizer_config.json").get("model_max_length")
    if tokens and tokens < _NO_LIMIT:
        limits.append(int(tokens))
    if not limits:
        raise UnusableModel(
            f"the model in {folder} names no limit of its input; set SIMSTREAM_MODEL__MAX_LENGTH"
        )
    return min(limits)


def _object(path: Path) -> dict[str, Any]:
    found = _read(path)
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UnusableModel(f"{path.name} in {path.parent} is not JSON: {error}") from None
