"""A model's weights, from safetensors alone, complete and finite, or not at all.

Reads   config.json and *.safetensors of a folder
Writes  nothing
Never   opens pickled weights, and never runs code that came with a model
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from model.settings import UnusableModel


def load_model(folder: Path, device: torch.device) -> torch.nn.Module:
    """The encoder in `folder`, fp32, ready to infer on `device`.

    Raises UnusableModel for weights that are missing, not finite, or no safetensors.
    """
    from transformers import AutoModel  # a second to import: only who loads a model pays for it

    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UnusableModel(f"{folder} lacks config.json or *.safetensors; pickled weights are not opened")
    with _quiet():
        try:
            model, info = AutoModel.from_pretrained(
                str(folder),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise UnusableModel(f"the model in {folder} cannot be loaded: {error}") from error
    # The pooler sits behind the hidden states that are used here; many models come without its weights.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing or info["mismatched_keys"]:
        raise UnusableModel(
            f"the weights in {folder} lack {(missing or sorted(map(str, info['mismatched_keys'])))[0]!r}, "
            "which its config.json calls for"
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    model.eval().requires_grad_(False)
    refuse_unless_finite(model, folder)
    module: torch.nn.Module = model.to(device)
    return module


def refuse_unless_finite(model: torch.nn.Module, folder: Path) -> None:
    """Raises UnusableModel naming the first weight that holds NaN or infinity."""
    for name, weight in model.named_parameters():
        # NaN and infinity both show in the extremes, and no mask as large as the weight is written.
        if weight.numel() and not all(bool(extreme.isfinite()) for extreme in torch.aminmax(weight)):
            raise UnusableModel(
                f"weight {name!r} of the model in {folder} is not finite; it would poison vectors"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no table on stderr for what `load_model` checks itself."""
    from transformers.utils import logging as library

    logging: Any = library  # its functions carry no types

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
