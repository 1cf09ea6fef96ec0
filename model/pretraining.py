"""Before pairs: a model reads the catalogue's texts alone, so that it knows the domain's words.

Reads   the parent's folder, texts
Writes  `pretrained/` in the run's folder: the parent's files with other weights
Never   sees which texts belong together

mlm     words are hidden and guessed (Devlin et al. 2019), by transformers' own trainer and collator
tsdae   the whole text is told from the vector of a part of its words (Wang et al. 2021)
simcse  a text and itself under another dropout belong together, others do not (Gao et al. 2021)

The last two are losses of sentence-transformers, through the same run as any other (model/training.py).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

from model.recipe import Recipe, Task
from model.tasks import Examples
from schemas.releases import EncoderConfig

log = logging.getLogger(__name__)

TEXTS = "texts"
#: Words that are left out of what tsdae reads, and hidden from mlm: what the papers found best.
TSDAE_LEFT_OUT, MLM_HIDDEN = 0.6, 0.15
_DONE = "pretrained.json"


class Reading(NamedTuple):
    """What is read, by which release, as which recipe says, in which run's folder."""

    folder: Path
    config: EncoderConfig
    texts: Sequence[str]
    recipe: Recipe
    run: Path
    device: torch.device


def pretrained(reading: Reading) -> Path:
    """A folder like the parent's whose weights have read the texts; a run that was cut off finds it done."""
    folder, run, recipe = reading.folder, reading.run, reading.recipe
    into = run / "pretrained"
    if (into / _DONE).is_file():
        return into
    shutil.rmtree(into, ignore_errors=True)
    if recipe.pretrain == "mlm":
        weights = _by_guessing(reading)
    else:
        weights = _by_loss(reading)
    aside = run / "pretrained.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("*.safetensors*", "manifest.json"))
    for path in weights.glob("*.safetensors*"):
        shutil.copyfile(path, aside / path.name)
    (aside / _DONE).write_text("{}")
    aside.rename(into)
    shutil.rmtree(weights, ignore_errors=True)
    log.info("pretraining_ended objective=%s texts=%d", recipe.pretrain, len(reading.texts))
    return into


def _by_loss(reading: Reading) -> Path:
    from model.training import train

    recipe, texts = reading.recipe, reading.texts
    if recipe.pretrain == "tsdae":
        random = Random(recipe.seed)
        tables = {TEXTS: {"damaged": [_damaged(text, random) for text in texts], "text": list(texts)}}
        task = Task(data=TEXTS, loss="DenoisingAutoEncoderLoss")
    else:
        tables = {TEXTS: {"text": list(texts), "again": list(texts)}}
        task = Task(data=TEXTS, loss="MultipleNegativesRankingLoss")
    plain = Recipe(
        seed=recipe.seed,
        tasks=(task,),
        distil=0,
        epochs=recipe.pretrain_epochs,
        batch_pairs=recipe.batch_pairs,
        learning_rate=recipe.learning_rate,
        precision=recipe.precision,
        max_tokens=recipe.max_tokens,
        evaluations=recipe.evaluations,
        tracking=(),
    )
    found = train(
        folder=reading.folder,
        config=reading.config,
        examples=Examples(pairs=None, tables=tables),
        recipe=plain,
        run=reading.run / "pretraining",
        device=str(reading.device),
    )
    return found.weights


def _damaged(text: str, random: Random) -> str:
    words = text.split()
    left = [word for word in words if random.random() >= TSDAE_LEFT_OUT]
    return " ".join(left or words[:1]) or text


def _by_guessing(reading: Reading) -> Path:
    from transformers import (
        AutoModelForMaskedLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    recipe, folder = reading.recipe, str(reading.folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # The encoder comes without a head for guessing: a new one is tied to its own table of words.
    model: Any = AutoModelForMaskedLM.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    longest = reading.config.max_length
    length = min(longest, recipe.max_tokens or longest)
    encoded = [tokenizer(text, truncation=True, max_length=length) for text in reading.texts]
    out = reading.run / "pretraining"
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out / "checkpoints"),
            num_train_epochs=recipe.pretrain_epochs,
            per_device_train_batch_size=recipe.batch_pairs,
            learning_rate=recipe.learning_rate,
            max_grad_norm=recipe.max_grad_norm,
            seed=recipe.seed,
            use_cpu=reading.device.type == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=reading.device.type == "cuda",
        ),
        train_dataset=encoded,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=MLM_HIDDEN),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    weights = out / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    model.base_model.save_pretrained(str(weights), safe_serialization=True)
    return weights
