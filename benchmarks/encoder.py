"""The encoder against `SentenceTransformer.encode` as it comes: texts per second, and whether vectors agree.

Both get the same texts (every product of abt-buy and amazon-google, assembled by the recipe), the same model,
the same limit of tokens and the same cores. Rounds alternate, so that a slow minute hits both;
the ratio is the median of the rounds' ratios.

Reads   abt-buy and amazon-google in the data folder
Never   gives either side texts that it has already sorted, tokenised or seen padded
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figure, Report, Skipped
from model.precision import fast_half
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, base_folder
from model.text import ProductText
from schemas.events import Product

NAME = "encoder"
SETS = ("abt-buy", "amazon-google")
LEAST_COSINE = 0.999


def run(*, small: bool, data: Path | None) -> Report:
    """Five alternating rounds over all texts; in small, three over every sixteenth."""
    if data is None:
        raise Skipped("needs the data folder with abt-buy and amazon-google: --data or SIMSTREAM_DATA")
    import torch
    from sentence_transformers import SentenceTransformer

    from model.encoder import TextEncoder

    recipe = ProductText()
    products = [product for name in SETS for side in "ab" for product in read_products(data, name, side)]
    texts = [recipe.content(product) for product in products]
    if small:
        texts = texts[::16]
    rounds = 3 if small else 5

    settings = ModelSettings()
    folder = base_folder(settings)
    config = read_encoder_config(folder, settings)
    encoder = TextEncoder.load(folder, config, settings)
    rival = SentenceTransformer(str(folder))
    rival.max_seq_length = config.max_length

    def theirs() -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.asarray(rival.encode(texts, show_progress_bar=False), dtype=np.float32)

    # Not timed: both have met every shape once before the first round.
    ours, reference = encoder.encode_array(texts), theirs()
    cosines = (ours * (reference / np.linalg.norm(reference, axis=1, keepdims=True))).sum(axis=1)
    our_rates, their_rates = [], []
    for number in range(1, rounds + 1):
        our_rates.append(len(texts) / _seconds(lambda: encoder.encode_array(texts)))
        their_rates.append(len(texts) / _seconds(theirs))
        print(f"round {number}: ours {our_rates[-1]:.0f}, theirs {their_rates[-1]:.0f} texts/s", flush=True)
    queries = [product.title for product in products[:: len(products) // 40]]
    one_query = statistics.median(
        _seconds(lambda: rival.encode([query], show_progress_bar=False))  # noqa: B023  called at once
        / _seconds(lambda: encoder.encode_array([query], query=True))  # noqa: B023
        for query in queries
    )
    tokens = sum(len(text.ids) for text in encoder.tokenise(texts))
    encoder.close()

    ratio = statistics.median(a / b for a, b in zip(our_rates, their_rates, strict=True))
    device = torch.device(encoder.device)
    half = fast_half(device)
    where = "on a GPU" if device.type == "cuda" else ""
    rate = statistics.median(our_rates)
    return Report(
        benchmark=NAME,
        figures=[
            Figure(
                "texts/s over SentenceTransformer.encode", ratio, "x", target=2.0 if half else 1.3, note=where
            ),
            Figure(
                "texts whose cosine to it is >= 0.999",
                _share(cosines) * 100,
                "%",
                99.9,
                kind="quality",
                note=where,
            ),
            Figure("least cosine", float(cosines.min()), ""),
            Figure("time of one title: SentenceTransformer.encode over ours", one_query, "x"),
            Figure("our texts/s", rate, "texts/s", headline=True, kind="rate", note=where),
            Figure("our tokens/s", rate * tokens / len(texts), "tokens/s", kind="rate"),
            Figure("SentenceTransformer texts/s", statistics.median(their_rates), "texts/s", kind="rate"),
        ],
        settings={
            "texts": len(texts),
            "tokens": tokens,
            "rounds": rounds,
            "model": settings.name,
            "device": encoder.device,
            "engine": encoder.engine,
            "half precision": half,
            "batch_tokens": encoder.batch_tokens,
            "max_length": config.max_length,
        },
        data=f"{len(texts):,} product texts of {' and '.join(SETS)}",
    )


def read_products(data: Path, name: str, side: str) -> list[Product]:
    """The products of one side of a data set. Raises Skipped where the file is not there."""
    path = data / name / f"products_{side}.jsonl.gz"
    if not path.is_file():
        raise Skipped(f"{path} is missing")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [_product(json.loads(line)) for line in lines]


def _product(row: dict[str, Any]) -> Product:
    return Product(title=row["title"], brand=row.get("brand"), description=row.get("description"))


def _share(cosines: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    return float((cosines >= LEAST_COSINE).mean())


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
