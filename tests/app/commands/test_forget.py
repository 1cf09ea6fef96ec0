"""app/commands/forget.py: the audit log says that somebody was forgotten, and never who."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from app.cli import command_line
from consumers.erasures import erasure_key
from schemas.errors import Transient

USER = "u-4711@example.com"


def test_a_shopper_stands_in_the_audit_log_by_the_name_of_user_erasures_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def away(settings: Any, user_id: str, **options: Any) -> NoReturn:
        raise Transient(f"the broker has not taken the erasure of {user_id}")

    monkeypatch.setattr("app.forgetting.forget", away)
    log = tmp_path / "audit.jsonl"
    environment = {
        "SIMSTREAM_AUDIT__FILE": str(log),
        "SIMSTREAM_QDRANT__URL": f"edge:{tmp_path / 'index'}",
        "SIMSTREAM_ERASURES__KEY": "a secret of the shop",
    }
    done = CliRunner().invoke(
        command_line(["forget"]), ["forget", USER, "--data-dir", str(tmp_path)], env=environment
    )
    assert isinstance(done.exception, Transient)
    begun, failed = (json.loads(line) for line in log.read_text().splitlines())
    assert begun["what"] == {"shopper": erasure_key(USER, b"a secret of the shop")}
    assert failed["reason"] == "Transient: the broker has not taken the erasure of ..."
    assert USER not in log.read_text()
    assert "a secret of the shop" not in log.read_text()
