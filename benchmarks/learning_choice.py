"""What the benchmark `learning` trains with, and how that was chosen: on validation items alone.

Reads   sets (benchmarks/learning_sets.py) and vectors (benchmarks/learning_vectors.py)
Writes  runs and weights in the folder it is given
Never   sees a cold item, nor a test pair of the two shops
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.learning_sets import CHOOSING, SEED, Beauty, Matches, Split, compared, pair_table
from benchmarks.learning_vectors import Vectors
from model.pairs import PairTable
from model.recipe import Augment, Recipe
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings
from model.text import ProductText
from producers.shop import Shop
from schemas.items import digest

#: Found on validation items (docs/decisions.md).
RECIPE = Recipe(
    seed=SEED,
    epochs=3,
    batch_pairs=256,
    learning_rate=2e-4,
    scale=28.0,
    augment=Augment(token_dropout=0.1),
    soup=3,
    distil=1.0,
    replay=0,
    evaluations=1,
    max_tokens=48,
    tracking=(),
)
PAIRING: Mapping[str, float] = {"distance": 3, "decay": 0.7, "popularity": 0.5}
#: One change at a time, kept where the validation items gain by it.
STEPS: Sequence[Mapping[str, Any]] = (
    {"popularity_of_pairs": 0.25},
    {"learning_rate": 2e-4},
    {"distance": 1},
    {"popularity": 0.5},
    {"epochs": 6},
    {"scale": 30.0},
    {"interpolate": 0.7},
    {"batch_pairs": 512},
    {"scale": 12.0},
    {"dropout": 0.0},
    {"learning_rate": 5e-5},
    {"distance": 5},
    {"weight_decay": 0.1},
)
#: By how much recall@10 may fall elsewhere.
MOST_LOSS = 0.01
#: What a base model's folder has besides its weights that the encoder reads.
_BESIDE = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


class Trained(NamedTuple):
    """What a training run left, how long it took, and on what it ran."""

    folder: Path
    seconds: float
    device: str
    precision: str


def anchor_table(encode: Vectors, products: int) -> dict[str, list[Any]]:
    """Products of many departments, none of them of a set here, and where the base model has them."""
    text = ProductText()
    texts = [text.content(event) for event in Shop(seed=SEED, products=products).products()]
    return {"text": texts, "label": encode.of(encode.base, texts).tolist()}


def run_name(recipe: Recipe, pairing: Mapping[str, float], pairs: int, anchors: int) -> str:
    """Names the folder of a run: weights of another recipe or of other pairs are never taken for its own."""
    return f"run-{digest(recipe.model_dump(mode='json'), dict(pairing), pairs, anchors)}"


def trained_weights(
    base: Path, table: PairTable, recipe: Recipe, run_folder: Path, *, anchors: Mapping[str, Any] | None
) -> Trained:
    """Train, unless this folder holds the weights of a run that ended; a folder that the encoder loads."""
    import torch

    from model.tasks import Examples
    from model.training import train

    told = run_folder / "trained.json"
    if told.is_file():
        seconds, device, precision = json.loads(told.read_bytes())
        return Trained(run_folder / "weights", seconds, device, precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = train(
        folder=base,
        config=read_encoder_config(base, ModelSettings()),
        examples=Examples(pairs=table, tables={"anchors": anchors} if anchors else {}),
        recipe=recipe,
        run=run_folder,
        device=device,
    )
    for name in _BESIDE:
        if (base / name).is_file():
            shutil.copyfile(base / name, found.weights / name)
    told.write_text(json.dumps([found.seconds, device, found.precision]))
    return Trained(found.weights, found.seconds, device, found.precision)


def chosen_share(
    split: Split,
    shops: Mapping[str, Matches],
    encode: Vectors,
    trained: Path,
    out: Path,
    *,
    shares: Sequence[float],
) -> tuple[float, Path]:
    """How far to go from the base model's weights: best on validation items, of what costs little."""
    before = encode(encode.base)
    was = {name: float(shop.recalls(before[name], CHOOSING).mean()) for name, shop in shops.items()}
    best: tuple[tuple[bool, float], float, Path] | None = None
    for share in shares:
        folder = trained if share == 1 else blended(encode.base, trained, share, out / f"share-{share}")
        after = encode(folder)
        found = compared(split.validation_queries, before["beauty"], after["beauty"])
        lost = [was[name] - float(shop.recalls(after[name], CHOOSING).mean()) for name, shop in shops.items()]
        print(
            f"share {share}: validation {found.before:.4f} -> {found.after:.4f} "
            f"({100 * found.gain.value:+.1f} %), elsewhere {[round(-100 * loss, 2) for loss in lost]} points",
            flush=True,
        )
        most = max(lost, default=0.0)
        # Where all cost too much, the one that costs least.
        rated = (most <= MOST_LOSS, found.after if most <= MOST_LOSS else -most)
        if best is None or rated > best[0]:
            best = (rated, share, folder)
    if best is None:
        raise ValueError("there are no shares to choose from")
    return best[1], best[2]


def blended(base: Path, trained: Path, share: float, folder: Path) -> Path:
    """Weights on the way from one model to the other (Wortsman et al. 2022, WiSE-FT)."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(trained, folder, dirs_exist_ok=True)
    old, new = load_file(base / "model.safetensors"), load_file(trained / "model.safetensors")
    save_file(
        {name: torch.lerp(old[name].float(), weight.float(), share) for name, weight in new.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def tuned(
    beauty: Beauty,
    split: Split,
    encode: Vectors,
    out: Path,
    recipe: Recipe,
    *,
    pairs: int,
    anchors: int,
    seconds: float,
) -> tuple[Recipe, dict[str, float]]:
    """Greedy: one change after the other, kept where hit@10 of the validation queries rises."""
    ends = time.monotonic() + seconds
    before = encode.of(encode.base, beauty.texts)
    held = anchor_table(encode, anchors)
    pairing = dict(PAIRING)
    best = 0.0
    for number, change in enumerate(({}, *STEPS)):
        if time.monotonic() > ends:
            print(f"time for choosing is over after {number} tries", flush=True)
            break
        ways = dict(change)
        trial_pairing = dict(pairing)
        if "distance" in ways:
            trial_pairing["distance"] = ways.pop("distance")
        if "popularity_of_pairs" in ways:
            trial_pairing["popularity"] = ways.pop("popularity_of_pairs")
        trial = recipe.model_copy(update=ways)
        table = pair_table(beauty, split, pairs, trial_pairing)
        run = out / run_name(trial, trial_pairing, pairs, anchors)
        weights = trained_weights(encode.base, table, trial, run, anchors=held)
        found = compared(split.validation_queries, before, encode.of(weights.folder, beauty.texts))
        better = found.after > best
        print(
            f"try {number} {json.dumps(change)}: {found.before:.4f} -> {found.after:.4f} "
            f"({100 * found.gain.value:+.1f} %) in {weights.seconds:.1f} s{', kept' if better else ''}",
            flush=True,
        )
        if better:
            best, recipe, pairing = found.after, trial, trial_pairing
    return recipe, pairing
