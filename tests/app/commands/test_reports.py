"""`simstream reports`: the queue is listed, decided, and says what it does not know."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from app.cli import command_line
from app.local import LocalRedis
from app.settings import load_settings
from app.wiring import open_reports
from schemas.reports import ReportRequest

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def test_what_was_reported_is_listed_and_decided(
    redis_server: LocalRedis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMSTREAM_REDIS__URL", redis_server.url)
    monkeypatch.setenv("SIMSTREAM_NAMESPACE", namespace)
    store = open_reports(load_settings())
    for seed, item in (("a", "b"), ("a", "b"), ("c", "d")):
        request = ReportRequest(seed=seed, item_id=item, reason="not_similar", note="a toy")
        assert store.add(request, reporter="shop", now=NOW) is not None
    ask, app = CliRunner(), command_line(["reports"])
    first, second = ask.invoke(app, ["reports", "list"]).output.splitlines()
    assert "pending  not similar  2 x  b for a: a toy" in first
    ids = [line.split()[0] for line in (first, second)]
    told = ask.invoke(app, ["reports", "approve", ids[0]])
    assert (told.exit_code, "approved" in told.output) == (0, True)
    assert "rejected" in ask.invoke(app, ["reports", "reject", ids[1]]).output
    assert "nothing waits" in ask.invoke(app, ["reports", "list"]).output
    rows = [
        json.loads(line)
        for line in ask.invoke(app, ["reports", "list", "--all", "--json"]).output.splitlines()
    ]
    assert [row["status"] for row in rows] == ["approved", "rejected"]
    unknown = ask.invoke(app, ["reports", "approve", "nothing"])
    assert unknown.exit_code == 2


def test_what_a_report_says_cannot_forge_a_line_or_steer_the_terminal(
    redis_server: LocalRedis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMSTREAM_REDIS__URL", redis_server.url)
    monkeypatch.setenv("SIMSTREAM_NAMESPACE", namespace)
    store = open_reports(load_settings())
    forged = "\n3f00  pending  harmful  950 x  bestseller\r\u2028\x1b[2K"
    request = ReportRequest(
        seed=f"a{forged}", item_id=f"b{forged}", reason="not_similar", note=f"größer{forged}"
    )
    entry = store.add(request, reporter=None, now=NOW)
    assert entry is not None
    ask, app = CliRunner(), command_line(["reports"])
    for command in (["list"], ["approve", entry.report_id]):
        output = ask.invoke(app, ["reports", *command]).output
        (line,) = output.splitlines()
        assert line.isprintable()
        assert line.count(r"\n3f00  pending") == 3
        assert "größer" in line
