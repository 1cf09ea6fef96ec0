"""The library's trainer, with what a release needs of it.

Reads, writes  checkpoints of the run: the model's whole state as safetensors, beside the library's own files
Never          writes a model card, or a checkpoint that only some methods of training can be resumed from

Two options of a recipe are steps of their own here. The adversarial one goes over a batch twice, the second
time with word embeddings moved along their gradient (FGM: Miyato et al. 2017, "Adversarial training methods
for semi-supervised text classification", eq. 5, here over the whole table of words). The average is torch's
own, of the weights after each of the last steps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

_STATE = "state.safetensors"
_AVERAGE = "average.safetensors"


@contextmanager
def moved_uphill(weight: torch.Tensor, far: float) -> Iterator[None]:
    """`weight` is moved `far` along its gradient (L2) for as long as the block runs."""
    gradient = weight.grad
    norm = torch.linalg.vector_norm(gradient) if gradient is not None else torch.zeros(())
    if gradient is None or not bool(norm.isfinite()) or not bool(norm):
        yield
        return
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(gradient, alpha=far / float(norm))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


@cache
def trainer_class() -> Any:
    """A subclass of SentenceTransformerTrainer, which takes seconds to import."""
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import TrainerCallback

    class ReleaseTrainer(SentenceTransformerTrainer):
        """`pull` is how hard weights are drawn to the parent's: L2-SP (Li et al. 2018, eq. 3).

        `uphill` is how far word embeddings are moved for a second pass; `average` what has come of the
        weights after the last steps, where there is to be one and they were reached.
        """

        pull: tuple[float, Mapping[str, torch.Tensor]] = (0.0, {})
        uphill: float = 0.0
        average: torch.optim.swa_utils.AveragedModel | None = None

        def training_step(self, model: Any, inputs: Any, *arguments: Any) -> torch.Tensor:
            # The library takes the name of the table out of what it is given.
            loss: torch.Tensor = super().training_step(model, dict(inputs), *arguments)
            if self.uphill:
                words = self.model.transformers_model.get_input_embeddings().weight
                with moved_uphill(words, self.uphill):
                    super().training_step(model, dict(inputs), *arguments)
            return loss

        def average_over(self, *, first: int) -> None:
            """Average the weights after this step and all later ones."""
            trainer = self

            class Averaging(TrainerCallback):
                def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                    if state.global_step >= first:
                        backbone = trainer.model.transformers_model
                        if trainer.average is None:
                            trainer.average = torch.optim.swa_utils.AveragedModel(backbone)
                        trainer.average.update_parameters(backbone)

            self.add_callback(Averaging())

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
            if self.average is not None:
                state = {name: tensor.clone() for name, tensor in self.average.state_dict().items()}
                save_file(state, folder / _AVERAGE)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            folder = Path(resume_from_checkpoint)
            self.model.load_state_dict(load_file(folder / _STATE))
            # The best checkpoint is loaded by this too, at the end: then there is one of all steps already.
            if self.average is None and (folder / _AVERAGE).is_file():
                self.average = torch.optim.swa_utils.AveragedModel(self.model.transformers_model)
                self.average.load_state_dict(load_file(folder / _AVERAGE))

    return ReleaseTrainer
