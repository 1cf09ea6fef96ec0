"""`simstream keys new`, and the way of a key from there through settings to the service."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from app.cli import command_line
from app.settings import load_settings
from service.access import Keyring
from service.keys import Scope


def test_a_new_key_is_printed_once_with_the_entry_that_lets_it_in() -> None:
    words = ["keys", "new", "shop", "--scope", "read", "--scope", "publish", "--expires", "2099-01-01"]
    done = CliRunner().invoke(command_line(["keys"]), words)
    assert done.exit_code == 0, done.output
    key, entry = done.stdout.splitlines()[:2]
    assert key not in entry
    settings = load_settings({"SIMSTREAM_API__KEYS": entry})
    found = Keyring(settings.api).find(key)
    assert found is not None
    assert found.scopes == {Scope.READ, Scope.PUBLISH}
    assert entry.split(":")[2] not in str(settings)


def test_as_json_and_with_read_alone_where_nobody_says() -> None:
    done = CliRunner().invoke(command_line(["keys"]), ["keys", "new", "shop", "--json"])
    made = json.loads(done.stdout)
    assert made["entry"].startswith("shop:read:")
    assert Keyring(load_settings({"SIMSTREAM_API__KEYS": made["entry"]}).api).find(made["key"]) is not None


def test_a_name_that_cannot_stand_in_the_setting_is_refused() -> None:
    done = CliRunner().invoke(command_line(["keys"]), ["keys", "new", "a:b"])
    assert done.exit_code != 0
    assert "simstream_" not in done.stdout
