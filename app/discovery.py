"""Where a running stack is: what `simstream up` writes into its data folder, and commands read.

Reads, writes  `stack.json` in the data folder
Never          overrides an address that the settings name
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from adapters.kafka import KafkaSettings
from app.settings import Settings

STACK_FILE = "stack.json"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running stack can be reached."""

    kafka: str
    redis: str
    http: str


def announce(addresses: Addresses, data_dir: Path) -> Path:
    """Write the file; readers see the old one or the new one, never half of it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / STACK_FILE
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(asdict(addresses)))
    aside.replace(path)
    return path


def find_stack(data_dir: Path) -> Addresses | None:
    """The stack that runs in that folder; None where none does, or the file is not one."""
    try:
        found = json.loads((data_dir / STACK_FILE).read_bytes())
        return Addresses(str(found["kafka"]), str(found["redis"]), str(found["http"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kafka_settings(settings: Settings, data_dir: Path) -> KafkaSettings:
    """The settings' Kafka; where they name none, the broker of the embedded stack in `data_dir`."""
    stack = find_stack(data_dir)
    if "bootstrap_servers" in settings.kafka.model_fields_set or stack is None:
        return settings.kafka
    return settings.kafka.model_copy(update={"bootstrap_servers": stack.kafka})
