"""app/backup.py: what is no folder for a backup, or holds none that is whole, is said in a sentence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.backup import STATE_FILE, TOLD, Backup, back_up, restore
from app.settings import Settings
from schemas.errors import Halt


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("notes")
    with pytest.raises(Halt, match=r"backup cannot be made a folder for a backup \(.*\): name another"):
        back_up(Settings(), tmp_path / "backup")


def test_a_backup_whose_state_is_missing_is_named(tmp_path: Path) -> None:
    told = Backup(
        made_at=datetime(2026, 11, 27, tzinfo=UTC),
        namespace="",
        generation=1,
        commits={},
        topic_ids={},
        keys=0,
        sha256="",
        releases=[],
    )
    (tmp_path / TOLD).write_text(told.model_dump_json())
    with pytest.raises(
        Halt, match=rf"{STATE_FILE} cannot be read \(No such file.*\): the backup is not whole"
    ):
        restore(Settings(), tmp_path)
