"""Compose file, Dockerfile, .env.example and workflow speak only of what exists.

No Docker engine is needed, and none was at hand where this was written: the files are parsed and every
setting, command, health check and image in them is compared with the code. Nothing here proves that they run.
"""

from __future__ import annotations

import io
import re
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import yaml
from dotenv import dotenv_values

from app.settings import load_settings, shown, variables
from service.api import create_app
from service.settings import ServiceSettings
from tests.support.servers import KAFKA_VERSION

ROOT = Path(__file__).parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def uncommented() -> dict[str, str]:
    """What .env.example would set if every line of it were uncommented, as dotenv reads it."""
    lines = re.sub(r"^# (?=SIMSTREAM_\w+=)", "", EXAMPLE, flags=re.MULTILINE)
    return {name: value or "" for name, value in dotenv_values(stream=io.StringIO(lines)).items()}


def command_line() -> Any:
    """The command line as a tree of commands."""
    from app.cli import command_line as made

    return typer.main.get_command(made())


def parse(command: Any, words: list[str]) -> None:
    """Raises TyperException unless `words` is a valid call; runs nothing."""
    while hasattr(command, "commands"):
        assert words, "a command is missing"
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context("simstream", list(words))


def routes() -> set[str]:
    """Paths that the service answers; nothing is opened to build it."""
    nothing = cast(Any, object())
    app = create_app(index=nothing, store=nothing, releases=nothing, settings=ServiceSettings())
    return set(app.openapi()["paths"])


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["docker-compose.yml", "Dockerfile", ".env.example", ".github/workflows/ci.yml"]
)
def test_every_variable_that_a_file_names_is_a_setting(name: str) -> None:
    named = set(re.findall(r"SIMSTREAM_[A-Z0-9_]*[A-Z0-9]", (ROOT / name).read_text()))
    assert named
    assert named - set(variables()) == set()


def test_the_example_lists_every_setting_with_its_default_in_order() -> None:
    defaults = list(zip(variables(), (value for _, value in shown(load_settings({}))), strict=True))
    listed = list(uncommented().items())
    assert listed == defaults, "put into .env.example: " + "\n".join(
        f"# {name}={value}" for name, value in defaults if (name, value) not in listed
    )


def test_the_example_changes_nothing_as_it_is_and_nothing_when_uncommented() -> None:
    assert dotenv_values(ROOT / ".env.example") == {}
    assert load_settings(uncommented()) == load_settings({})


def test_the_addresses_of_the_compose_file_make_valid_settings() -> None:
    for name, service in OURS.items():
        environment = {key: value for key, value in service["environment"].items() if "${" not in value}
        settings = load_settings(environment)
        for address in (settings.kafka.bootstrap_servers, settings.redis.url, settings.qdrant.url):
            host = re.sub(r"^\w+://", "", address).partition(":")[0]
            assert host in SERVICES, f"{name} looks for {address}"


# --- commands and health -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists(name: str) -> None:
    parse(command_line(), SERVICES[name]["command"])


@pytest.mark.parametrize("words", [["serv"], ["consume", "product"], ["serve", "--prot", "1"], ["consume"]])
def test_a_command_that_does_not_exist_would_be_found(words: list[str]) -> None:
    with pytest.raises((AssertionError, typer.TyperException), match=r"no command|product|prot|Missing"):
        parse(command_line(), words)


def test_the_image_starts_a_command_that_exists() -> None:
    (entrypoint,) = re.findall(r'^ENTRYPOINT \["(\w+)"\]', DOCKERFILE, re.MULTILINE)
    (command,) = re.findall(r'^CMD \["(\w+)"\]', DOCKERFILE, re.MULTILINE)
    assert entrypoint in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    parse(command_line(), [command])


def test_health_checks_ask_for_routes_that_exist_on_the_port_that_is_listened_on() -> None:
    for name, service in OURS.items():
        if service["healthcheck"].get("disable"):
            assert name == "topics", f"{name} runs for ever and has no health check"
            continue
        ((port, path),) = re.findall(
            r"http://127\.0\.0\.1:(\d+)(/[\w/]*)", service["healthcheck"]["test"][-1]
        )
        assert path in routes()
        key = "SIMSTREAM_SERVICE__PORT" if service["command"] == ["serve"] else "SIMSTREAM_METRICS__PORT"
        assert port == service["environment"][key], name
    ((port, path),) = re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/]*)'", DOCKERFILE)
    assert path in routes()
    assert int(port) == ServiceSettings().port


def test_a_service_waits_for_exactly_what_it_can_wait_for() -> None:
    waited = 0
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            waited += 1
            assert other in SERVICES, f"{name} waits for {other}"
            if wait["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert other == "topics"
    assert waited >= 3 * 3
    for server in ("kafka", "redis", "qdrant"):
        assert "test" in SERVICES[server]["healthcheck"]


# --- safety ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_can_do_more_than_it_has_to(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "mem_limit" in service
    assert not service.get("privileged")
    # Kafka's image writes its configuration beside its binaries when it starts.
    assert service.get("read_only") or name == "kafka"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if name not in OURS:
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), "an image is pinned to a full version"


def test_what_a_container_keeps_lies_in_a_named_volume() -> None:
    named = set(yaml.safe_load(COMPOSE)["volumes"])
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    # Files of this repository are for reading, and are there.
    ours = [volume for volume in volumes if volume.startswith("./")]
    assert all(volume.endswith(":ro") and (ROOT / volume.partition(":")[0]).is_dir() for volume in ours)
    assert {volume.partition(":")[0] for volume in volumes if volume not in ours} == named


def test_redis_never_evicts_and_keeps_an_append_only_file() -> None:
    words = SERVICES["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"


def test_the_image_runs_as_nobody_special_and_names_no_index() -> None:
    runtime = DOCKERFILE.partition(" AS runtime")[2]
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", runtime, re.MULTILINE)
    assert "USER root" not in DOCKERFILE
    assert re.search(r"^ARG TORCH_INDEX_URL$", DOCKERFILE, re.MULTILINE), "an argument without a default"
    assert "://" not in re.sub(r"http://127\.0\.0\.1\S*", "", DOCKERFILE)
    for target in ("cpu", "cuda"):
        assert re.search(rf"^FROM runtime AS {target}$", DOCKERFILE, re.MULTILINE)


def test_the_build_gets_every_package_and_nothing_private() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for package in project["tool"]["setuptools"]["packages"]:
        assert f"!{package.split('.')[0]}" in ignored
    for name in (project["project"]["readme"], *project["project"]["license-files"], "constraints.txt"):
        assert f"!{name}" in ignored
    assert not [line for line in ignored if line.startswith("!.")]


# --- the same versions everywhere ----------------------------------------------------------------------


def test_tests_compose_and_workflow_run_the_same_servers() -> None:
    containers = yaml.safe_load(WORKFLOW)["jobs"]["containers"]["services"]
    for name in ("kafka", "redis", "qdrant"):
        assert containers[name]["image"] == SERVICES[name]["image"]
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    major, minor = map(int, re.findall(r"qdrant:v(\d+)\.(\d+)", SERVICES["qdrant"]["image"])[0])
    assert (major, minor) >= (1, 19), "conditional updates need Qdrant 1.19"


def test_the_workflow_runs_what_ci_runs_and_files_that_exist() -> None:
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    steps = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in steps
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    for step in steps:
        for path in re.findall(r"\btests/\w+", step):
            assert (ROOT / path).is_dir(), path
