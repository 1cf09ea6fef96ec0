"""Rules, dashboards, runbook and the page of metrics speak of the same things; promtool tests the rules."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest

from adapters.metrics import DECLARED
from app.commands.metrics import page
from app.consumer_process import registry_of
from tests.support.prometheus import ROOT, quick_rules, require_prometheus, rules

DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()


def sections() -> dict[str, str]:
    """The runbook's sections by anchor, as GitHub makes them."""
    parts = re.split(r"^#+ (.*)$", RUNBOOK, flags=re.MULTILINE)[1:]
    return {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-"): body
        for title, body in zip(*[iter(parts)] * 2, strict=True)
    }


def targets(dashboard: Path) -> Iterator[dict[str, Any]]:
    for panel in json.loads(dashboard.read_text())["panels"]:
        yield from panel["targets"]


def promtool(*words: str) -> str:
    require_prometheus()
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_of_metrics_is_what_the_command_prints() -> None:
    standing = (ROOT / "docs" / "metrics.md").read_text()
    assert standing == page(), "run: simstream metrics > docs/metrics.md"


def test_every_metric_has_a_name_with_its_unit_and_a_sentence() -> None:
    names = [one.name for one in DECLARED]
    assert len(names) == len(set(names))
    for one in DECLARED:
        assert re.fullmatch(r"simstream(_[a-z]+)+", one.name)
        assert one.name.endswith("_total") == (one.kind == "counter"), one.name
        assert one.sentence.endswith("."), one.name


def test_no_metric_is_made_outside_its_file() -> None:
    made = re.compile(r"\b(Counter|Gauge|Histogram|Summary)\(\s*[\"']simstream_")
    found = [
        path
        for folder in ("adapters", "app", "client", "consumers", "model", "producers", "schemas", "service")
        for path in (ROOT / folder).rglob("*.py")
        if made.search(path.read_text())
    ]
    assert found == []


def test_every_process_exports_when_it_started() -> None:
    """What SimstreamRestarts looks at is not of our making: alone and as a stack."""
    for registry in (REGISTRY, registry_of([lambda: ""])):
        assert "\nprocess_start_time_seconds " in generate_latest(registry).decode()


def test_every_rule_is_tested_with_its_cause_and_without() -> None:
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    promtool("test", "rules", str(DEPLOY / "prometheus" / "alerts_test.yml"))
    cases = [
        case
        for test in yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    for rule in rules():
        told = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]]
        assert set(told) == {True, False}, rule["alert"]


def test_a_rule_that_does_not_do_what_its_test_says_would_be_found(tmp_path: Path) -> None:
    source = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(source.replace("> 5000", "> 50000"))
    (tmp_path / "alerts_test.yml").write_text((DEPLOY / "prometheus" / "alerts_test.yml").read_text())
    with pytest.raises(AssertionError, match="lag, summed over partitions"):
        promtool("test", "rules", str(tmp_path / "alerts_test.yml"))


def test_the_quick_rules_are_the_same_alerts_and_valid(tmp_path: Path) -> None:
    (tmp_path / "quick.yml").write_text(quick_rules())
    promtool("check", "rules", str(tmp_path / "quick.yml"))
    quick = yaml.safe_load(quick_rules())["groups"][0]["rules"]
    assert [one["alert"] for one in quick] == [one["alert"] for one in rules()]


def test_every_panel_asks_in_valid_promql(tmp_path: Path) -> None:
    asked = [target["expr"] for path in DASHBOARDS for target in targets(path)]
    assert len(asked) > 40
    recorded = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(asked)
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", str(tmp_path / "panels.yml"))


def test_dashboards_have_names_of_their_own_and_the_data_source_that_is_provisioned() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 3
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {target["datasource"]["uid"] for path in DASHBOARDS for target in targets(path)} == {
        source["uid"] for source in sources["datasources"]
    }
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/simstream.yml").read_text())
    mounted = {volume.split(":")[1] for volume in compose["grafana"]["volumes"] if volume.startswith("./")}
    assert provider["providers"][0]["options"]["path"] in mounted


def test_prometheus_asks_every_process_of_the_compose_file_on_the_port_it_exports_on() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    exporting = {
        f"{name}:{service['environment']['SIMSTREAM_METRICS__PORT']}"
        for name, service in services.items()
        if "SIMSTREAM_METRICS__PORT" in service.get("environment", {})
    }
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert set(job["static_configs"][0]["targets"]) == exporting
    assert len(exporting) == 6


def test_every_alert_has_a_section_of_the_runbook_that_says_what_to_do() -> None:
    found = sections()
    for rule in rules():
        page_, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page_ == "docs/operations.md"
        assert anchor == rule["alert"].lower()
        body = found[anchor]
        for part in ("**Means**", "**Look at**", "**Do**"):
            assert part in body, f"{rule['alert']} lacks {part}"
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
    alerts = {rule["alert"] for rule in rules()}
    assert {title for title in re.findall(r"^### (Simstream\w+)$", RUNBOOK, re.MULTILINE)} == alerts


def test_every_metric_and_command_that_the_runbook_names_exists() -> None:
    import typer

    from app.cli import command_line

    names = {one.name for one in DECLARED}
    assert set(re.findall(r"simstream_[a-z_]+", RUNBOOK)) <= names
    commands = set(re.findall(r"`simstream ([a-z][a-z -]*)", RUNBOOK))
    tree: Any = typer.main.get_command(command_line())
    for words in commands:
        command = tree
        for word in words.split():
            if not hasattr(command, "commands") or word.startswith("-"):
                break
            assert word in command.commands, words
            command = command.commands[word]
    assert len(commands) > 5
