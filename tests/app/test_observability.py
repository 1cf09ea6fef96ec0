"""Log lines are events and fields; memory is shown by process."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from adapters.process_memory import memory_limit_bytes, show_own_memory, unwatch_memory, watch_memory
from app.observability import JsonLines

ROOT = Path(__file__).parent.parent.parent
#: An event, then fields; perhaps a sentence for people, without values.
EVENT = re.compile(r"[a-z]+(_[a-z0-9]+)+( \w+=%(\.\d+)?[sdrfg])*(: [^%]+)?")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def logged(source: str) -> list[ast.expr]:
    """The first argument of every call of a logger in a module."""
    return [
        node.args[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.args
    ]


def faults(source: str) -> list[str]:
    """What a module logs that does not begin with a constant name of an event."""
    return [
        ast.unparse(one)
        for one in logged(source)
        if not (isinstance(one, ast.Constant) and EVENT.fullmatch(str(one.value)))
    ]


def test_every_log_line_begins_with_a_constant_event_and_goes_on_with_fields() -> None:
    packages = ("adapters", "app", "consumers", "model", "producers", "schemas", "service")
    modules = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): faults(path.read_text()) for path in modules}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert sum(len(logged(path.read_text())) for path in modules) > 50


@pytest.mark.parametrize(
    "line",
    [
        'log.info(f"batch_done count={count}")',
        'log.info("%s", "batch_done")',
        'log.info("done count=%d", 3)',
        'log.info("batch_done 3 of %d", 4)',
        "log.info(sentence)",
    ],
)
def test_a_line_without_a_constant_event_would_be_found(line: str) -> None:
    assert faults(line)


def record(message: str, *arguments: object, name: str = "consumers.runner") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)


def test_json_lines_carry_event_fields_and_the_sentence() -> None:
    line = json.loads(
        JsonLines().format(record("commit_failed consumer=%s partitions=%d: sent again", "products", 3))
    )
    assert (line["event"], line["consumer"], line["partitions"]) == ("commit_failed", "products", 3)
    assert line["message"] == "commit_failed consumer=products partitions=3: sent again"
    assert (line["level"], line["logger"]) == ("WARNING", "consumers.runner")
    assert line["time"].endswith("+00:00")


def test_json_lines_take_what_others_say_as_it_is() -> None:
    line = json.loads(JsonLines().format(record("Connection pool is full: %s", "host=x", name="urllib3")))
    assert line["event"] is None
    assert line["message"] == "Connection pool is full: host=x"
    assert "host" not in line


def test_a_field_cannot_take_the_place_of_a_level_or_a_message() -> None:
    line = json.loads(JsonLines().format(record("thing_said level=%s message=%s", "none", "else")))
    assert (line["level"], line["message"]) == ("WARNING", "thing_said level=none message=else")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_shown_by_process_and_no_longer_once_it_has_ended() -> None:
    def shown(process: str) -> float | None:
        return REGISTRY.get_sample_value("simstream_process_memory_bytes", {"process": process})

    show_own_memory("a test")
    watch_memory("twice", os.getpid())
    watch_memory("twice", os.getppid())
    own = shown("a test")
    assert own is not None
    assert own > 10_000_000
    both = shown("twice")
    assert both is not None
    assert both > own / 2
    unwatch_memory("twice", os.getpid())
    unwatch_memory("twice", os.getppid())
    assert shown("twice") == 0.0
    limit = REGISTRY.get_sample_value("simstream_process_memory_limit_bytes", {"process": "a test"})
    assert limit == memory_limit_bytes()


def test_the_limit_of_the_container_counts_and_no_limit_is_that_of_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    machine = memory_limit_bytes((file,))
    file.write_text("268435456\n")
    assert memory_limit_bytes((file,)) == 268_435_456
    file.write_text("max\n")
    assert memory_limit_bytes((file,)) == machine
