"""`simstream pairs suggest` and `simstream tune`: from catalogue and archive to a file that `train` reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from adapters.archive import Archive
from adapters.redis_client import connect
from adapters.releases import ReleaseSettings, ReleaseStore
from app import tuning
from app.cli import command_line
from app.learning import the_only_trainer
from app.learning_inputs import labelled_pairs
from app.settings import Settings, load_settings
from app.wiring import open_store
from consumers.archive import Followed
from model.recipe import Recipe, read_recipe
from model.release import first_release
from model.sessions import share_of
from model.settings import ModelSettings
from schemas.errors import Halt
from tests.consumers.state import State
from tests.support.learning import COLOURS, NOW, QUICK, THINGS
from tests.support.servers import Redis
from tests.support.tiny_model import write_tiny_model

ITEMS = [f"{colour}-{thing}-{number}" for colour in COLOURS for thing in THINGS for number in range(4)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing by a second one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def parent(redis_server: Redis, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shop of 64 products and the release of a tiny model, as the environment names them."""
    for name, value in {
        "NAMESPACE": namespace,
        "REDIS__URL": redis_server.url,
        "MODEL__NAME": str(write_tiny_model(tmp_path / "tiny")),
        "MODEL__DEVICE": "cpu",
        "MODEL__DTYPE": "fp32",
        "RELEASES__URL": str(tmp_path / "releases"),
        "ARCHIVE__FOLDER": str(tmp_path / "archive"),
        "TRAINING__FOLDER": str(tmp_path / "training"),
        "PAIRS__MAX_PAIRS": "60",
    }.items():
        monkeypatch.setenv(f"SIMSTREAM_{name}", value)
    settings = load_settings()
    state = State(connect(settings.redis), open_store(settings))
    for item in ITEMS:
        state.put(item, title=item.replace("-", " "), category=[item.split("-")[1]])
    store = ReleaseStore(ReleaseSettings(url=str(tmp_path / "releases")))
    model = ModelSettings(name=str(tmp_path / "tiny"), device="cpu", dtype="fp32")
    return first_release(model, store, created_at=NOW).release_id


def shoppers_come(folder: Path, sessions: int) -> None:
    """Sessions of three items of one colour, an hour apart."""
    generator = np.random.default_rng(1)
    rows: list[dict[str, object]] = []
    for session in range(sessions):
        colour = generator.integers(len(COLOURS))
        for step, place in enumerate(generator.choice(16, 3, replace=False)):
            rows.append(
                {
                    "shopper": f"s{session % 7}",
                    "session": f"n{session}",
                    "product": ITEMS[colour * 16 + place],
                    "category": "",
                    "type": "click",
                    "at_ms": 1_700_000_000_000 + session * 3_600_000 + step * 1000,
                    "offset": len(rows),
                }
            )
    Archive(folder).write(rows, part=("t", 0, 0, len(rows)))


def told(*words: str) -> str:
    done = CliRunner().invoke(command_line(words), list(words))
    assert done.exception is None, done.output
    return done.output


def refused(*words: str) -> str:
    done = CliRunner().invoke(command_line(words), list(words))
    assert isinstance(done.exception, ValueError), done.output
    return str(done.exception)


# --- pairs -------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_are_proposed_filled_in_and_learned_from(parent: str, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.jsonl" for name in ("first", "second", "third"))
    where = ("--parent", parent, "--data-dir", str(tmp_path))
    suggest = ("pairs", "suggest", *where, "--count", "10", "--per-item", "2")
    assert "nothing is known of pairs yet" in told(*suggest, "--out", str(first))
    rows = rows_of(first)
    assert len(rows) == 10
    assert all(row["label"] is None and row["probability"] is None for row in rows)
    assert all(row["title_a"] == row["a"].replace("-", " ") for row in rows)
    unseen = {item for item in ITEMS if share_of("item " + item) < load_settings().pairs.unseen_share}
    assert unseen
    assert not unseen & {row[side] for row in rows for side in "ab"}

    filled = [
        {**row, "label": int(row["a"].split("-")[0] == row["b"].split("-")[0])} for row in rows[:8]
    ] + rows[8:]
    first.write_text("".join(json.dumps(row) + "\n" for row in filled))
    assert len(labelled_pairs(first)) == 8
    assert {label for _, _, label in labelled_pairs(first)} == {0.0, 1.0}
    # Not over what somebody has filled in.
    assert "is there already" in refused(*suggest, "--out", str(first))

    said = told(*suggest, "--labelled", str(first), "--out", str(second))
    assert "by a classifier of the labelled pairs" in said
    asked = {frozenset((row["a"], row["b"])) for row in filled[:8]}
    again = rows_of(second)
    assert not asked & {frozenset((row["a"], row["b"])) for row in again}
    assert all(0 < row["probability"] < 1 for row in again)

    shoppers_come(tmp_path / "archive", 40)
    golden = str(second)
    assert "what shoppers had together" in told(*suggest, "--golden", golden, "--out", str(third))


def test_a_pair_that_nobody_has_labelled_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "x", "b": "y", "label": 1}\n' + 2 * '{"a": "x", "b": "z", "label": null}\n')
    assert [pair.b for pair in labelled_pairs(path)] == ["y"]
    (record,) = [one for one in caplog.records if one.message.startswith("pairs_without_a_label")]
    assert "pairs=2 first_line=2" in record.message
    assert "write 1 (together), 0 (not), or remove the line" in record.message


# --- tune --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_a_search_ends_as_a_recipe_that_train_reads_and_goes_on(
    parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoppers_come(tmp_path / "archive", 150)
    followed: list[int] = []

    def follow(settings: Settings) -> Followed:
        followed.append(1)
        return Followed(0, 0, 0, 0, 0)

    monkeypatch.setattr(tuning, "follow", follow)
    base, space, out = (tmp_path / name for name in ("base.json", "space.toml", "found.toml"))
    base.write_text(QUICK.model_copy(update={"epochs": 1.0, "evaluations": 1}).model_dump_json())
    space.write_text("batch_pairs = 16\nepochs = 1.0\nreplay = 0.3\npopularity = 0.0\ndropout = 0.0\n")
    search = (
        "tune",
        "--data-dir",
        str(tmp_path),
        "--parent",
        parent,
        "--recipe",
        str(base),
        "--space",
        str(space),
        "--out",
        str(out),
    )
    said = told(*search, "--trials", "1")
    assert "trial 0, as it is" in said
    assert read_recipe(out) == read_recipe(base)
    said = told(*search, "--trials", "2")
    assert len(followed) == 1
    rows = list(csv.DictReader(out.with_suffix(".trials.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["as it is", "complete"]
    assert (rows[1]["batch_pairs"], rows[1]["replay"]) == ("16", "0.3")
    assert all(0 <= float(row["ndcg_at_10"]) <= 1 for row in rows)
    best = max(rows, key=lambda row: float(row["ndcg_at_10"]))
    changed = read_recipe(out).learning_rate != read_recipe(base).learning_rate
    assert changed == (best["state"] == "complete")
    with the_only_trainer(load_settings()), pytest.raises(Halt, match="another trainer is at work"):
        told(*search, "--trials", "9")


def test_a_file_that_cannot_be_written_is_refused_before_the_search(tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    base.write_text(Recipe(max_tokens=None).model_dump_json())
    nowhere = ("--data-dir", str(tmp_path))
    assert "max_tokens is null" in refused("tune", *nowhere, "--recipe", str(base), "--out", "x.toml")
    assert "no folder" in refused("tune", *nowhere, "--out", str(tmp_path / "absent" / "x.toml"))
