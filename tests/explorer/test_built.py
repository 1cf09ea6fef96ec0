"""The files of the page that are committed are those that its sources make, and its types are the API's.

Needs Node and what `make explorer` has installed; where CI=true, lacking either is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.document import document
from service.page import FOLDER
from tests.support.browser import EXPLORER, require

MODULES = EXPLORER / "node_modules"


@pytest.fixture
def node() -> None:
    """Skips, with the reason, where the page cannot be built."""
    if shutil.which("npx") is None:
        require("there is no Node: apt-get install nodejs npm")
    require(None if MODULES.is_dir() else "the explorer's packages are not installed: make explorer-packages")


def run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["npx", "--no-install", *command],
        cwd=EXPLORER,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "npm_config_update_notifier": "false", **(env or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("node")
def test_what_is_committed_is_what_the_sources_make(tmp_path: Path) -> None:
    run("vite", "build", "--outDir", str(tmp_path / "built"))
    made = {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()}
    kept = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert set(made) == set(kept)
    differing = [name for name in made if made[name] != kept[name]]
    assert not differing, f"{differing} are stale: make explorer, and commit service/static"


@pytest.mark.usefixtures("node")
def test_the_types_are_those_of_the_api_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(document())
    run("openapi-typescript", str(tmp_path / "openapi.json"), "--output", str(tmp_path / "api.d.ts"))
    stale = (tmp_path / "api.d.ts").read_text() != (EXPLORER / "src" / "api.d.ts").read_text()
    assert not stale, "src/api.d.ts is not what the API is now: make explorer"


@pytest.mark.usefixtures("node")
def test_the_sources_are_typed_and_their_own_tests_pass() -> None:
    run("tsc", "--noEmit")
    report = json.loads(run("vitest", "run", "--reporter=json"))
    assert report["numFailedTests"] == 0
    assert report["numPassedTests"] > 20


def test_the_lock_names_no_registry_and_every_package_is_pinned() -> None:
    lock = (EXPLORER / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    packages = json.loads(lock)["packages"]
    assert all(entry.get("integrity") for name, entry in packages.items() if name)
    wanted = json.loads((EXPLORER / "package.json").read_text())
    versions = [*wanted["dependencies"].values(), *wanted["devDependencies"].values()]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)
    assert "omit-lockfile-registry-resolved=true" in (EXPLORER / ".npmrc").read_text()


def test_the_built_page_ships_in_the_distribution() -> None:
    project = (EXPLORER.parent.parent / "pyproject.toml").read_text()
    assert 'service = ["static/*"]' in project
    assert {"index.html", "app.js", "index.css"} <= {path.name for path in FOLDER.iterdir()}
