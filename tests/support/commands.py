"""Processes of the command line that run for ever, as tests start, kill and restart them.

Reads   nothing
Writes  what the command does; its log
Never   is anything but the command as a user gives it
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from app.children import Child
from tests.support.draining import SESSION_TIMEOUT_SECONDS
from tests.support.tiny_model import GRAPHS, write_tiny_model

ROOT = Path(__file__).parents[2]


def command_environment(
    folder: Path, *, kafka: str, namespace: str, redis: str, index: str, partitions: int
) -> dict[str, str]:
    """Settings of the processes of one stack: a tiny model, groups that notice soon who has gone."""
    return {
        "SIMSTREAM_NAMESPACE": namespace,
        "SIMSTREAM_LOG__LEVEL": "INFO",
        "SIMSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka,
        "SIMSTREAM_KAFKA__PARTITIONS": str(partitions),
        "SIMSTREAM_KAFKA__REPLICATION_FACTOR": "1",
        "SIMSTREAM_KAFKA__OPTIONS": json.dumps(
            {"session.timeout.ms": int(SESSION_TIMEOUT_SECONDS * 1000), "heartbeat.interval.ms": 1000}
        ),
        "SIMSTREAM_REDIS__URL": redis,
        "SIMSTREAM_QDRANT__URL": index,
        "SIMSTREAM_RELEASES__URL": str(folder / "releases"),
        "SIMSTREAM_MODEL__NAME": str(write_tiny_model(folder / "model")),
        "SIMSTREAM_MODEL__ENGINE": "onnx",
        "SIMSTREAM_MODEL__GRAPHS": GRAPHS,
        "SIMSTREAM_MODEL__THREADS": "1",
    }


class Command(Child):
    """One `simstream` command. Ready at once: who needs more says what."""

    start_timeout_seconds = 120.0
    stop_timeout_seconds = 60.0

    def __init__(self, folder: Path, environment: Mapping[str, str], name: str, *words: str) -> None:
        super().__init__(folder)
        self.name = name
        self._words = words
        self._environment = environment

    def command(self) -> list[str]:
        return [sys.executable, "-m", "app.cli", *self._words]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        return {**os.environ, **self._environment, "PYTHONPATH": path}

    def ready(self) -> bool:
        return True
