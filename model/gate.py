"""May this candidate go live? Compared with the live release, query by query, on sets it was not trained on.

Reads   a candidate's folder, vectors of both releases
Writes  nothing
Never   lets a candidate pass that could not be measured, or for want of queries

A candidate passes when, with the settings' confidence,
  it gains on what is new: the lower bound of the difference on the new window (or on unseen items) is above
  `least_gain`,
  it forgets little: on every other set the lower bound is not below -`most_loss`; where there are fewer than
  `least_queries`, but `least_apart`, the upper bound is not (it has surely forgotten),
  no slice pays for the rest: of a slice with enough queries the upper bound is not below -`most_slice_loss`,
  what people said is not similar stays apart: of enough pairs the upper bound is not below -`most_loss`,
  where `most_exposure_drift` is set: no brand, price band or seller surely moves further from its share.
Anything else is a refusal, and each reason stands in the manifest with its figures. Results by period are
figures alone: the old set holds the same sessions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.evaluation import Comparison, RetrievalSet, compare, hits_at, ndcg_at, ranks_of
from model.exposure import ExposureSet, parity
from model.learning_settings import GateSettings
from model.transfer import PERIOD
from schemas.releases import FigureOf, Parity, Verdict

Encode = Callable[[Sequence[str]], NDArray[np.float32]]

#: Sets that show what is new; a candidate has to gain on one of them.
NEW = ("new window", "unseen items")


def judge(
    sets: Sequence[RetrievalSet],
    *,
    live: Encode,
    candidate: Encode,
    settings: GateSettings,
    seed: int,
    dimension: int | None = None,
    exposure: ExposureSet | None = None,
) -> Verdict:
    """Rank every set with both; the verdict with all figures. Vectors that are no vectors are a refusal.

    `dimension` is how long the candidate's vectors are to be; None: as long as the live release's.
    """
    shown = exposure.texts if exposure is not None else ()
    texts = list(dict.fromkeys([*(text for one in sets for text in one.texts), *shown]))
    place = {text: row for row, text in enumerate(texts)}
    before, after = live(texts), candidate(texts)
    reasons = _unusable(before, after, len(texts), dimension)
    if reasons:
        return Verdict(passed=False, reasons=reasons)
    figures: list[FigureOf] = []
    gained = False
    for one in sets:
        rows = np.array([place[text] for text in one.texts], dtype=np.int64)
        ranks = [ranks_of(vectors[rows], one.queries, one.targets) for vectors in (before, after)]
        whole, slices = _compared(one, ranks[0], ranks[1], settings, seed)
        figures += [whole, *slices]
        # Some dozens, by hand perhaps, show a loss that is large, and never that there is none.
        surely_lost = whole.queries >= settings.least_apart and whole.high < -settings.most_loss
        if one.apart:
            if surely_lost:
                reasons.append(_sentence("it brings near what people said is not similar", whole))
            continue
        if one.name.startswith(PERIOD):
            continue
        if whole.queries < settings.least_queries:
            if surely_lost and one.name not in NEW:
                reasons.append(_sentence(f"it has forgotten more than {settings.most_loss}", whole))
            continue
        if one.name in NEW:
            gained = gained or whole.low > settings.least_gain
        elif whole.low < -settings.most_loss:
            reasons.append(_sentence(f"it may have forgotten more than {settings.most_loss}", whole))
        reasons += [
            _sentence(f"a slice lost more than {settings.most_slice_loss}", figure)
            for figure in slices
            if figure.queries >= settings.least_queries and figure.high < -settings.most_slice_loss
        ]
    new = [figure for figure in figures if figure.name in NEW and not figure.slice]
    enough = [figure for figure in new if figure.queries >= settings.least_queries]
    if not enough:
        counts = ", ".join(f"{figure.name} {figure.queries}" for figure in new) or "none"
        reasons.append(
            f"too few queries to judge what is new (there: {counts}; needed: {settings.least_queries}): wait "
            "for more events, or lower SIMSTREAM_GATE__LEAST_QUERIES"
        )
    elif not gained:
        reasons += [_sentence(f"no sure gain of {settings.least_gain}", figure) for figure in enough]
    reported: list[Parity] = []
    if exposure is not None and len(exposure.queries):
        rows = np.array([place[text] for text in exposure.texts], dtype=np.int64)
        reported, moved = parity(
            exposure, before=before[rows], after=after[rows], settings=settings, seed=seed
        )
        reasons += moved
    return Verdict(passed=not reasons, reasons=reasons, figures=figures, exposure=reported)


def refuse_broken(folder: Path, parent: Path, *, layers: int | None = None) -> list[str]:
    """What makes the files of a candidate unfit: each reason in a sentence, none if they may be measured.

    `parent` is the folder of the release that it was trained from: the same shapes under the same names.
    `layers` is how many its recipe left; None: as many as the parent has.
    """
    from safetensors import SafetensorError, safe_open

    try:
        shapes = [json.loads((one / "config.json").read_bytes()) for one in (parent, folder)]
    except (OSError, ValueError) as error:
        return [f"config.json cannot be read: {error}"]
    reasons = []
    for name in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        wanted, found = (shape.get(name) for shape in shapes)
        if name == "num_hidden_layers" and layers is not None:
            wanted = layers
        if wanted != found:
            reasons.append(f"config.json says {name} {found}, and {wanted} is expected of its parent's child")
    tensors: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():
                    tensor = weights.get_tensor(name)
                    tensors[name] = tuple(tensor.shape)
                    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                        reasons.append(f"weight {name!r} in {path.name} is not finite")
        except (SafetensorError, OSError) as error:
            reasons.append(f"{path.name} is no complete safetensors file: {error}")
    if not tensors and not reasons:
        reasons.append("there are no weights: no *.safetensors")
    if tensors and not reasons:
        reasons += _foreign(tensors, _shapes(parent))
    return reasons


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():
                found[name] = tuple(weights.get_slice(name).get_shape())
    return found


def _foreign(tensors: Mapping[str, tuple[int, ...]], parent: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Weights that the parent lacks or has in another shape. What is missing, the encoder says on loading."""
    # A base model trained for something else keeps its encoder under a prefix ("bert.").
    known = dict(parent)
    for name, shape in parent.items():
        known.setdefault(name.partition(".")[2], shape)
    reasons = []
    for name, shape in sorted(tensors.items()):
        if name not in known:
            reasons.append(f"weight {name!r} is none of its parent's")
        elif known[name] != shape:
            reasons.append(f"weight {name!r} has the shape {shape}, and its parent's {known[name]}")
    return reasons[:5]


def _unusable(
    before: NDArray[np.float32], after: NDArray[np.float32], texts: int, dimension: int | None
) -> list[str]:
    wanted = (texts, dimension or before.shape[1])
    if after.shape != wanted:
        return [f"its vectors have the shape {after.shape}, and {wanted} is expected"]
    if not np.isfinite(after).all():
        return ["its vectors are not finite"]
    if texts > 1 and float(np.abs(after - after[0]).max()) < 1e-4:
        return ["its vectors are all the same"]
    return []


def _compared(
    one: RetrievalSet, old: NDArray[np.float64], new: NDArray[np.float64], settings: GateSettings, seed: int
) -> tuple[FigureOf, list[FigureOf]]:
    clusters = one.targets if one.clusters is None else one.clusters
    if one.apart:
        # The best there is where the two are not near each other, by either measure.
        return _apart(one, old, new, clusters, settings, seed), []

    def figure(slice_name: str, rows: NDArray[np.bool_]) -> FigureOf:
        found = compare(
            hits_at(old[rows], 10),
            hits_at(new[rows], 10),
            clusters=clusters[rows],
            seed=seed,
            samples=settings.samples,
            confidence=settings.confidence,
        )
        ranked = [float(ndcg_at(ranks[rows], 10).mean()) for ranks in (old, new)]
        return _figure(one.name, slice_name, found, ranked)

    slices = [figure(name, rows) for name, rows in one.slices.items() if 1 < int(rows.sum()) < len(one)]
    return figure("", np.ones(len(one), dtype=np.bool_)), slices


def _apart(
    one: RetrievalSet,
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    clusters: NDArray[np.int64],
    settings: GateSettings,
    seed: int,
) -> FigureOf:
    """How often what is not wanted stays out of the first ten."""
    found = compare(
        1.0 - hits_at(old, 10),
        1.0 - hits_at(new, 10),
        clusters=clusters,
        seed=seed,
        samples=settings.samples,
        confidence=settings.confidence,
    )
    return _figure(one.name, "", found, [float(1.0 - ndcg_at(ranks, 10).mean()) for ranks in (old, new)])


def _figure(name: str, slice_name: str, found: Comparison, ndcg: Sequence[float]) -> FigureOf:
    return FigureOf(
        name=name,
        slice=slice_name,
        queries=found.queries,
        before=round(found.before, 5),
        after=round(found.after, 5),
        low=round(found.difference.low, 5),
        high=round(found.difference.high, 5),
        ndcg_before=round(ndcg[0], 5),
        ndcg_after=round(ndcg[1], 5),
    )


def _sentence(what: str, figure: FigureOf) -> str:
    where = f"{figure.name}, {figure.slice}" if figure.slice else figure.name
    return (
        f"{what} on {where}: hit@10 {figure.before:.4f} -> {figure.after:.4f}, difference between "
        f"{figure.low:+.4f} and {figure.high:+.4f} ({figure.queries} queries)"
    )
