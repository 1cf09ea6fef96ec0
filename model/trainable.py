"""A release as a model that can be trained, and a trained model as the files of the next release.

Reads   a release's folder
Writes  a folder of weights
Never   publishes: model/candidate.py does; never hands out weights that the encoder could not load

sentence-transformers builds the model from the parts that the manifest names, so that training pools as
serving does. Adapters of peft are merged into the weights: a release is a plain model, whatever trained it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model.recipe import OWN_METHODS, InvalidRecipe, Recipe
from model.settings import UnusableModel
from schemas.releases import EncoderConfig

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

#: What the library calls our poolings.
_POOLINGS = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
#: Names under which configurations of transformers keep their dropouts.
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


def open_model(
    folder: Path, config: EncoderConfig, recipe: Recipe, device: torch.device
) -> SentenceTransformer:
    """The release in `folder`, fp32, in training mode as the recipe's method wants it.

    Raises UnusableModel for an encoder that cannot be trained as it serves, InvalidRecipe for an unknown
    method.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    if (config.passage_prompt or config.query_prompt) and not config.include_prompt:
        raise UnusableModel("a model that leaves its prompts out of the mean cannot be trained here")
    transformer = Transformer(
        str(folder),
        model_kwargs={
            "dtype": torch.float32,
            "use_safetensors": True,
            "trust_remote_code": False,
            "local_files_only": True,
        },
        config_kwargs=_dropouts(folder, recipe.dropout),
        processor_kwargs={"local_files_only": True},
    )
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=_POOLINGS[config.pooling])
    model = SentenceTransformer(modules=[transformer, pooling, *_cut(config)], device=str(device))
    model.max_seq_length = min(config.max_length, recipe.max_tokens or config.max_length)
    backbone: Any = model.transformers_model
    # Behind the hidden states that are used: it would get no gradient, and several devices wait for all.
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None
    if recipe.layers:
        keep_layers(backbone, recipe.layers)
    if recipe.gradient_checkpointing:
        backbone.gradient_checkpointing_enable()
    _choose_weights(model, backbone, recipe)
    return model


def _cut(config: EncoderConfig) -> list[torch.nn.Module]:
    """What cuts vectors as serving does, where it does."""
    if config.dimension is None:
        return []
    dimension = config.dimension

    class Cut(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return features | {"sentence_embedding": features["sentence_embedding"][:, :dimension]}

        def get_embedding_dimension(self) -> int:
            return dimension

    return [Cut()]


def keep_layers(backbone: Any, layers: Sequence[int]) -> None:
    """Leave only these of the backbone's layers, in their order; its configuration counts them.

    Raises InvalidRecipe for a layer that it does not have.
    """
    standing = _layers(backbone)
    if standing is None:
        raise InvalidRecipe("layers: there is no list of layers in this model")
    if layers[-1] >= len(standing):
        raise InvalidRecipe(f"layers: there is no {layers[-1]}, the model has 0 to {len(standing) - 1}")
    chosen = [standing[layer] for layer in layers]
    del standing[len(chosen) :]
    for place, layer in enumerate(chosen):
        standing[place] = layer
    backbone.config.num_hidden_layers = len(chosen)


def _layers(backbone: Any) -> torch.nn.ModuleList | None:
    wanted = backbone.config.num_hidden_layers
    return next(
        (one for one in backbone.modules() if isinstance(one, torch.nn.ModuleList) and len(one) == wanted),
        None,
    )


def _dropouts(folder: Path, dropout: float | None) -> dict[str, float]:
    if dropout is None:
        return {}
    import json

    config = json.loads((folder / "config.json").read_bytes())
    return {name: dropout for name in _DROPOUTS if name in config}


def _choose_weights(model: SentenceTransformer, backbone: Any, recipe: Recipe) -> None:
    """Mark what is trained."""
    if recipe.method == "full":
        return
    if recipe.method == "top":
        layers = _layers(backbone)
        if layers is None:
            raise InvalidRecipe("the method 'top' found no list of layers in this model; try 'full'")
        backbone.requires_grad_(False)
        for layer in list(layers)[-recipe.top_layers :]:
            layer.requires_grad_(True)
        return
    from peft import inject_adapter_in_model

    # peft's own way in, not that of transformers, which asks for a newer peft than there is.
    inject_adapter_in_model(_adapter(recipe), backbone)


def _adapter(recipe: Recipe) -> Any:
    from peft import PeftType, TaskType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    name = recipe.method.upper()
    if name not in known:
        raise InvalidRecipe(
            f"the method {recipe.method!r} is none of {', '.join([*OWN_METHODS, *sorted(known)])}"
        )
    options = dict(recipe.peft)
    if name == PeftType.LORA.value:
        options = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"} | options
    try:
        found = known[name](task_type=TaskType.FEATURE_EXTRACTION, **options)
    except (TypeError, ValueError) as error:
        raise InvalidRecipe(f"peft does not take these options for {name}: {error}") from error
    if found.is_prompt_learning:
        raise InvalidRecipe(
            f"the method {name} keeps vectors beside the model and cannot be merged into it, so no release "
            "could be made of it; use one that changes weights, such as LORA"
        )
    return found


def save_weights(model: SentenceTransformer, folder: Path) -> Path:
    """Write the weights as safetensors, adapters merged; `folder` then holds the model's own files."""
    backbone: Any = model.transformers_model
    merge_adapters(backbone)
    folder.mkdir(parents=True, exist_ok=True)
    backbone.save_pretrained(str(folder), safe_serialization=True)
    return folder


def merge_adapters(backbone: Any) -> None:
    """Fold every adapter into the layer that it sits on, and put that layer back in its place."""
    import sys

    if "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(backbone.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent_name, _, own = name.rpartition(".")
            setattr(backbone.get_submodule(parent_name), own, module.get_base_layer())
    backbone.requires_grad_(True)


def interpolate(parent: dict[str, torch.Tensor], model: torch.nn.Module, share: float) -> None:
    """Move weights to `share` of the way from the parent's to their own (Wortsman et al. 2022, WiSE-FT)."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in parent:
                weight.copy_(torch.lerp(parent[name].to(weight), weight, share))
