"""A run's examples on disk, so that a resumed run learns from, and is judged by, the very same ones.

Reads, writes  `examples.npz` (arrays) and `examples.json` (texts, names) in the run's folder
Never          pickles
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation import RetrievalSet
from model.examples import Prepared
from model.exposure import ExposureSet, Grouping
from model.pairs import PairTable
from model.run_folders import ARRAYS, WORDS, NoExamples, has_examples


def save_prepared(prepared: Prepared, folder: Path) -> None:
    """Write them; the folder is renamed into place by the caller."""
    pairs = prepared.pairs
    arrays: dict[str, Any] = {
        "groups": pairs.groups,
        "anchors": pairs.anchors,
        "positives": pairs.positives,
        "weights": pairs.weights,
        "related": np.array(list(pairs.related), dtype=np.int64).reshape(-1, 2),
    }
    if pairs.negatives is not None:
        arrays["negatives"] = pairs.negatives
    sets = [*prepared.sets, *([prepared.validation] if prepared.validation is not None else [])]
    for number, one in enumerate(sets):
        arrays[f"{number}.queries"], arrays[f"{number}.targets"] = one.queries, one.targets
        for place, marks in enumerate(one.slices.values()):
            arrays[f"{number}.slice.{place}"] = marks
    exposure = prepared.exposure
    if exposure is not None:
        arrays["exposure.queries"], arrays["exposure.families"] = exposure.queries, exposure.families
        for place, grouping in enumerate(exposure.groups.values()):
            arrays[f"exposure.group.{place}"] = grouping.group
    np.savez_compressed(folder / ARRAYS, **arrays)
    words = {
        "texts": list(pairs.texts),
        "sources": list(pairs.sources),
        "sets": [
            {
                "name": one.name,
                "texts": list(one.texts),
                "slices": list(one.slices),
                "apart": one.apart,
            }
            for one in sets
        ],
        "exposure": None
        if exposure is None
        else {
            "texts": list(exposure.texts),
            "groups": {kind: list(grouping.names) for kind, grouping in exposure.groups.items()},
        },
        "validated": prepared.validation is not None,
        "anchors": list(prepared.anchors),
        "counts": dict(prepared.counts),
        "ranges": dict(prepared.ranges),
        "tables": {name: dict(columns) for name, columns in prepared.tables.items()},
    }
    (folder / WORDS).write_text(json.dumps(words))


def load_prepared(folder: Path) -> Prepared:
    """Read them back. Raises NoExamples where they have gone, as they do when somebody is forgotten."""
    if not has_examples(folder):
        raise NoExamples(
            f"the examples in {folder} have gone, for somebody was forgotten since they were made: give the "
            "command again, which makes new ones"
        )
    words = json.loads((folder / WORDS).read_bytes())
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        sets = [
            RetrievalSet(
                name=one["name"],
                texts=one["texts"],
                queries=arrays[f"{number}.queries"],
                targets=arrays[f"{number}.targets"],
                slices={name: arrays[f"{number}.slice.{place}"] for place, name in enumerate(one["slices"])},
                # A run that an older version began does not say.
                apart=one.get("apart", False),
            )
            for number, one in enumerate(words["sets"])
        ]
        shown = words.get("exposure")
        return Prepared(
            pairs=PairTable(
                texts=words["texts"],
                groups=arrays["groups"],
                anchors=arrays["anchors"],
                positives=arrays["positives"],
                weights=arrays["weights"],
                related=[(int(one), int(other)) for one, other in arrays["related"]],
                sources=words["sources"],
                negatives=arrays["negatives"] if "negatives" in arrays else None,
            ),
            validation=sets.pop() if words["validated"] else None,
            sets=sets,
            anchors=words["anchors"],
            counts=words["counts"],
            ranges=words["ranges"],
            tables=words["tables"],
            exposure=None
            if shown is None
            else ExposureSet(
                texts=shown["texts"],
                queries=arrays["exposure.queries"],
                groups={
                    kind: Grouping(names, arrays[f"exposure.group.{place}"])
                    for place, (kind, names) in enumerate(shown["groups"].items())
                },
                families=arrays["exposure.families"],
            ),
        )
