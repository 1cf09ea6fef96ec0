"""What an operator sees of a running stack: alerts fire by their causes and clear; the exporter; the doctor.

A real Prometheus reads it, with the shipped rules at a pace of seconds (tests/support/prometheus.py).
The stack is a process of its own, as `simstream up --embedded` starts it, with a tiny model.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from adapters.index_port import release_of
from adapters.kafka import Publisher
from adapters.redis_rollouts import RolloutBoard
from adapters.releases import ReleaseSettings, ReleaseStore
from app.cli import command_line
from benchmarks.stack import RunningStack, embedded_stack
from consumers.release_requests import ask_for
from schemas.events import ItemChanged, ProductUpserted, UserEvent
from schemas.releases import Verdict
from tests.support.prometheus import Prometheus, quick_rules, require_prometheus, rules
from tests.support.tiny_model import write_tiny_model
from tests.test_monitoring import DASHBOARDS, targets

#: What a stack that is well and in use must not raise.
USED_SECONDS = 12.0
EVENTS = 12_000
#: Words of PromQL that are no metrics, and what Prometheus itself adds.
_WORDS = {"by", "or", "and", "on", "without", "le"}
_PROMETHEUS = {"up", "ALERTS"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Running, with something published, asked and done by shoppers."""
    require_prometheus()
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    environment = {
        "SIMSTREAM_MODEL__NAME": str(model),
        "SIMSTREAM_REDIS__TIMEOUT_SECONDS": "1",
        "SIMSTREAM_BEHAVIOUR__DEBOUNCE__DELAY_SECONDS": "0.5",
    }
    with embedded_stack(environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Reads the stack's /metrics."""
    target = stack.http.removeprefix("http://")
    with Prometheus(tmp_path_factory.mktemp("prometheus"), target=target, rules=quick_rules()) as server:
        yield server


def product(number: int) -> bytes:
    event = ProductUpserted(
        product_id=f"p{number}",
        occurred_at=datetime.now(UTC),
        title=f"Brass lamp number {number}",
        price="19.90",
        currency="EUR",
    )
    return event.model_dump_json().encode()


def view(number: int) -> bytes:
    event = UserEvent(
        event_id=f"e{number}",
        type="view",
        user_id=f"u{number % 50}",
        product_id=f"p{number % 5}",
        occurred_at=datetime.now(UTC),
    )
    return event.model_dump_json().encode()


def use(stack: RunningStack, publisher: Publisher, http: httpx.Client, number: int) -> None:
    """A product, a view, a question."""
    publisher.send("catalog.products", key=f"p{number % 5}", value=product(number % 5))
    publisher.send("user.events", key=f"u{number % 50}", value=view(number))
    http.get("/v1/trending")


@pytest.fixture(scope="module")
def publisher(stack: RunningStack) -> Iterator[Publisher]:
    """Publishes onto the stack's broker."""
    made = Publisher(stack.settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def http(stack: RunningStack) -> Iterator[httpx.Client]:
    """Asks the stack's service."""
    with httpx.Client(base_url=stack.http, timeout=10.0) as client:
        yield client


def refuse_a_candidate(stack: RunningStack, folder: Path) -> None:
    """A release with the gate's refusal in its manifest, and somebody who asks for it all the same."""
    store = ReleaseStore(ReleaseSettings(url=str(stack.folder / "releases"), cache=str(folder / "cache")))
    (live,) = store.list()
    manifest = store.manifest(live)
    refused = manifest.model_copy(
        update={
            "release_id": f"refused-{os.getpid()}",
            "parent": live,
            "verdict": Verdict(passed=False, reasons=["it forgets what the old set holds"]),
        }
    )
    store.publish(store.fetch(live), refused)
    with redis.Redis.from_url(stack.redis) as client:
        collection = f"items__{live}__1"
        assert release_of(collection) == live
        ask_for(RolloutBoard(client=client), refused.release_id, alias="items", standing=[collection])


def test_alerts_are_silent_in_use_fire_by_their_causes_and_clear(
    stack: RunningStack, prometheus: Prometheus, publisher: Publisher, http: httpx.Client, tmp_path: Path
) -> None:
    # The control: a stack in use raises nothing.
    deadline, number = time.monotonic() + USED_SECONDS, 0
    while time.monotonic() < deadline:
        number += 1
        use(stack, publisher, http, number)
        assert prometheus.firing() == {}
        time.sleep(0.1)
    assert prometheus.evaluations() > 5 * len(rules())
    assert prometheus.query('up{job="simstream"} == 1')
    assert prometheus.query('simstream_searchable_seconds_count{dimension="content",lane="live"} > 0')

    # A poison message; a release that the gate has refused.
    publisher.send("catalog.products", key="p1", value=b"no JSON")
    refuse_a_candidate(stack, tmp_path)
    prometheus.wait(
        lambda on: {"SimstreamDeadLetters", "SimstreamGateRefusal"} <= set(on), 30.0, "not refused"
    )
    firing = prometheus.firing()
    assert firing["SimstreamDeadLetters"] == [
        {"topic": "catalog.products", "reason": "invalid", "severity": "warning"}
    ]
    assert firing["SimstreamGateRefusal"] == [{"state": "candidate", "severity": "info"}]
    assert set(firing) == {"SimstreamDeadLetters", "SimstreamGateRefusal"}

    # Redis hangs: lag grows, a change waits, the API answers 503.
    with redis.Redis.from_url(stack.redis) as client:
        paused = int(client.info("server")["process_id"])
    os.kill(paused, signal.SIGSTOP)
    try:
        for event in range(EVENTS):
            publisher.send("user.events", key=f"u{event % 50}", value=view(1_000_000 + event))
        hint = ItemChanged(product_id="p1", dimensions=["content"], occurred_at=datetime.now(UTC))
        publisher.send("items.changed", key="p1", value=hint.model_dump_json().encode())
        wanted = {"SimstreamLag", "SimstreamChangesWait", "SimstreamStoreAway", "SimstreamErrors"}
        until = time.monotonic() + 60.0
        seen: set[str] = set()
        while not wanted <= seen:
            assert time.monotonic() < until, f"seen {seen}"
            http.get("/v1/items/p1")
            firing = prometheus.firing()
            seen |= set(firing)
            if "SimstreamLag" in firing:
                assert {"topic": "user.events"}.items() <= firing["SimstreamLag"][0].items()
            time.sleep(0.2)
    finally:
        os.kill(paused, signal.SIGCONT)

    # The causes have gone, and what a hanging store delayed has gone through.
    def calm(on: dict[str, list[dict[str, str]]]) -> bool:
        use(stack, publisher, http, 1)
        return not on

    prometheus.wait(calm, 90.0, "alerts have not cleared")
    lag = prometheus.query('sum(simstream_lag_records{topic="user.events"})')
    assert float(lag[0]["value"][1]) < 100
    print(
        json.dumps({"fired and cleared": sorted({"SimstreamDeadLetters", "SimstreamGateRefusal"} | wanted)})
    )


def names_in(expression: str) -> set[str]:
    """The metrics that an expression of PromQL names."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|without)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()", bare)) - _WORDS


def labels_in(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    selected = {
        name
        for inner in re.findall(r"\{([^}]*)\}", expression)
        for name in re.findall(r"(\w+)\s*[=!]", inner)
    }
    grouped = {
        name for inner in re.findall(r"\bby\s*\(([^)]*)\)", expression) for name in re.findall(r"\w+", inner)
    }
    return selected | grouped


@pytest.mark.parametrize(
    ("expression", "names", "labels"),
    [
        ('sum by (a) (rate(x_total{b!="c d"}[5m])) > 1', {"x_total"}, {"a", "b"}),
        ("histogram_quantile(0.99, sum by (le, route) (rate(y_bucket[5m])))", {"y_bucket"}, {"le", "route"}),
        ('one or sum(two{job="z"}) / on (node) three', {"one", "two", "three"}, {"job"}),
    ],
)
def test_names_and_labels_are_found_in_an_expression(
    expression: str, names: set[str], labels: set[str]
) -> None:
    assert names_in(expression) == names
    assert labels_in(expression) == labels


def test_rules_and_dashboards_name_what_the_exporter_shows(stack: RunningStack, http: httpx.Client) -> None:
    asked = [rule["expr"] for rule in rules()]
    asked += [target["expr"] for path in DASHBOARDS for target in targets(path)]
    exported: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        exported.setdefault(family.name, set())
        if family.type == "counter":
            exported.setdefault(f"{family.name}_total", set())
        if family.type == "histogram":
            exported.setdefault(f"{family.name}_bucket", set())
        for sample in family.samples:
            exported.setdefault(sample.name, set()).update(sample.labels)
    by_prometheus = {"instance", "job", "alertname", "alertstate"}
    for expression in asked:
        names = names_in(expression) - _PROMETHEUS
        assert names - set(exported) == set(), expression
        known = set().union(*(exported[name] for name in names)) | by_prometheus
        if all(exported[name] for name in names):
            assert labels_in(expression) - known == set(), expression
    used = {name for expression in asked for name in names_in(expression)}
    assert len(used) > 30
    assert "simstream_no_such_metric" not in exported


# --- the doctor --------------------------------------------------------------------------------------


def doctor(stack: RunningStack, *words: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """`simstream doctor` about that stack: its exit code, and what it found."""
    arguments = ["doctor", "--json", "--data-dir", str(stack.folder), *words]
    done = CliRunner().invoke(command_line(arguments), arguments, env=environment)
    return done.exit_code, json.loads(done.stdout)


def test_the_doctor_finds_nothing_in_a_stack_that_is_well(stack: RunningStack) -> None:
    code, report = doctor(stack)
    assert report["findings"] == []
    assert code == 0
    assert len(report["checked"]) == 10


def test_the_doctor_finds_what_was_planted_in_a_running_stack_and_makes_topics_when_told(
    stack: RunningStack,
) -> None:
    with redis.Redis.from_url(stack.redis) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            code, report = doctor(stack, SIMSTREAM_TOPICS__UPDATED="somewhere.else")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert code == 1
    found = {(one["check"], one["finding"].partition(":")[0]) for one in report["findings"]}
    assert found == {("topics", "does not exist"), ("redis", "maxmemory-policy is allkeys-lru")}
    code, report = doctor(stack, "--repair", SIMSTREAM_TOPICS__UPDATED="somewhere.else")
    assert (code, report["created"]) == (0, ["somewhere.else"])
