"""The rules in force: those of the file as it last was right, read again when it changes.

Reads   the rules file
Writes  nothing; says in log, metrics and readiness when a version of the file was refused
Never   serves a version that is wrong anywhere, and never drops the rules it has because the next are wrong
"""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from adapters.metrics import RULES_REFUSED, RULES_VERSIONS_TOTAL
from adapters.watched_file import WatchedFile
from schemas.errors import Halt
from schemas.events import Frozen
from schemas.rules import BarrierRule, BoostRule, Match, RulesFile
from service.rules import NO_RULES, CompiledRules

log = logging.getLogger(__name__)

_MOST_NAMED = 10


class RuleSettings(Frozen):
    """Where the rules file is, and how often it is looked whether it has changed."""

    #: Empty: no rules.
    file: Path | None = None
    look_seconds: float = Field(default=0.5, gt=0, le=60)


class InvalidRules(ValueError):
    """A rules file that cannot be used; the message names each field that is wrong, and the fix."""


class _Loader(yaml.SafeLoader):
    """Plain values alone; a key that stands twice is a mistake, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise InvalidRules(f"line {line}: {key!r} stands twice: put both lists under one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise InvalidRules(f"line {line}: aliases (*name) are not read: write the value out")
        return super().compose_node(parent, index)


def parsed(content: bytes) -> RulesFile:
    """The rules of a file. Raises InvalidRules."""
    try:
        found = yaml.load(content, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise InvalidRules(f"{where}no YAML: {getattr(error, 'problem', None) or error}") from None
    except (UnicodeDecodeError, RecursionError, TypeError) as error:
        raise InvalidRules(f"no YAML: {error}") from None
    if found is None:
        return RulesFile()
    if not isinstance(found, dict):
        raise InvalidRules(f"expected sections ({', '.join(RulesFile.model_fields)}), got {_kind(found)}")
    try:
        return RulesFile.model_validate(found)
    except ValidationError as error:
        problems = [_sentence(detail) for detail in error.errors(include_url=False)]
        more = f"; and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        raise InvalidRules("; ".join(problems[:_MOST_NAMED]) + more) from None


class RuleBook:
    """Rules that may change under its readers. `rules` may be read by any thread; one thread looks."""

    def __init__(self, settings: RuleSettings) -> None:
        """Reads the file. Raises Halt where it is missing or wrong: there is no version before to serve."""
        self._file = WatchedFile(settings.file) if settings.file is not None else None
        self._look_seconds = settings.look_seconds
        self._stopped = threading.Event()
        self.rules: CompiledRules = NO_RULES
        #: Why the file as it is now is not what is served; None: it is.
        self.refused: str | None = None
        if self._file is not None:
            self.look()
            if self.refused is not None:
                raise Halt(f"SIMSTREAM_RULES__FILE: {self.refused}")

    def look(self) -> None:
        """Take a new version of the file, if there is one."""
        if self._file is None:
            return
        try:
            content = self._file.changed()
            if content is None:
                self._say(None if self._file_is_served else self.refused)
                return
            self._file_is_served = False
            self.rules = CompiledRules(parsed(content))
        except OSError as error:
            self._say(f"{self._file.path} cannot be read: {error.strerror}")
        except ValueError as error:
            self._say(f"{self._file.path}: {error}")
        else:
            self._file_is_served = True
            self._say(None)
            RULES_VERSIONS_TOTAL.labels("taken").inc()
            counts = " ".join(f"{name}={number}" for name, number in self.rules.counts().items() if number)
            log.info("rules_taken file=%s counts=%s", self._file.path, counts)

    #: Whether the last content that was read is what is served.
    _file_is_served = False

    def run(self) -> None:
        """Look again and again, until stopped."""
        while not self._stopped.wait(self._look_seconds):
            self.look()

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def _say(self, refused: str | None) -> None:
        """Remember why the file is not served; each reason is logged and counted once."""
        RULES_REFUSED.set(0 if refused is None else 1)
        if refused is not None and refused != self.refused:
            RULES_VERSIONS_TOTAL.labels("refused").inc()
            log.error("rules_refused reason=%s", refused)
        self.refused = refused


def _sentence(detail: Any) -> str:
    """`boosts[0].factor: ... (got 0.5)`; for an unknown field the nearest one that exists."""
    path = list(detail["loc"])
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if detail["type"] == "extra_forbidden":
        known = sorted(_known())
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        return f"{place}: is no field" + (f", did you mean {near[0]!r}?" if near else "")
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    got = f" (got {given!r})" if isinstance(given, str | int | float) else ""
    return f"{place or 'file'}: {message}{got}"


def _known() -> set[str]:
    models: tuple[type[BaseModel], ...] = (RulesFile, BarrierRule, BoostRule, Match)
    return {field.alias or name for model in models for name, field in model.model_fields.items()} | {
        "items",
        "words",
    }


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}"[:60]
