"""Our training against sentence-transformers' own trainer: pairs per second, masking included in ours.

Both start from the same folder of a base model and end with a folder of weights; they get the same pairs,
the same recipe (both directions of InfoNCE, optimiser, schedule, clipping, tokens), no evaluation and one
checkpoint. Theirs is `SentenceTransformerTrainer` with `MultipleNegativesRankingLoss` as the library's guide
has it. Ours besides masks false negatives, weighs pairs and keeps the parent's weights at hand. Rounds
alternate, so that a slow minute hits both; the ratio is the median of the rounds' ratios.

Reads   nothing but the synthetic shop and the base model
Never   gives either side what the other does not get: texts, threads or warm files
"""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import Figure, Report
from model.pairs import NegativeMask, PairTable, duplicate_groups
from model.precision import chosen_device, fast_half
from model.recipe import Recipe
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, base_folder
from model.text import ProductText
from producers.shop import Shop

NAME = "training-rate"
SEED = 11
RECIPE = Recipe(seed=SEED, distil=0, replay=0, batch_pairs=32, evaluations=1, tracking=())


#: A GPU does in a second what two cores do in ten minutes, and is idle between small batches.
GPU_RECIPE = RECIPE.model_copy(update={"batch_pairs": 256})


def run(*, small: bool, data: Path | None) -> Report:
    """Five rounds of 128 pairs, of 8,192 on a GPU; in small two of 64."""
    pairs, rounds, recipe = (64, 2, RECIPE) if small else (128, 5, RECIPE)
    if not small and chosen_device("auto").type == "cuda":
        pairs, recipe = 8_192, GPU_RECIPE
    return measure(base_folder(ModelSettings()), shop_pairs(pairs), recipe, rounds, small=small)


def measure(base: Path, table: PairTable, recipe: Recipe, rounds: int, *, small: bool) -> Report:
    """Alternating rounds of both over the same pairs."""
    hidden = NegativeMask(table).of_batch(np.arange(min(len(table), recipe.batch_pairs)), columns=1)[0]
    with tempfile.TemporaryDirectory(prefix="simstream-rate-") as scratch:
        # Not timed: both have imported what they need, and the files are warm.
        first = table.chosen(np.arange(recipe.batch_pairs))
        ours(base, first, recipe, Path(scratch) / "warm-ours")
        theirs(base, first, recipe, Path(scratch) / "warm-theirs")
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        work: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(1, rounds + 1):
            # Who goes first takes turns as well.
            sides: list[tuple[str, Callable[[Path, PairTable, Recipe, Path], Path]]]
            sides = [("ours", ours), ("theirs", theirs)]
            for name, side in sides if number % 2 else sides[::-1]:
                started, worked = time.perf_counter(), time.process_time()
                side(base, table, recipe, Path(scratch) / f"{name}-{number}")
                rates[name].append(len(table) / (time.perf_counter() - started))
                work[name].append(time.process_time() - worked)
            line = ", ".join(
                f"{name} {found[-1]:.2f} pairs/s in {work[name][-1]:.1f} s of processor time"
                for name, found in rates.items()
            )
            print(f"round {number}: {line}", flush=True)
    ratios = [one / other for one, other in zip(rates["ours"], rates["theirs"], strict=True)]
    device = chosen_device("auto")
    return Report(
        benchmark=NAME,
        figures=[
            Figure(
                "training pairs/s over sentence-transformers' own trainer",
                round(statistics.median(ratios), 4),
                "x",
                target=0.95,
                # Rounds of 64 pairs differ by a quarter from one to the next: their processor time less.
                kind="rate" if small else "ratio",
                headline=True,
            ),
            Figure("least of the rounds", round(min(ratios), 4), "x"),
            Figure("largest of the rounds", round(max(ratios), 4), "x"),
            # What another process on the same cores does not spoil.
            Figure(
                "processor time of their training over ours",
                round(statistics.median(work["theirs"]) / statistics.median(work["ours"]), 4),
                "x",
                target=0.7 if small else None,
            ),
            Figure("our training", statistics.median(rates["ours"]), "pairs/s", kind="rate"),
            Figure("their training", statistics.median(rates["theirs"]), "pairs/s", kind="rate"),
            Figure("negatives masked in a batch", int(hidden.sum()), "negatives", target=1, kind="count"),
        ],
        settings={
            "pairs": len(table),
            "rounds": rounds,
            "batch": recipe.batch_pairs,
            "tokens, at most": recipe.max_tokens,
            "seed": SEED,
            "device": str(device),
            "precision": fast_half(device) or "fp32",
        },
        data=f"{len(table)} pairs of products of the synthetic shop, one pass; loading and saving included",
    )


def shop_pairs(count: int) -> PairTable:
    """Two products of one category each, with as many related categories as a shop's sessions give."""
    text = ProductText()
    products = list(Shop(SEED, products=max(600, count)).products())
    texts = [text.content(product) for product in products]
    generator = np.random.default_rng(SEED)
    by_category: dict[str, list[int]] = {}
    for row, product in enumerate(products):
        by_category.setdefault(" > ".join(product.category), []).append(row)
    shelves = [rows for rows in by_category.values() if len(rows) > 1]
    drawn = [
        generator.choice(shelves[generator.integers(len(shelves))], 2, replace=False) for _ in range(count)
    ]
    rows = np.array(drawn, dtype=np.int64)
    groups = duplicate_groups(texts)
    return PairTable(
        texts=texts,
        groups=groups,
        anchors=rows[:, 0],
        positives=rows[:, 1],
        weights=generator.uniform(0.5, 1.5, count).astype(np.float32),
        related=[
            (int(groups[one]), int(groups[other]))
            for shelf in shelves
            for one in shelf
            for other in shelf
            if one < other
        ],
    )


def ours(base: Path, table: PairTable, recipe: Recipe, out: Path) -> Path:
    """As `simstream train` does it."""
    from model.tasks import Examples
    from model.training import train

    config = read_encoder_config(base, ModelSettings())
    return train(folder=base, config=config, examples=Examples(pairs=table), recipe=recipe, run=out).weights


def theirs(base: Path, table: PairTable, recipe: Recipe, out: Path) -> Path:
    """As the library's own guide does it, with the numbers of the same recipe."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerModelCardData,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    device = chosen_device("auto")
    # Its card would encode examples.
    card = SentenceTransformerModelCardData(generate_widget_examples=False)
    model = SentenceTransformer(str(base), device=str(device), model_card_data=card)
    model.max_seq_length = recipe.max_tokens
    steps = math.ceil(len(table) / recipe.batch_pairs)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_pairs,
        optim=recipe.optimiser,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=math.ceil(recipe.warmup * steps),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        bf16=fast_half(device) == "bf16",
        use_cpu=device.type == "cpu",
        save_strategy="steps",
        save_steps=steps,
        logging_steps=max(1, min(50, steps // 20)),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
    )
    data = {
        "anchor": [table.texts[row] for row in table.anchors],
        "positive": [table.texts[row] for row in table.positives],
    }
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(data),
        loss=MultipleNegativesRankingLoss(
            model, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        ),
    )
    trainer.train()
    model.save_pretrained(str(out / "weights"), create_model_card=False)
    return out / "weights"
