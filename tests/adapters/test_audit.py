"""adapters/audit.py: an action is written before and after, a failure with its reason, nobody's secret."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.audit import Audit, AuditSettings
from schemas.errors import Halt

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit(path: Path) -> Audit:
    return Audit(AuditSettings(file=path), clock=lambda: NOW)


def test_an_action_has_a_line_before_it_begins_and_one_when_it_is_done(audit: Audit, path: Path) -> None:
    with audit.acting("releases.promote", release="r-1") as act:
        (begun,) = lines(path)
        act.note(state="live")
    assert (begun["result"], begun["what"]) == ("begun", {"release": "r-1"})
    assert begun["by"]
    assert begun["time"] == NOW.isoformat()
    done = lines(path)[1]
    assert (done["result"], done["what"]) == ("done", {"release": "r-1", "state": "live"})
    assert done["id"] == begun["id"]


def test_a_failure_says_why_without_what_is_hidden_and_is_raised(audit: Audit, path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), audit.acting("forget", hidden="u-4711", shopper="9a"):
        raise KeyboardInterrupt("while u-4711 was being forgotten")
    failed = lines(path)[1]
    assert failed["result"] == "failed"
    assert failed["reason"] == "KeyboardInterrupt: while ... was being forgotten"
    assert "u-4711" not in path.read_text()


def test_where_it_cannot_be_written_nothing_is_begun(tmp_path: Path) -> None:
    audit = Audit(AuditSettings(file=tmp_path / "nowhere" / "audit.jsonl"))
    begun = False
    with pytest.raises(Halt, match=r"audit log .* cannot be written"), audit.acting("restore"):
        begun = True
    assert not begun


def test_lines_are_appended_whole_also_by_many_at_once_and_not_for_everybody_to_read(path: Path) -> None:
    def act(number: int) -> None:
        with Audit(AuditSettings(file=path)).acting("rebuild", number=number, long="x" * 5_000):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(40)))
    assert sorted(line["what"]["number"] for line in lines(path)) == sorted([*range(40), *range(40)])
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_without_a_file_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with Audit(AuditSettings()).acting("backup"):
        pass
    said = [record.message for record in caplog.records if record.message.startswith("admin_action")]
    assert [line.rpartition("=")[2] for line in said] == ["begun", "done"]
