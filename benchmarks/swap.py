"""A release is filled, swapped in and rolled back under queries and live events, and nobody notices.

The candidate's vectors are the live ones under a fixed rotation (tests/support/rotated_model.py), so each
release's neighbours are known, and a query of one release against vectors of the other has a wrong score.
After the run every hit of every answer is scored again, offline, with the release that the answer names.

Queries are neighbours by content, one in ten a search by text. They ask for a lot of items whose texts stand
still, so that their scores are known; prices change everywhere, texts in another lot, and new items come.

The control searches through the alias at every call of the index, while the alias moves in each request.

Reads   the synthetic shop
Writes  an embedded stack in a folder that goes away
Never   judges an answer by another release than the one it names
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from adapters.index_edge import EdgeIndex
from adapters.kafka import Publisher
from adapters.releases import ReleaseSettings, ReleaseStore
from benchmarks.harness import ROOT, Figure, Report, percentile
from benchmarks.stack import RunningStack, Updates, embedded_stack, import_catalogue, stop
from benchmarks.swap_judging import Judge, through_the_alias
from benchmarks.swap_traffic import (
    MOVING,
    NEW_ITEMS_PER_SECOND,
    PRICES_PER_SECOND,
    QUERIES_PER_SECOND,
    SEED,
    STILL,
    TEXTS_PER_SECOND,
    Asked,
    Events,
    Load,
)
from model.release import LoadedRelease, first_release, load_release
from model.settings import ModelSettings, base_folder
from producers.shop import Shop
from schemas.events import ProductUpserted
from tests.support.rotated_model import write_rotated_model

NAME = "swap"
#: fp32, so that a text encoded again, among others, has the same vector.
MODEL = ModelSettings(dtype="fp32")
ENVIRONMENT = {"SIMSTREAM_MODEL__DTYPE": "fp32", "SIMSTREAM_ROLLOUT__POLL_SECONDS": "0.5"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of it: items, seconds of each quiet stretch."""

    items: int
    seconds: float


def run(*, small: bool, data: Path | None) -> Report:
    """5,000 items and a minute before, between and after; in small 300 and eight seconds."""
    sizes = Sizes(300, 8.0) if small else Sizes(5_000, 60.0)
    products = _products(sizes.items)
    with embedded_stack(environment=ENVIRONMENT) as stack:
        publisher, updates = Publisher(stack.settings), Updates(stack)
        import_catalogue(stack, publisher, updates, products)
        updates.close()
        candidate = _publish_rotated(stack)
        load, events = Load(stack, products), Events(publisher, products)
        with load.running(), events.running():
            load.phase = "quiet"
            time.sleep(sizes.seconds)
            load.phase = "backfill and swap"
            started = time.monotonic()
            _command(stack, "promote", candidate)
            filled_seconds = time.monotonic() - started
            load.phase = "after the swap"
            time.sleep(sizes.seconds)
            load.phase = "rollback"
            started = time.monotonic()
            _command(stack, "rollback")
            back_seconds = time.monotonic() - started
            time.sleep(sizes.seconds)
        events.settle(stack)
        publisher.close()
        stop(stack.process)
        releases = _releases(stack, candidate)
        judge = Judge(products, releases)
        judged = judge.judge(load.asked)
        index = EdgeIndex(stack.folder / "index")
        try:
            collections = len(index.collections())
            missing = events.missing(index)
            control = judge.judge(through_the_alias(index, products, releases))
        finally:
            index.close()
    quiet = _p99(load.asked, "quiet")
    swapping = _p99(load.asked, "backfill and swap")
    failed = sum(one.status != HTTPStatus.OK for one in load.asked)
    for phase in dict.fromkeys(one.phase for one in load.asked):
        print(f"{phase}: p99 {_p99(load.asked, phase):.1f} ms")
    print(f"{events.sent} events, {judged}", flush=True)
    return Report(
        benchmark=NAME,
        figures=[
            Figure("failed queries", failed, "queries", 0, "at most", kind="count", headline=True),
            Figure(
                "hits off by more than 0.001", judged.off, "hits", 0, "at most", kind="count", headline=True
            ),
            Figure("events missing", missing, "events", 0, "at most", kind="count", headline=True),
            Figure("query p99", round(quiet, 1), "ms", kind="latency", note="quiet"),
            Figure(
                "query p99",
                round(swapping, 1),
                "ms",
                # Two encoders and the load on two cores without bf16 are a queue: in small printed only.
                None if small else max(2 * quiet, 100.0),
                "at most",
                kind="latency",
                note="during backfill and swap",
                headline=True,
            ),
            Figure("hits scored again", judged.hits, "hits", 1_000, kind="count"),
            Figure(
                "answers of the live release", judged.by_release.get("first", 0), "answers", 1, kind="count"
            ),
            Figure(
                "answers of the candidate", judged.by_release.get("candidate", 0), "answers", 1, kind="count"
            ),
            Figure("events", events.sent, "events", 1, kind="count"),
            Figure("collections that show every event", collections, "collections", 2, kind="count"),
            Figure("hits off when the alias is read twice", control.off, "hits", 1, kind="count"),
            Figure("hits of the control", control.hits, "hits", 1, kind="count"),
            Figure("from promote to live", round(filled_seconds, 1), "s"),
            Figure("from rollback to live", round(back_seconds, 1), "s"),
        ],
        settings={
            "items": sizes.items,
            "queries per second": QUERIES_PER_SECOND,
            "prices per second": PRICES_PER_SECOND,
            "texts per second": TEXTS_PER_SECOND,
            "new items per second": NEW_ITEMS_PER_SECOND,
            "seconds quiet": sizes.seconds,
            "seed": SEED,
            "broker": "Tansu",
            "index": "edge",
            "backfill": "nice 19",
        },
        data="synthetic shop; stack, backfill, load and events on the same cores",
    )


def _p99(asked: Sequence[Asked], phase: str) -> float:
    return percentile([one.latency_ms for one in asked if one.phase == phase], 99)


def _products(count: int) -> list[ProductUpserted]:
    """The shop's products with short texts, every fifth in the lot whose texts move."""
    found = []
    for number, product in enumerate(Shop(SEED, products=count).products()):
        if number >= count:
            break
        update = {
            "attributes": {"lot": MOVING if number % 5 == 0 else STILL},
            "description": None,
            "group_id": None,
            "occurred_at": datetime.now(UTC),
            "revision": 1,
        }
        found.append(product.model_copy(update=update))
    return found


def _publish_rotated(stack: RunningStack) -> str:
    """The live model's rotated twin as a release of the stack; its id."""
    folder = write_rotated_model(base_folder(MODEL), stack.folder / "rotated")
    store = ReleaseStore(ReleaseSettings(url=str(stack.folder / "releases")))
    settings = MODEL.model_copy(update={"name": str(folder)})
    return first_release(settings, store, created_at=datetime.now(UTC)).release_id


def _command(stack: RunningStack, *words: str) -> None:
    """`simstream releases ...` as a person would, out of the way of what is measured."""
    command = ["nice", "-n", "19", sys.executable, "-m", "app.cli", "releases", *words]
    command += ["--data-dir", str(stack.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_800, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        raise RuntimeError(f"simstream releases {' '.join(words)}: {done.stderr}")


def _releases(stack: RunningStack, candidate: str) -> dict[str, LoadedRelease[Any]]:
    """Both releases by id, the first one first."""
    store = ReleaseStore(ReleaseSettings(url=str(stack.folder / "releases")))
    names = sorted(store.list(), key=lambda name: name == candidate)
    return {name: load_release(store, name, MODEL) for name in names}
