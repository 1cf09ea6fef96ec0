"""model/gate.py: better passes, worse and broken do not, each with its reason."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from model.evaluation import RetrievalSet
from model.gate import judge, refuse_broken
from model.learning_settings import GateSettings
from tests.support.tiny_model import write_tiny_model

SETTINGS = GateSettings(least_queries=50, samples=300)
TEXTS = [f"text {number}" for number in range(300)]


def a_set(name: str, rows: slice) -> RetrievalSet:
    """Text n wants text n + 1, for even n."""
    queries = np.arange(0, 300, 2)[rows]
    return RetrievalSet(
        name=name,
        texts=TEXTS,
        queries=queries,
        targets=queries + 1,
        slices={"even": queries % 4 == 0, "odd": queries % 4 == 2},
    )


def model(noise: NDArray[np.float64] | float, *, seed: int = 0) -> NDArray[np.float32]:
    """A pair's texts lie at one point, less the noise of each text."""
    points = np.repeat(np.random.default_rng(5).normal(size=(150, 8)), 2, axis=0)
    points = points + np.random.default_rng(seed).normal(size=points.shape) * np.reshape(noise, (-1, 1))
    found: NDArray[np.float32] = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return found


def encode(vectors: NDArray[np.float32]) -> object:
    def texts_to_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
        return vectors[[int(text.split()[1]) for text in texts]]

    return texts_to_vectors


def verdict(live: NDArray[np.float32], candidate: NDArray[np.float32]) -> object:
    return judge(
        [a_set("new window", slice(0, 75)), a_set("old", slice(75, 150))],
        live=encode(live),  # type: ignore[arg-type]
        candidate=encode(candidate),  # type: ignore[arg-type]
        settings=SETTINGS,
        seed=1,
    )


HALVES = np.repeat([0.3, 1.0], 150)


@pytest.mark.parametrize(
    ("live", "candidate", "passes", "reason"),
    [
        (model(1.0), model(0.5), True, ""),
        (model(0.5), model(1.0), False, "no sure gain"),
        (model(1.0), model(HALVES[::-1] * 1.0), False, "no sure gain"),
        (model(np.repeat([1.0, 0.3], 150)), model(HALVES), False, "forgotten"),
    ],
    ids=["better", "worse", "better on old alone", "better on new, worse on old"],
)
def test_better_passes_and_worse_or_forgetful_does_not(
    live: NDArray[np.float32], candidate: NDArray[np.float32], passes: bool, reason: str
) -> None:
    found = verdict(live, candidate)
    assert found.passed is passes, found.reasons  # type: ignore[attr-defined]
    assert any(reason in sentence for sentence in found.reasons) or passes  # type: ignore[attr-defined]
    assert {figure.name for figure in found.figures} == {"new window", "old"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (np.full((300, 8), np.nan, dtype=np.float32), "not finite"),
        (np.full((300, 8), 0.35355339, dtype=np.float32), "all the same"),
        (model(0.1)[:, :7], "shape"),
        (np.random.default_rng(9).permutation(model(0.1)), "no sure gain"),
    ],
    ids=["nan", "collapsed", "dimension", "shuffled"],
)
def test_vectors_that_are_none_never_pass(candidate: NDArray[np.float32], reason: str) -> None:
    found = verdict(model(1.0), candidate)
    assert not found.passed  # type: ignore[attr-defined]
    assert any(reason in sentence for sentence in found.reasons)  # type: ignore[attr-defined]


def test_a_slice_that_pays_for_the_rest_is_named() -> None:
    queries = np.repeat(np.arange(150) % 2, 2)  # every other pair
    live, candidate = model(np.where(queries == 1, 0.05, 2.0)), model(np.where(queries == 1, 2.0, 0.05))
    settings = SETTINGS.model_copy(update={"least_queries": 20})
    found = judge(
        [a_set("new window", slice(0, 150))],
        live=encode(live),  # type: ignore[arg-type]
        candidate=encode(candidate),  # type: ignore[arg-type]
        settings=settings,
        seed=1,
    )
    assert any("a slice lost" in sentence and "odd" in sentence for sentence in found.reasons)


def test_too_few_queries_are_no_evidence() -> None:
    found = judge(
        [a_set("new window", slice(0, 10))],
        live=encode(model(1.0)),  # type: ignore[arg-type]
        candidate=encode(model(0.1)),  # type: ignore[arg-type]
        settings=SETTINGS,
        seed=1,
    )
    assert not found.passed
    assert "too few queries" in found.reasons[0]


@pytest.mark.parametrize("name", ["golden", "old"])
def test_some_dozens_refuse_what_is_surely_forgotten_and_nothing_else(name: str) -> None:
    few = a_set(name, slice(110, 140))
    assert SETTINGS.least_apart <= len(few) < SETTINGS.least_queries

    def judged(noise: Sequence[float]) -> object:
        return judge(
            [a_set("new window", slice(0, 75)), few],
            live=encode(model(np.repeat([0.6, 0.1], [150, 150]))),  # type: ignore[arg-type]
            candidate=encode(model(np.repeat(noise, [150, 150]))),  # type: ignore[arg-type]
            settings=SETTINGS,
            seed=1,
        )

    kept, forgotten = judged([0.1, 0.1]), judged([0.1, 9.0])
    assert kept.passed  # type: ignore[attr-defined]
    assert [reason.split(" on ")[1].split(":")[0] for reason in forgotten.reasons] == [name]  # type: ignore[attr-defined]
    assert "it has forgotten more than 0.02" in forgotten.reasons[0]  # type: ignore[attr-defined]


def test_a_period_is_reported_and_not_judged_by() -> None:
    live, candidate = model(np.repeat([1.0, 0.3], 150)), model(HALVES)
    sets = [a_set("new window", slice(0, 75)), a_set("period 2026-01-05", slice(75, 150))]
    found = judge(
        sets,
        live=encode(live),  # type: ignore[arg-type]
        candidate=encode(candidate),  # type: ignore[arg-type]
        settings=SETTINGS,
        seed=1,
    )
    assert found.passed
    (figure,) = [one for one in found.figures if one.name == "period 2026-01-05" and not one.slice]
    assert figure.after < figure.before


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "parent")


def test_files_of_the_same_shape_may_be_measured(parent: Path, tmp_path: Path) -> None:
    shutil.copytree(parent, tmp_path / "candidate")
    assert refuse_broken(tmp_path / "candidate", parent) == []


@pytest.mark.parametrize("harm", ["nan", "truncated", "flipped", "dimension", "no weights", "foreign"])
def test_broken_files_are_refused_with_what_is_wrong(parent: Path, tmp_path: Path, harm: str) -> None:
    candidate = tmp_path / "candidate"
    shutil.copytree(parent, candidate)
    weights = candidate / "model.safetensors"
    if harm == "nan":
        tensors = load_file(weights)
        next(tensor for name, tensor in tensors.items() if "weight" in name)[:] = np.nan
        save_file(tensors, weights, metadata={"format": "pt"})
        named = "not finite"
    elif harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
        named = "no complete safetensors"
    elif harm == "flipped":
        body = bytearray(weights.read_bytes())
        body[:40] = bytes(255 - byte for byte in body[:40])
        weights.write_bytes(bytes(body))
        named = "no complete safetensors"
    elif harm == "dimension":
        shutil.rmtree(candidate)
        write_tiny_model(candidate)
        config = (candidate / "config.json").read_text()
        (candidate / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 48'))
        named = "hidden_size"
    elif harm == "no weights":
        weights.unlink()
        named = "no weights"
    else:
        tensors = load_file(weights)
        tensors["somebody.elses"] = np.ones(3, dtype=np.float32)
        save_file(tensors, weights, metadata={"format": "pt"})
        named = "somebody.elses"
    reasons = refuse_broken(candidate, parent)
    assert any(named in reason for reason in reasons), reasons


def test_pairs_that_are_to_stay_apart_refuse_who_brings_them_near_and_nobody_else() -> None:
    """Text n shall not be near text n + 1. A model without noise puts the two at one point."""
    queries = np.arange(200, 240, 2)
    apart = RetrievalSet("golden, apart", TEXTS, queries, queries + 1, apart=True)
    noise = np.ones(300)
    noise[200:240] = 0.0
    kept_apart, near = model(1.0), model(noise)

    def judged(live: NDArray[np.float32], candidate: NDArray[np.float32], one: RetrievalSet) -> list[str]:
        found = judge(
            [one],
            live=encode(live),  # type: ignore[arg-type]
            candidate=encode(candidate),  # type: ignore[arg-type]
            settings=SETTINGS,
            seed=1,
        )
        (figure,) = found.figures
        assert figure.queries == len(one)
        assert (figure.after > figure.before) == (candidate is kept_apart and live is near)
        return [reason for reason in found.reasons if "not similar" in reason]

    assert judged(kept_apart, near, apart)
    assert judged(near, kept_apart, apart) == []
    assert judged(near, near, apart) == []
    few = RetrievalSet("golden, apart", TEXTS, queries[:5], queries[:5] + 1, apart=True)
    assert judged(kept_apart, near, few) == []
