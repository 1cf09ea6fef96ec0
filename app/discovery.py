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
from service.settings import ServiceSettings

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


def stack_settings(settings: Settings, data_dir: Path) -> Settings:
    """The settings, and where they name nothing, the parts of the embedded stack that runs in `data_dir`.

    Its index may be listed but not opened: it has an owner.
    """
    stack = find_stack(data_dir)
    if stack is None or not (data_dir / "index").is_dir():
        return settings
    update: dict[str, object] = {"kafka": kafka_settings(settings, data_dir)}
    if "url" not in settings.redis.model_fields_set:
        update["redis"] = settings.redis.model_copy(update={"url": stack.redis})
    if "url" not in settings.qdrant.model_fields_set:
        update["qdrant"] = settings.qdrant.model_copy(update={"url": f"edge:{data_dir / 'index'}"})
    if "url" not in settings.releases.model_fields_set:
        update["releases"] = settings.releases.model_copy(update={"url": str(data_dir / "releases")})
    if "url" not in settings.opinion_heads.model_fields_set:
        heads = settings.opinion_heads.model_copy(update={"url": str(data_dir / "opinions")})
        update["opinion_heads"] = heads
    return settings.model_copy(update=update)


def kafka_settings(settings: Settings, data_dir: Path) -> KafkaSettings:
    """The settings' Kafka; where they name none, the broker of the embedded stack in `data_dir`."""
    stack = find_stack(data_dir)
    if "bootstrap_servers" in settings.kafka.model_fields_set or stack is None:
        return settings.kafka
    return settings.kafka.model_copy(update={"bootstrap_servers": stack.kafka})


def service_url(given: str | None, settings: ServiceSettings, data_dir: Path) -> str:
    """Where the service answers: the option, the setting, the folder's stack.json, the default address."""
    if given or settings.url:
        return (given or settings.url or "").rstrip("/")
    stack = find_stack(data_dir)
    return (f"http://{settings.host}:{settings.port}" if stack is None else stack.http).rstrip("/")
