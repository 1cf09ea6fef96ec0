"""`simstream releases`: what it lists, what it asks for, and a clear sentence for everything it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, collection_name
from adapters.redis_client import RedisSettings, connect
from adapters.redis_rollouts import RolloutBoard
from adapters.releases import ReleaseSettings, ReleaseStore, entry_of
from app.cli import command_line
from app.local import LocalRedis
from schemas.errors import Halt
from schemas.releases import EncoderConfig, Manifest
from schemas.rollouts import Rollout, RolloutState
from schemas.vectors import item_vectors

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class House:
    """A releases folder with two releases, the first one live, and the command."""

    def __init__(self, folder: Path, redis_url: str, namespace: str) -> None:
        self.env = {
            "SIMSTREAM_NAMESPACE": namespace,
            "SIMSTREAM_REDIS__URL": redis_url,
            "SIMSTREAM_QDRANT__URL": f"edge:{folder / 'index'}",
            "SIMSTREAM_RELEASES__URL": str(folder / "releases"),
            "SIMSTREAM_AUDIT__FILE": str(folder / "audit.jsonl"),
        }
        self.audit = folder / "audit.jsonl"
        store = ReleaseStore(ReleaseSettings(url=str(folder / "releases")))
        (folder / "files").mkdir()
        (folder / "files" / "config.json").write_text("{}")
        for name in ("r-1", "r-2"):
            store.publish(
                folder / "files",
                Manifest(
                    release_id=name,
                    created_at=NOW,
                    base_model="tiny",
                    dimension=4,
                    encoder=EncoderConfig(pooling="mean", max_length=16),
                    files={"config.json": entry_of(folder / "files" / "config.json")},
                ),
            )
        self.live = collection_name("r-1", namespace=namespace)
        index = EdgeIndex(folder / "index")
        index.ensure_collection(self.live, item_vectors(4))
        index.set_alias(namespace + LIVE_ALIAS, self.live)
        index.close()
        self.board = RolloutBoard(client=connect(RedisSettings(url=redis_url)), namespace=namespace)
        first = Rollout(release_id="r-1", collection=self.live, since=NOW)
        self.first = self.board.change(None, first.placed(RolloutState.LIVE, now=NOW))

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(command_line(["releases"]), ["releases", *words], env=self.env)


@pytest.fixture
def house(tmp_path: Path, redis_server: LocalRedis, namespace: str) -> House:
    return House(tmp_path, redis_server.url, namespace)


def test_releases_in_the_folder_and_collections_are_listed_together(house: House) -> None:
    done = house.run("list", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(row["release_id"], row["state"]) for row in rows] == [("r-1", "live"), ("r-2", "published")]


def test_showing_a_release_prints_its_manifest_and_its_collections(house: House) -> None:
    shown = json.loads(house.run("show", "r-1").stdout)
    assert shown["manifest"]["base_model"] == "tiny"
    assert [one["state"] for one in shown["collections"]] == ["live"]


def test_promoting_is_a_wish_that_stands_in_its_record(house: House) -> None:
    done = house.run("promote", "r-2", "--no-wait")
    assert done.exit_code == 0, done.output
    (found,) = [one for one in house.board.all() if one.release_id == "r-2"]
    assert (found.state, found.wanted) == (RolloutState.CANDIDATE, True)
    assert house.run("promote", "r-2", "--no-wait").exit_code == 0  # again is the same wish
    assert len(house.board.all()) == 2


def test_what_was_refused_is_said_to_whoever_follows(house: House) -> None:
    house.run("promote", "r-2", "--no-wait")
    (asked,) = [one for one in house.board.all() if one.release_id == "r-2"]
    house.board.change(asked, asked.model_copy(update={"wanted": False, "reason": "a weight is not finite"}))
    done = house.run("list")
    assert "a weight is not finite" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["promote", "r-9"], "release 'r-9' is not in .* \\(there: r-1, r-2\\)"),
        (["promote", "r-1"], "release 'r-1' is live already"),
        (["promote", "../r"], "is no release id"),
        (["rollback"], "no collection is retired and still written: there is nothing to go back to"),
        (["rollback", "--to", "r-2"], "no collection of release 'r-2' is retired and still written"),
        (["prune", "r-1"], "release 'r-1' is live: promote another one, or roll back"),
        (["prune", "r-2"], "release 'r-2' has no collection"),
    ],
)
def test_each_refusal_is_a_sentence(house: House, words: list[str], sentence: str) -> None:
    done = house.run(*words)
    assert done.exit_code != 0
    with pytest.raises(ValueError, match=sentence):
        raise done.exception or AssertionError(done.output)
    assert house.board.all() == [house.first]


def test_who_asked_for_what_and_what_came_of_it_stands_in_the_audit_log(house: House) -> None:
    house.run("promote", "r-2", "--no-wait")
    house.run("rollback")
    house.run("prune", "r-1")
    lines = [json.loads(line) for line in house.audit.read_text().splitlines()]
    assert [(line["action"], line["result"]) for line in lines] == [
        ("releases.promote", "begun"),
        ("releases.promote", "done"),
        ("releases.rollback", "begun"),
        ("releases.rollback", "failed"),
        ("releases.prune", "begun"),
        ("releases.prune", "failed"),
    ]
    assert lines[1]["what"]["release"] == "r-2"
    assert "items__r-2__" in lines[1]["what"]["collection"]
    assert "there is nothing to go back to" in lines[3]["reason"]
    assert all(line["by"] and line["host"] for line in lines)
    house.run("list")
    house.run("show", "r-1")
    assert len(house.audit.read_text().splitlines()) == 6, "looking is no action"


def test_a_log_that_cannot_be_written_keeps_the_release_where_it_is(house: House) -> None:
    house.audit.mkdir()
    with pytest.raises(Halt, match=r"audit log .* cannot be written"):
        house.run("promote", "r-2", "--no-wait")
    assert house.board.all() == [house.first]


def test_pruning_marks_what_is_retired_and_nothing_else(house: House) -> None:
    old = Rollout(release_id="r-2", collection="items__r-2__1", since=NOW)
    house.board.change(None, old.placed(RolloutState.RETIRED, now=NOW))
    done = house.run("prune")
    assert "items__r-2__1  is removed as soon as nobody writes it" in done.stdout
    assert {one.release_id: one.pruned for one in house.board.all()} == {"r-1": False, "r-2": True}
