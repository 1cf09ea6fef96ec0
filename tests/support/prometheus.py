"""Prometheus on a loopback port, and simstream's rules at a pace that a test can wait for.

Reads   deploy/prometheus/alerts.yml
Writes  configuration, rules and data into the folder it is given
Never   is silent about a machine that has none: `require_prometheus()` skips with the reason, or fails in CI
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.children import HOST, Child
from schemas.errors import Halt

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
#: What a rule of minutes and hours looks back over here, in seconds; at one scrape a second.
WINDOW_SECONDS = 8
#: Alerts whose threshold is a time, with that time here.
_TIMES = {"SimstreamStale": ("> 10", "> 3"), "SimstreamChangesWait": ("> 60", "> 3")}


def require_prometheus() -> None:
    """Skip the test that asks where there is no Prometheus; where CI=true, fail it."""
    if all(shutil.which(program) for program in ("prometheus", "promtool")):
        return
    reason = "prometheus and promtool are not on the PATH (apt-get install prometheus)"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; with CI=true this is a failure, not a skip", pytrace=False)
    pytest.skip(reason)


def rules() -> list[dict[str, Any]]:
    """The alerts as they are shipped."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def quick_rules() -> str:
    """The same rules, with `for` and every window cut to seconds; counts and shares stay what they are."""
    found = []
    for rule in rules():
        expression, windows = re.subn(r"\[\d+[mh]\]", f"[{WINDOW_SECONDS}s]", rule["expr"])
        assert windows == rule["expr"].count("["), rule["expr"]
        if rule["alert"] in _TIMES:
            before, after = _TIMES[rule["alert"]]
            assert expression.count(before) == 1
            expression = expression.replace(before, after)
        found.append({**rule, "expr": expression, **({"for": "1s"} if "for" in rule else {})})
    return yaml.safe_dump({"groups": [{"name": "simstream", "rules": found}]})


class Prometheus(Child):
    """Scrapes one address once a second and evaluates `rules` as often."""

    name = "prometheus"
    start_timeout_seconds = 30.0

    def __init__(self, folder: Path, *, target: str, rules: str) -> None:
        super().__init__(folder)
        self._target = target
        self._rules = rules

    def prepare(self) -> None:
        (self.folder / "alerts.yml").write_text(self._rules)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "simstream", "static_configs": [{"targets": [self._target]}]}],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def command(self) -> list[str]:
        program = shutil.which("prometheus")
        if program is None:
            raise Halt("prometheus has gone from the PATH")
        folder = self.folder.resolve()
        options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        return [program, *options, f"--web.listen-address={HOST}:{self.port}"]

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=1.0).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query: `metric` and `value`."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10.0)
        found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
        return found

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """Alerts that fire, with the labels of each."""
        answer = httpx.get(f"{self.url}/api/v1/alerts", timeout=10.0).raise_for_status().json()
        found: dict[str, list[dict[str, str]]] = {}
        for alert in answer["data"]["alerts"]:
            if alert["state"] == "firing":
                labels = {name: value for name, value in alert["labels"].items() if name != "alertname"}
                found.setdefault(alert["labels"]["alertname"], []).append(labels)
        return found

    def evaluations(self) -> int:
        """How many rules were evaluated until now; fails when one of them could not be."""
        groups = (
            httpx.get(f"{self.url}/api/v1/rules", timeout=10.0).raise_for_status().json()["data"]["groups"]
        )
        broken = [rule for group in groups for rule in group["rules"] if rule["health"] == "err"]
        assert not broken, broken
        lines = httpx.get(f"{self.url}/metrics", timeout=10.0).text.splitlines()
        counts = [line for line in lines if line.startswith("prometheus_rule_evaluations_total{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in counts)

    def wait(self, condition: Any, seconds: float, what: str) -> None:
        """Wait until `condition(firing)` holds."""
        deadline = time.monotonic() + seconds
        while not condition(found := self.firing()):
            assert time.monotonic() < deadline, f"{what} after {seconds:g} s; firing: {found}"
            time.sleep(0.25)
