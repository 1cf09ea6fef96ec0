"""Engines and precisions of the encoder side by side: quality, speed, start, memory and size in one table.

Quality is recall@10 by exact cosine of contents alone: products of one shop asked for their match in the
other. The kind of int8 was chosen on the train and valid pairs (`choose`); the table is of the test pairs.
Start, memory and recall come from a fresh process each; speeds from rounds that take turns in one.

Two variants are trained first, on the texts of the two shops without any pair between them, as a shop can
with its own catalogue (benchmarks/compress_trained.py); they are kept in var/benchmarks/compress.

    python -m benchmarks.compress      prints the variants on the train and valid pairs

Reads   abt-buy and amazon-google in the data folder
Writes  trained variants, once
Never   looks at a test pair while choosing
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, Figure, Report
from benchmarks.matching import CHOOSING_PAIRS, SETS, matches, needed, read_products
from model.settings import ModelSettings
from model.text import ProductText

if TYPE_CHECKING:
    from model.encoder import TextEncoder

NAME = "compress"
COVERED_BY = "tests/test_compress.py"
#: First the one that others are compared with: what torch makes of the model as it comes.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "torch, fp32": {"engine": "torch", "dtype": "fp32"},
    "ONNX Runtime, fp32": {"engine": "onnx", "dtype": "fp32"},
    "ONNX Runtime, int8": {"engine": "onnx", "dtype": "int8"},
    "cut to 192 numbers as it comes": {"engine": "onnx", "dtype": "fp32", "dimension": 192},
}
#: Names of what is trained first, and how it then runs.
TRAINED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "3 of 6 layers, distilled": ("student", {"engine": "onnx", "dtype": "fp32"}),
    "3 of 6 layers, distilled, int8": ("student", {"engine": "onnx", "dtype": "int8"}),
    "192 numbers (Matryoshka)": ("matryoshka", {"engine": "onnx", "dtype": "fp32", "dimension": 192}),
    "96 numbers (Matryoshka)": ("matryoshka", {"engine": "onnx", "dtype": "fp32", "dimension": 96}),
}
KEPT = ROOT / "var" / "benchmarks" / "compress"
#: Texts that each variant is timed on in each round, and titles that come one at a time.
TIMED, TITLES, ROUNDS = 512, 40, 3
K = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """What one variant does in a process of its own: its start (seconds of a core), memory and recall.

    `vector_bytes` is what one of its vectors takes, in fp32.
    """

    start_seconds: float
    resident_mb: float
    recall: dict[str, float]
    vector_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Speed:
    """Texts/s of all cores together, and milliseconds of one title, in rounds that take turns."""

    texts_per_second: float
    title_ms: float


def run(*, small: bool, data: Path | None) -> Report:
    """All variants, test pairs; in small over every fourth product."""
    folder = needed(data)
    variants = dict(VARIANTS) if small else {**VARIANTS, **trained_variants(folder)}
    measured = compare(folder, ModelSettings(), variants, every=4 if small else 1, pairs=("test",))
    speeds = in_turns(ModelSettings(), variants, timed_texts(folder))
    figures = []
    (base, reference), *others = measured.items()
    for name, values in measured.items():
        for title, recall in values.recall.items():
            figures.append(Figure(f"{title} recall@{K}", round(recall, 4), "", kind="quality", note=name))
    for name, values in others:
        int8, speed = name == "ONNX Runtime, int8", speeds[name]
        cut = reference.vector_bytes != values.vector_bytes
        lost = max(reference.recall[title] - values.recall[title] for title in values.recall)
        figures += [
            # One point: what a smaller model may lose at most.
            Figure(
                f"recall@{K} lost",
                round(100 * lost, 2),
                "points",
                1.0 if name.startswith("ONNX") else None,
                "at most",
                kind="quality",
                note=name,
                headline=int8 or name in TRAINED,
            ),
            Figure(
                "texts/s over torch's",
                speed.texts_per_second / speeds[base].texts_per_second,
                "x",
                1.5 if int8 else None,
                note=name,
                headline=not cut,
            ),
            Figure(
                "torch's time of one title over it",
                speeds[base].title_ms / speed.title_ms,
                "x",
                note=name,
                headline=True,
            ),
        ]
    for name, values in measured.items():
        figures += [
            Figure("texts/s", speeds[name].texts_per_second, "texts/s", kind="rate", note=name),
            Figure("one title", speeds[name].title_ms, "ms", kind="latency", note=name),
            Figure("start", values.start_seconds, "s of a core", kind="latency", note=name),
            Figure("resident at most", values.resident_mb, "MB", note=name),
            Figure("a vector", values.vector_bytes, "bytes", note=name),
        ]
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "texts timed": TIMED,
            "rounds": ROUNDS,
            "compared with": base,
            "model": ModelSettings().name,
        },
        data="abt-buy and amazon-google, content alone, test pairs",
    )


def trained_variants(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Those that are trained, by name, as settings; trained now unless they are kept."""
    from benchmarks.compress_trained import made

    texts = catalogue_texts(folder)
    folders = {kind: made(kind, texts, KEPT) for kind, _ in TRAINED.values()}
    return {name: {"name": str(folders[kind]), **fields} for name, (kind, fields) in TRAINED.items()}


def compare(
    folder: Path,
    settings: ModelSettings,
    variants: Mapping[str, Mapping[str, Any]],
    *,
    every: int,
    pairs: Sequence[str],
) -> dict[str, Measured]:
    """Each variant, one after the other, in a process of its own."""
    found: dict[str, Measured] = {}
    for name, fields in variants.items():
        wanted = settings.model_copy(update=dict(fields))
        for part in ("made ready", "measured"):
            # The first process translates or quantises what is not there yet; the second one is measured.
            job = {
                "settings": wanted.model_dump(mode="json"),
                "folder": str(folder),
                "every": every,
                "pairs": list(pairs),
                "only_load": part == "made ready",
            }
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.compress", json.dumps(job)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=3_000,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{name}: {done.stderr[-2_000:]}")
        found[name] = Measured(**json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: {found[name]}", flush=True)
    return found


def measure(folder: Path, settings: ModelSettings, *, every: int, pairs: Sequence[str]) -> Measured:
    """One variant, in this process, which has loaded nothing yet."""
    before = time.process_time()
    encoder = loaded(settings)
    start = time.process_time() - before
    recipe, recalls = ProductText(), {}
    for name in SETS:
        sides = []
        for side in "ab":
            products = read_products(folder, name, side)
            kept = dict(list(products.items())[::every])
            sides.append(
                (list(kept), encoder.encode_array([recipe.content(product) for product in kept.values()]))
            )
        recalls[name] = recall_at(K, sides[0], sides[1], matches(folder, name, pairs))
    encoder.close()
    return Measured(
        start_seconds=start,
        resident_mb=_peak_mb(),
        recall=recalls,
        vector_bytes=4 * encoder.dimension,
    )


def loaded(settings: ModelSettings) -> TextEncoder:
    """The encoder of these settings. What this imports is part of its start."""
    from model.encoder import TextEncoder
    from model.sentence_config import read_encoder_config
    from model.settings import base_folder

    model = base_folder(settings)
    return TextEncoder.load(model, read_encoder_config(model, settings), settings)


def _peak_mb() -> float:
    """The most memory of this process. What `getrusage` says begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def catalogue_texts(folder: Path) -> list[str]:
    """Every product's text, of both sides of both sets."""
    recipe = ProductText()
    return [
        recipe.content(product)
        for name in SETS
        for side in "ab"
        for product in read_products(folder, name, side).values()
    ]


def timed_texts(folder: Path) -> list[str]:
    """Texts that are the same for all variants."""
    texts = catalogue_texts(folder)
    return texts[:: max(1, len(texts) // TIMED)][:TIMED]


def in_turns(
    settings: ModelSettings, variants: Mapping[str, Mapping[str, Any]], texts: Sequence[str]
) -> dict[str, Speed]:
    """Every variant in this process, one round each after the other, so that all meet the same machine."""
    encoders = {}
    for name, fields in variants.items():
        encoders[name] = loaded(settings.model_copy(update=dict(fields)))
        encoders[name].encode_array(texts[:64])  # not timed: shapes that it has not met
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    titles: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(ROUNDS):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            encoder.encode_array(texts)
            rates[name].append(len(texts) / (time.perf_counter() - began))
            for text in texts[:TITLES]:
                began = time.perf_counter()
                encoder.encode_array([text[:60]], query=True)
                titles[name].append(time.perf_counter() - began)
    for encoder in encoders.values():
        encoder.close()
    return {
        name: Speed(statistics.median(rates[name]), 1000 * statistics.median(titles[name]))
        for name in encoders
    }


def recall_at(
    k: int,
    seeds: tuple[Sequence[str], NDArray[np.float32]],
    items: tuple[Sequence[str], NDArray[np.float32]],
    gold: Mapping[str, set[str]],
) -> float:
    """Mean share of a seed's matches among its k nearest items, over the seeds with a match among them."""
    place = {item_id: row for row, item_id in enumerate(items[0])}
    scores = seeds[1] @ items[1].T
    shares = []
    for row, seed in enumerate(seeds[0]):
        wanted = {place[one] for one in gold.get(seed, ()) if one in place}
        if wanted:
            nearest = np.argsort(-scores[row], kind="stable")[:k]
            shares.append(len(wanted & set(nearest.tolist())) / len(wanted))
    return float(np.mean(shares)) if shares else 0.0


def choose(data: Path | None) -> None:
    """Print recall by variant on the train and valid pairs."""
    folder = needed(data)
    variants = {**VARIANTS, **trained_variants(folder)}
    for name, values in compare(folder, ModelSettings(), variants, every=1, pairs=CHOOSING_PAIRS).items():
        print(f"{name:24s} " + "  ".join(f"{title} {recall:.4f}" for title, recall in values.recall.items()))


def _serve(job: Mapping[str, Any]) -> None:
    """The child's part: one line of JSON at the end."""
    settings = ModelSettings.model_validate(job["settings"])
    if job["only_load"]:
        loaded(settings).close()
        print("{}")
        return
    found = measure(Path(job["folder"]), settings, every=job["every"], pairs=job["pairs"])
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _serve(json.loads(sys.argv[1]))
    else:
        from benchmarks.__main__ import data_folder

        choose(data_folder(None))
