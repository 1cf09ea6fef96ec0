"""The process's exit code is what the command says, as scripts and schedulers see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from app import cli
from app.cli import COMMANDS, command_line

ROOT = Path(__file__).parents[2]
#: Says which of what a consumer does without is imported, for one command and for all of them.
IMPORTED = """
import sys
from app.cli import command_line

for words in (["consume", "products"], []):
    command_line(words)
    print(sorted({"fastapi", "pyarrow", "qdrant_client"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["publish", "reviews", "no-such-file.csv"], 2, "no-such-file.csv"),
        (["consume", "nothing"], 2, "nothing"),
        (["schemas", "export", "out"], 0, ""),
        (["schemas", "export", "/dev/null/out"], 1, "simstream: /dev/null/out: Not a directory"),
        (["--help"], 0, ""),
    ],
)
def test_the_exit_code_is_the_command_s(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "a/b"), "a/b: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("Corrupt snappy compressed data."), "Corrupt snappy compressed data."),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "command_line", lambda _: refused)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"simstream: {said}\n"


def test_a_rebuild_of_the_embedded_stack_says_why_it_cannot_be(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "rebuild", "--from-log"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIMSTREAM_QDRANT__URL": f"edge:{tmp_path}/index"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "its broker keeps nothing across a restart" in done.stderr


def test_every_command_is_found_alone_as_among_the_others() -> None:
    def names(words: list[str]) -> list[str]:
        found: Any = typer.main.get_command(command_line(words))
        return list(found.commands)

    assert sorted(names([])) == sorted(COMMANDS)
    for command in COMMANDS:
        assert command in names([command, "--help"])
    # What is no command is looked for among all of them.
    assert names(["consme"]) == names([])


def test_a_consumer_does_not_wait_for_the_imports_of_other_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "['fastapi', 'pyarrow', 'qdrant_client']"]
