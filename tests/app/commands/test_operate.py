"""app/commands/operate.py: `simstream reconcile` as a process of its own, and what it does without."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.index_edge import EdgeIndex
from adapters.index_port import LIVE_ALIAS, collection_name
from adapters.kafka_admin import ensure_topics, open_admin
from adapters.kafka_log import read_to_end
from adapters.redis_client import RedisSettings, connect
from adapters.redis_items import ItemStore
from adapters.releases import ReleaseSettings, ReleaseStore
from app.local import LocalRedis, TansuBroker
from model.release import first_release
from model.settings import ModelSettings
from schemas.events import ItemChanged
from schemas.topics import Topics
from schemas.vectors import item_vectors
from tests.consumers.state import State
from tests.support.draining import quick_settings
from tests.support.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[3]
#: Says of itself which processes it starts and whether it imports torch, whoever asks for that.
WATCHED = """
import sys
def watch(event, arguments):
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"):
        print("STARTED", arguments[0])
    if event == "import" and arguments[0] == "torch":
        print("IMPORTED torch")
sys.addaudithook(watch)
sys.argv = ["simstream", *sys.argv[1:]]
from app.cli import main
main()
"""


@pytest.fixture
def environment(
    tansu: TansuBroker, redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> dict[str, str]:
    """Settings of a house with a live collection of a first release, and nothing in it."""
    model = write_tiny_model(tmp_path / "tiny")
    store = ReleaseStore(ReleaseSettings(url=str(tmp_path / "releases")))
    manifest = first_release(
        ModelSettings(name=str(model)), store, created_at=datetime(2026, 11, 25, tzinfo=UTC)
    )
    index = EdgeIndex(tmp_path / "index")
    collection = collection_name(manifest.release_id, namespace=namespace)
    index.ensure_collection(collection, item_vectors(manifest.dimension))
    index.set_alias(namespace + LIVE_ALIAS, collection)
    index.close()
    ensure_topics(
        open_admin(quick_settings(tansu)),
        Topics.named(namespace=namespace).declared(),
        partitions=1,
        replication_factor=1,
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "SIMSTREAM_NAMESPACE": namespace,
        "SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS": tansu.bootstrap_servers,
        "SIMSTREAM_KAFKA__MEMBER_PER_TOPIC": "false",
        "SIMSTREAM_REDIS__URL": redis_server.url,
        "SIMSTREAM_QDRANT__URL": f"edge:{tmp_path / 'index'}",
        "SIMSTREAM_RELEASES__URL": str(tmp_path / "releases"),
        "SIMSTREAM_MODEL__NAME": str(model),
    }


def run(
    environment: dict[str, str], folder: Path, *arguments: str, script: str = WATCHED
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,  # no .env of the tree
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_reconcile_reads_the_text_recipe_and_neither_imports_torch_nor_starts_an_encoder(
    environment: dict[str, str], tansu: TansuBroker, redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> None:
    with connect(RedisSettings(url=redis_server.url)) as client:
        State(client, ItemStore(client=client, namespace=namespace)).put_all(["p1", "p2"])
    done = run(environment, tmp_path, "reconcile")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 items, 0 points; announced 2: 0 outdated, 2 missing, 0 to delete"]
    topic = Topics.named(namespace=namespace).changed_bulk.name
    hints = [
        ItemChanged.model_validate_json(one.value or b"") for one in read_to_end(quick_settings(tansu), topic)
    ]
    assert sorted(hint.product_id for hint in hints) == ["p1", "p2"]


def test_the_watch_sees_torch_and_children_so_their_absence_means_something(tmp_path: Path) -> None:
    """Negative control, with an empty torch: the real one takes seconds to import."""
    (tmp_path / "torch.py").touch()
    work = "import subprocess, torch\nsubprocess.run([sys.executable, '-c', ''])"
    script = WATCHED.replace("from app.cli import main\nmain()", work)
    done = run({"PYTHONPATH": str(tmp_path)}, tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    assert "IMPORTED torch" in done.stdout
    assert "STARTED" in done.stdout


def test_reconcile_of_a_release_that_is_not_there_names_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    missing = {**environment, "SIMSTREAM_RELEASES__URL": str(tmp_path / "elsewhere")}
    done = run(missing, tmp_path, "reconcile")
    assert done.returncode == 2
    assert "is not in" in done.stderr
    assert "SIMSTREAM_RELEASES__URL" in done.stderr
