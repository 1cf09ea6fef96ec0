"""Smaller models for the benchmark `compress`: a student of three layers, and one whose vectors may be cut.

Both learn from texts alone, as a shop can from its own catalogue. The student is taught to put a text where
the whole model puts it. The other learns that a title and the whole text of one product belong together,
with vectors of 384, 192 and 96 numbers at once, while anchors stay where they were.

Reads   texts; the base model
Writes  a folder of weights for each, which the encoder loads
Never   sees a pair of products
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model.recipe import Recipe, Task

SEED = 1
#: Texts that the second one learns from: a pair costs six times what a student's text does.
PAIRS = 1_500
RECIPES: Mapping[str, Recipe] = {
    "student": Recipe(
        seed=SEED,
        tasks=(Task(data="anchors", loss="EmbedDistillLoss"),),
        layers=(0, 2, 5),
        epochs=4,
        batch_pairs=32,
        learning_rate=2e-4,
        evaluations=4,
        tracking=(),
    ),
    "matryoshka": Recipe(
        seed=SEED,
        matryoshka=(384, 192, 96),
        distil=1.0,
        batch_pairs=32,
        learning_rate=5e-5,
        evaluations=1,
        tracking=(),
    ),
}


def made(kind: str, texts: Sequence[str], kept: Path) -> Path:
    """The folder of a trained model of this kind; trained now unless it is there."""
    from model.encoder import TextEncoder
    from model.pairs import PairTable
    from model.sentence_config import read_encoder_config
    from model.settings import ModelSettings, base_folder
    from model.tasks import ANCHORS, Examples
    from model.training import train

    into = kept / kind
    if into.is_dir():
        return into
    settings = ModelSettings(dtype="fp32")
    base = base_folder(settings)
    config = read_encoder_config(base, settings)
    texts = list(dict.fromkeys(texts))
    chosen = np.random.default_rng(SEED).permutation(len(texts))[:PAIRS].tolist()
    anchors = texts if kind == "student" else [texts[row] for row in chosen[: PAIRS // 3]]
    teacher = TextEncoder.load(base, config, settings)
    try:
        vectors = teacher.encode_array(anchors)
    finally:
        teacher.close()
    both = [text for row in chosen for text in (texts[row].partition(". ")[0], texts[row])]
    rows = np.arange(0, len(both), 2, dtype=np.int64)
    pairs = PairTable(
        texts=both,
        groups=np.repeat(np.arange(len(rows), dtype=np.int64), 2),
        anchors=rows,
        positives=rows + 1,
        weights=np.ones(len(rows), dtype=np.float32),
        related=[],
    )
    run = kept / f".{kind}"
    found = train(
        folder=base,
        config=config,
        examples=Examples(pairs=pairs, tables={ANCHORS: {"text": anchors, "label": vectors.tolist()}}),
        recipe=RECIPES[kind],
        run=run,
    )
    for path in base.iterdir():
        if path.suffix in (".json", ".txt") and not (found.weights / path.name).exists():
            shutil.copyfile(path, found.weights / path.name)
        elif path.is_dir():
            shutil.copytree(path, found.weights / path.name, dirs_exist_ok=True)
    found.weights.rename(into)
    shutil.rmtree(run, ignore_errors=True)
    return into
