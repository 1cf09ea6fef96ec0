"""The rules in force: those of the file as it last was right, read again when it changes.

Reads   the rules file
Writes  nothing; says in log, metrics and readiness when a version of the file was refused
Never   serves a version that is wrong anywhere, and never drops the rules it has because the next are wrong
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from adapters.metrics import RULES_REFUSED, RULES_VERSIONS_TOTAL
from schemas.events import Frozen
from schemas.rules import BarrierRule, BoostRule, Match, RulesFile
from service.reloaded import Reloaded
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

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, InvalidRules):
            raise
        except Exception:
            if not isinstance(node, yaml.ScalarNode):
                raise
            line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
            raise InvalidRules(f"line {line}: {node.value[:60]!r} is no {kind}") from None

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
    except InvalidRules:
        raise
    except Exception as error:  # noqa: BLE001  PyYAML raises whatever its constructors run into
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


class RuleBook(Reloaded[CompiledRules]):
    """Rules that may change under their readers."""

    holds = "rules"

    def __init__(self, settings: RuleSettings) -> None:
        """Reads the file. Raises Halt where it is missing or wrong: there is no version before to serve."""
        super().__init__(
            settings.file,
            setting="SIMSTREAM_RULES__FILE",
            nothing=NO_RULES,
            look_seconds=settings.look_seconds,
        )

    @property
    def rules(self) -> CompiledRules:
        """Those in force."""
        return self.value

    def parsed(self, content: bytes) -> CompiledRules:
        """A version, checked as a whole."""
        return CompiledRules(parsed(content))

    def taken(self, path: Path, before: CompiledRules) -> None:
        """Say which rules hold from now on."""
        RULES_VERSIONS_TOTAL.labels("taken").inc()
        counts = " ".join(f"{name}={number}" for name, number in self.value.counts().items() if number)
        log.info("rules_taken file=%s counts=%s", path, counts)

    def standing(self, refused: str | None, *, new: bool) -> None:
        """Say whether the file is what is served; each reason is logged and counted once."""
        RULES_REFUSED.set(0 if refused is None else 1)
        if new:
            RULES_VERSIONS_TOTAL.labels("refused").inc()
            log.error("rules_refused reason=%s", refused)


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
