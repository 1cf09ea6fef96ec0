"""The library's trainer, with what a release needs of it.

Reads, writes  checkpoints of the run: the model's whole state as safetensors, beside the library's own files
Never          writes a model card, or a checkpoint that only some methods of training can be resumed from
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

_STATE = "state.safetensors"


@cache
def trainer_class() -> Any:
    """A subclass of SentenceTransformerTrainer, which takes seconds to import."""
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformerTrainer

    class ReleaseTrainer(SentenceTransformerTrainer):
        """`pull` is how hard weights are drawn to the parent's: L2-SP (Li et al. 2018, eq. 3)."""

        pull: tuple[float, Mapping[str, torch.Tensor]] = (0.0, {})

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            loss: Any = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            strength, parent = self.pull
            if strength and self.model.training:
                loss = loss + strength * sum(
                    ((weight - parent[name]) ** 2).sum()
                    for name, weight in self.model.named_parameters()
                    if name in parent
                )
            return (loss, {}) if return_outputs else loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs, start_time)
            log.info(
                "training_step step=%d figures=%s",
                self.state.global_step,
                " ".join(f"{k}={v}" for k, v in logs.items()),
            )

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """A release has a manifest; a card would cost an encode of examples."""

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            """The library would save a model to load; adapters that are not merged yet have no such form."""
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            whole = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            save_file({name: tensor.contiguous() for name, tensor in whole.items()}, folder / _STATE)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / _STATE))

    return ReleaseTrainer
