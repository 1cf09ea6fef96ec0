"""Every setting of simstream, joined once; the only module that reads the environment.

Reads   environment variables `SIMSTREAM_SECTION__NAME` and the file `.env` (the environment wins); for
        `SIMSTREAM_SECTION__NAME_FILE` the file that it names: secrets as containers mount them
Writes  nothing
Never   guesses: an unknown variable, or a value that does not fit, is refused with its name and the fix

Each section is declared beside what it configures (adapters/kafka.py declares `KafkaSettings`, ...).
A list may be given as JSON or separated by commas (in a file also one a line), a mapping as a JSON object.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from adapters.audit import AuditSettings
from adapters.index import IndexSettings
from adapters.kafka import KafkaSettings
from adapters.redis_client import RedisSettings
from adapters.releases import ReleaseSettings
from adapters.tracing import TracingSettings
from app.observability import LogSettings, MetricsSettings
from consumers.archive_settings import ArchiveSettings
from consumers.baskets import RelationSettings
from consumers.behaviour import BehaviourSettings
from consumers.embeddings import EmbeddingsSettings
from consumers.erasures import ErasureSettings
from consumers.opinion_figures import OpinionSettings
from consumers.pictures import ImageSettings
from consumers.price_insights import InsightSettings
from consumers.reviews import ReviewsSettings
from consumers.rollout import RolloutSettings
from consumers.runner import RunnerSettings
from consumers.shopper_vectors import VectorSettings
from model.learning_settings import (
    ExposureSettings,
    GateSettings,
    PairSettings,
    ScheduleSettings,
    TrainingSettings,
)
from model.opinion_settings import HeadSettings
from model.settings import ModelSettings
from schemas.events import Frozen
from schemas.topics import Topics
from service.keys import ApiSettings
from service.prices import PriceSettings
from service.rulebook import RuleSettings
from service.settings import ServiceSettings

PREFIX = "SIMSTREAM_"
#: Variables of the tests and benchmarks: where data sets and downloaded servers are kept.
NOT_SETTINGS = frozenset({"SIMSTREAM_DATA", "SIMSTREAM_CACHE"})
DELIMITER = "__"
#: `NAME_FILE` names a file with the value of `NAME`.
FILE_SUFFIX = "_file"
HIDDEN = "**********"
#: Names whose values are never printed, wherever they stand (librdkafka's options included).
_SECRET_NAME = re.compile(
    r"(password|secret|token|api_?key|hash_key|^key$|keys$|sasl\.oauthbearer\.config|\.key\b)", re.I
)


class InvalidSettings(ValueError):
    """The environment asks for something that does not exist; the message names the variable and the fix."""


class TopicNames(Frozen):
    """What each topic is called, before the namespace is put in front."""

    products: str = "catalog.products"
    reviews: str = "catalog.reviews"
    events: str = "user.events"
    changed: str = "items.changed"
    changed_bulk: str = "items.changed.bulk"
    updated: str = "items.updated"
    erasures: str = "user.erasures"
    releases: str = "model.releases"
    insights_prices: str = "insights.prices"
    insights_opinions: str = "insights.opinions"


class Settings(Frozen):
    """All sections. Build with `load_settings`; printing it hides secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = ""
    topics: TopicNames = TopicNames()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    qdrant: IndexSettings = IndexSettings()
    releases: ReleaseSettings = ReleaseSettings()
    model: ModelSettings = ModelSettings()
    images: ImageSettings = ImageSettings()
    service: ServiceSettings = ServiceSettings()
    api: ApiSettings = ApiSettings()
    rules: RuleSettings = RuleSettings()
    prices: PriceSettings = PriceSettings()
    insights: InsightSettings = InsightSettings()
    relations: RelationSettings = RelationSettings()
    opinions: OpinionSettings = OpinionSettings()
    opinion_heads: HeadSettings = HeadSettings()
    loop: RunnerSettings = RunnerSettings()
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
    reviews: ReviewsSettings = ReviewsSettings()
    behaviour: BehaviourSettings = BehaviourSettings()
    shopper_vectors: VectorSettings = VectorSettings()
    erasures: ErasureSettings = ErasureSettings()
    rollout: RolloutSettings = RolloutSettings()
    archive: ArchiveSettings = ArchiveSettings()
    training: TrainingSettings = TrainingSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    pairs: PairSettings = PairSettings()
    exposure: ExposureSettings = ExposureSettings()
    gate: GateSettings = GateSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    audit: AuditSettings = AuditSettings()

    def named_topics(self) -> Topics:
        """Every topic under its final name."""
        return Topics.named(namespace=self.namespace, **self.topics.model_dump())

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value}' for name, value in shown(self))})"

    __str__ = __repr__


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Settings from `env`, or from the process's environment over `.env` when None.

    Raises InvalidSettings naming every variable that is unknown or has a wrong value.
    """
    found = _environment() if env is None else env
    tree: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in sorted(found.items()):
        if not name.upper().startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        path = name[len(PREFIX) :].lower().split(DELIMITER)
        field = _field_at(path)
        if field is None and path[-1].endswith(FILE_SUFFIX):
            path[-1] = path[-1].removesuffix(FILE_SUFFIX)
            field = _field_at(path)
            try:
                value = _content(name, value, found)
            except InvalidSettings as error:
                problems.append(str(error))
                continue
        if field is None:
            problems.append(_unknown(name))
            continue
        branch = tree
        for part in path[:-1]:
            branch = branch.setdefault(part, {})
        branch[path[-1]] = _decoded(field, value)
    if problems:
        raise InvalidSettings("; ".join(problems))
    try:
        return Settings(**tree)
    except ValidationError as error:
        raise InvalidSettings(_wrong(error)) from None


def variables() -> list[str]:
    """Every variable that is understood, in the order of the sections."""
    return [PREFIX + DELIMITER.join(path).upper() for path, _ in _leaves(Settings, ())]


def shown(settings: Settings) -> Iterator[tuple[str, str]]:
    """Each setting as (dotted name, value as text), secrets and passwords in URLs hidden."""
    for path, _ in _leaves(Settings, ()):
        value: Any = settings
        for part in path:
            value = getattr(value, part)
        yield ".".join(path), _hidden(path[-1], value)


def _environment() -> dict[str, str]:
    """`.env` of the working directory, overlaid by the process's environment."""
    from_file = {
        name: value or ""
        for name, value in (dotenv_values(".env") if Path(".env").is_file() else {}).items()
        if name.startswith(PREFIX)
    }
    return {**from_file, **{name: value for name, value in os.environ.items() if name.startswith(PREFIX)}}


def _content(name: str, file: str, found: Mapping[str, str]) -> str:
    """What the file of a `NAME_FILE` holds, without the white space around it. Raises InvalidSettings."""
    plain = name[: -len(FILE_SUFFIX)]
    if plain in found:
        raise InvalidSettings(f"{name} and {plain} are both set: keep one")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidSettings(f"{name}: cannot read {file!r}: {reason}") from None


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model an annotation stands for, through `X | None`; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _leaves(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is None:
            yield (*path, name), field
        else:
            yield from _leaves(inner, (*path, name))


def _field_at(path: list[str]) -> FieldInfo | None:
    """The field that a variable names, or None. A whole section cannot be set at once."""
    return next((field for leaf, field in _leaves(Settings, ()) if list(leaf) == path), None)


def _kinds(annotation: Any) -> set[Any]:
    """The plain types an annotation allows: `tuple[str, ...] | None` gives {tuple, NoneType}."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*(_kinds(member) for member in get_args(annotation)))
    return {origin or annotation}


def _decoded(field: FieldInfo, value: str) -> Any:
    """The text of a variable as what its field expects; what does not parse is left to validation."""
    kinds = _kinds(field.annotation)
    if kinds & {list, tuple, set, frozenset}:
        text = value.strip()
        if text.startswith("["):
            return _json(text)
        return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    if dict in kinds or Mapping in kinds:
        return _json(value)
    if value == "" and type(None) in kinds:
        return None
    return value


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name.upper(), variables(), n=1, cutoff=0.6)
    fix = f"did you mean {nearest[0]}?" if nearest else f"one of: {', '.join(variables())}"
    return f"{name} is not a setting: {fix}"


def _wrong(error: ValidationError) -> str:
    """One sentence per wrong value, naming its variable; secrets are not repeated."""
    sentences = []
    for detail in error.errors(include_url=False):
        path = [str(part) for part in detail["loc"]]
        known = max(
            (leaf for leaf, _ in _leaves(Settings, ()) if list(leaf) == path[: len(leaf)]), default=()
        )
        name = PREFIX + DELIMITER.join(known or path).upper()
        got = "" if _is_secret(path, detail["input"]) else f" (got {detail['input']!r})"
        sentences.append(f"{name}: {detail['msg']}{got}")
    return "; ".join(sentences)


def _is_secret(path: list[str], value: Any) -> bool:
    """Whether a wrong value may not be repeated: secrets, addresses (passwords), and whole mappings."""
    if isinstance(value, SecretStr | Mapping):
        return True
    names = [part for part in path if not part.isdigit()]
    return any(_SECRET_NAME.search(name) or "url" in name or name.endswith("options") for name in names)


def _hidden(name: str, value: Any) -> str:
    """A value as it may be printed."""
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if isinstance(value, Mapping):
        return json.dumps({key: _hidden(str(key), inner) for key, inner in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(_hidden(name, inner) for inner in value)
    if value is None or value == "":
        return ""
    if _SECRET_NAME.search(name):
        return HIDDEN
    return _without_password(str(value))


def _without_password(value: str) -> str:
    """`redis://user:secret@host?password=secret` without the secrets; anything else unchanged."""
    if "://" not in value:
        return value
    parts = urlsplit(value)
    query = re.sub(
        r"([^&=]+)=[^&]*",
        lambda pair: f"{pair[1]}={HIDDEN}" if _SECRET_NAME.search(pair[1]) else pair[0],
        parts.query,
    )
    host = parts.netloc.rpartition("@")[2]
    where = parts.netloc if parts.password is None else f"{parts.username or ''}:{HIDDEN}@{host}"
    return urlunsplit(parts._replace(netloc=where, query=query))
