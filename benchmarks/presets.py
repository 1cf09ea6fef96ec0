"""Where the numbers of service/presets.py come from: chosen on one half of the questions, shown on the other.

    python -m benchmarks.presets [DATA]

`substitutes` are what shoppers of an item also viewed, `complements` what they also bought, in amazon-
magazines: one shop, one kind of goods, few reviewers, no prices; it says nothing about price bands. Weights
are fitted as `simstream evaluate --fit-weights` does; then `same_category` is tried with them. What
`same_product` weighs is chosen by benchmarks/matching.py.

Reads   amazon-magazines in the data folder
Writes  standard output
Never   looks at the reporting half while choosing
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import CACHE, answers, mean
from benchmarks.quality_index import Asked, filled, remembering
from benchmarks.quality_sets import Question as Labelled
from benchmarks.quality_sets import magazines
from schemas.api import PresetName, QueryOptions
from service.errors import Unanswerable
from service.fitting import Question, fitted
from service.judging import interval, judged
from service.presets import PRESETS
from service.settings import ServiceSettings

DIMENSIONS = ("content", "lexical", "reviews", "behaviour")
KINDS: Mapping[str, PresetName] = {"also viewed": "substitutes", "also bought": "complements"}
CATEGORY = (-0.7, -0.3, 0.0, 0.2, 0.5)
PROPOSED = 60
LEANING = 0.001


def choose(data: Path) -> None:
    """Print what was tried."""
    whole = magazines(data)
    with remembering(CACHE) as release, filled(whole.contents, release, ServiceSettings()) as asked:
        for kind, preset in KINDS.items():
            every = whole.questions[kind]
            choosing = [one for one in every if one.half == "choose"]
            reporting = [one for one in every if one.half == "report"]
            print(
                f"\n{kind} ({preset}): {len(choosing)} questions to choose on, {len(reporting)} to report on"
            )
            print("choosing half:")
            now = {"preset": preset}
            _row("the preset as it is", _ndcg(asked, choosing, now))
            _row("the service's defaults", _ndcg(asked, choosing, {}))
            for name in DIMENSIONS:
                _row(f"{name} alone", _ndcg(asked, choosing, {"weights": {name: 1.0}}))
            questions = [one for one in (_question(asked, each) for each in choosing) if one is not None]
            present = {str(name): weight for name, weight in PRESETS[preset].weights.items()}
            weights = fitted(questions, DIMENSIONS, present, k=10, seed=5)
            print(f"fitted weights: {weights}")
            scores = {}
            for share in CATEGORY:
                options = {"weights": weights, "same_category": share}
                scores[share] = float(np.mean(_ndcg(asked, choosing, options)))
                _row(f"fitted, same_category {share}", _ndcg(asked, choosing, options))
                _row(
                    f"preset's weights, same_category {share}",
                    _ndcg(asked, choosing, {**now, "same_category": share}),
                )
            best = max(scores, key=lambda share: scores[share])
            print("reporting half:")
            before = _ndcg(asked, reporting, now)
            _row("the preset as it is", before)
            _row("the service's defaults", _ndcg(asked, reporting, {}))
            options = {"weights": weights, "same_category": best}
            after = _ndcg(asked, reporting, options)
            _row(f"fitted, same_category {best}", after)
            gain = interval([one - other for one, other in zip(after, before, strict=True)], seed=5)
            print(f"gain over the preset: {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
            found = answers(asked, reporting, options)
            print(f"recall@10 {mean(found, reporting, 'recall', 10):.4f}")


def _ndcg(asked: Asked, questions: Sequence[Labelled], options: Mapping[str, Any]) -> list[float]:
    found = answers(asked, questions, options)
    return [judged(hits, one.relevant, 10)["ndcg"] for hits, one in zip(found, questions, strict=True)]


def _row(name: str, values: Sequence[float]) -> None:
    found = interval(values, seed=5)
    print(f"  {name:44s} NDCG@10 {found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]", flush=True)


def _question(asked: Asked, one: Labelled) -> Question | None:
    """As app/asking.py makes it of the service's answers, here of the engine's."""
    union: dict[str, dict[str, float]] = {}
    evidence = dict.fromkeys(DIMENSIONS, 0.0)
    leaning = [{**dict.fromkeys(DIMENSIONS, LEANING), name: 1.0} for name in DIMENSIONS]
    for weights in [dict.fromkeys(DIMENSIONS, 1.0), *leaning]:
        try:
            options = QueryOptions.model_validate({"weights": weights, "limit": PROPOSED})
            hits = asked.similar(one.seeds, options).items
        except Unanswerable:
            continue
        for hit in hits:
            union.setdefault(hit.item_id, {name: part.score for name, part in hit.dimensions.items()})
            for name, part in hit.dimensions.items():
                evidence[name] = max(evidence[name], part.weight / weights[name])
    items = sorted(union)
    places = [place for place, item in enumerate(items) if item in one.relevant]
    if not places:
        return None
    scores = np.array([[union[item].get(name, np.nan) for name in DIMENSIONS] for item in items])
    return Question(scores, np.array([min(1.0, evidence[n]) for n in DIMENSIONS]), places, len(one.relevant))


if __name__ == "__main__":
    from benchmarks.__main__ import data_folder

    found_data = data_folder(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    if found_data is None:
        sys.exit("needs a data folder: --data or SIMSTREAM_DATA")
    choose(found_data)
