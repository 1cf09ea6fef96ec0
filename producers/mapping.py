"""A row of somebody's file becomes an event: columns to fields, defaults, and reasons that name the fix.

Reads, writes  nothing
Never          guesses a value: what does not fit is refused with its field, its column and what to do
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.events import Frozen, ProductDeleted, ProductUpserted, ReviewPosted, ReviewRemoved, UserEvent
from schemas.parsing import InvalidEvent, explain

ATTRIBUTE_PREFIX = "attributes."

Clock = Callable[[], datetime]
#: What to do about a wrong field, by the field's name; the error itself says what was expected.
_HINTS = {
    "price": "write it as 19.90, without currency sign or thousands separator",
    "value": "write it as 19.90, without currency sign or thousands separator",
    "currency": "write three capital letters, EUR for example; --set currency=EUR gives all rows the same",
    "occurred_at": "write 2026-11-24T08:00:00Z; --zone Europe/Berlin gives times without a zone theirs",
    "revision": "write a whole number that only grows, or leave it out: it then follows from occurred_at",
    "category": "write levels with a separator between them, and name it with --category-separator",
    "rating": "write a number from 0 to 5",
    "in_stock": "write true or false",
    "quantity": "write a whole number, 1 or more",
    "type": "write view, click, cart, purchase, share, rate or impression",
    "kind": "leave it out, or publish the row with the command for its topic",
}


@dataclass(frozen=True)
class Target:
    """What a command publishes: the events its topic carries, the one a row is unless it says otherwise."""

    name: str
    models: tuple[type[Frozen], ...]
    key: str

    @property
    def default_kind(self) -> str:
        """The `kind` of a row that names none."""
        return str(self.models[0].model_fields["kind"].default)

    @property
    def fields(self) -> frozenset[str]:
        """Every field of every event of the target."""
        return frozenset(name for model in self.models for name in model.model_fields)


TARGETS: Mapping[str, Target] = {
    "products": Target("products", (ProductUpserted, ProductDeleted), "product_id"),
    "reviews": Target("reviews", (ReviewPosted, ReviewRemoved), "product_id"),
    "events": Target("events", (UserEvent,), "user_id"),
}


class InvalidMapping(ValueError):
    """A mapping that names what does not exist; the message says what does."""


@dataclass(frozen=True)
class ColumnMapping:
    """How columns become fields.

    `columns` is field -> column (`attributes.colour` names one attribute), `constants` field -> value for all
    rows. A column that bears a field's name needs no entry. `rest_as_attributes` takes every column that is
    left over as an attribute.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    category_separator: str = ">"
    rest_as_attributes: bool = False
    zone: tzinfo | None = None


def mapping_of(
    target: Target,
    *,
    columns: Iterable[str] = (),
    constants: Iterable[str] = (),
    category_separator: str = ">",
    rest_as_attributes: bool = False,
    zone: tzinfo | None = None,
) -> ColumnMapping:
    """A mapping from `field=column` and `field=value` texts, as the command line gives them.

    Raises InvalidMapping naming a field that no event of the target has.
    """
    return ColumnMapping(
        columns=_pairs(target, columns, "--map", "COLUMN"),
        constants=_pairs(target, constants, "--set", "VALUE"),
        category_separator=category_separator,
        rest_as_attributes=rest_as_attributes,
        zone=zone,
    )


def _pairs(target: Target, texts: Iterable[str], option: str, what: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise InvalidMapping(f"{option} {text!r}: write FIELD={what}, for example {option} title=name")
        known = name in target.fields or (name.startswith(ATTRIBUTE_PREFIX) and "attributes" in target.fields)
        if not known:
            fields = ", ".join(sorted(target.fields))
            raise InvalidMapping(
                f"{option} {text!r}: {target.name} have no field {name!r}; they have {fields}"
            )
        if name in pairs:
            raise InvalidMapping(f"{option} gives {name!r} twice: {pairs[name]!r} and {value!r}; keep one")
        pairs[name] = value
    return pairs


class EventMaker:
    """Makes events of one target out of rows."""

    def __init__(self, target: Target, mapping: ColumnMapping, *, clock: Clock) -> None:
        self._target = target
        self._mapping = mapping
        self._clock = clock
        self._by_kind = {
            str(model.model_fields["kind"].default): TypeAdapter(model) for model in target.models
        }
        self._column_of = dict(mapping.columns)

    def event(self, values: Mapping[str, Any]) -> Frozen:
        """The event of one row. Raises InvalidEvent with field, column and fix."""
        try:
            return self._event(values)
        except RecursionError:
            raise InvalidEvent("nested too deeply: an event holds texts, numbers and flat lists") from None

    def _event(self, values: Mapping[str, Any]) -> Frozen:
        document = self._document(values)
        kind = str(document.get("kind", self._target.default_kind))
        adapter = self._by_kind.get(kind)
        if adapter is None:
            raise InvalidEvent(
                f"field 'kind' is {kind!r}: expected one of {', '.join(self._by_kind)}; {_HINTS['kind']}"
            )
        document["kind"] = kind
        document.setdefault("occurred_at", self._clock())
        try:
            event: Frozen = adapter.validate_python(document)
        except ValidationError as error:
            raise InvalidEvent(self._reason(error, values)) from None
        return event

    def _document(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Fields by name, from mapped columns, columns of the field's own name, constants, and the rest."""
        mapping = self._mapping
        used = set(mapping.columns.values())
        document: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        for name, column in mapping.columns.items():
            if column in values:
                self._put(document, attributes, name, values[column])
        for column, value in values.items():
            if column in used:
                continue
            named = column in self._target.fields or column.startswith(ATTRIBUTE_PREFIX)
            if named and column not in mapping.columns:
                self._put(document, attributes, column, value)
            elif mapping.rest_as_attributes and not named:
                self._put(document, attributes, ATTRIBUTE_PREFIX + column, value)
        given = document.get("attributes")
        held = {**given, **attributes} if isinstance(given, dict) else attributes
        for name, value in mapping.constants.items():
            known = held if name.startswith(ATTRIBUTE_PREFIX) else document
            if known.get(name.removeprefix(ATTRIBUTE_PREFIX)) is None:
                self._put(document, attributes, name, value)
        given = document.get("attributes")
        # What cannot be read as attributes stays, and is refused with its name.
        if attributes and (given is None or isinstance(given, dict)) and "attributes" in self._target.fields:
            document["attributes"] = {**(given or {}), **attributes}
        return document

    def _put(self, document: dict[str, Any], attributes: dict[str, Any], name: str, value: Any) -> None:
        plain = _plain(value)
        if plain is None:
            return
        if name.startswith(ATTRIBUTE_PREFIX):
            attributes[name.removeprefix(ATTRIBUTE_PREFIX)] = plain
        elif name == "category":
            document[name] = self._category(plain)
        elif name == "attributes":
            document[name] = _json_if_text(plain, "{")
        elif name == "revision":
            document[name] = _whole_number(plain)
        elif name == "occurred_at":
            document[name] = self._zoned(value, plain)
        else:
            document[name] = plain

    def _category(self, value: Any) -> Any:
        value = _json_if_text(value, "[")
        if not isinstance(value, str):
            return value
        parts = (part.strip() for part in value.split(self._mapping.category_separator))
        return [part for part in parts if part]

    def _zoned(self, value: Any, plain: Any) -> Any:
        """The time with the zone that was said to be meant, unless it has one or none was said."""
        zone = self._mapping.zone
        if zone is None:
            return plain
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(plain))
        except ValueError:
            return plain
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)

    def _reason(self, error: ValidationError, values: Mapping[str, Any]) -> str:
        """What `explain` says, then the column each field came from, then what to do about it."""
        advice: dict[str, str] = {}
        for detail in error.errors():
            name = str(detail["loc"][0]) if detail["loc"] else ""
            column = self._column_of.get(name)
            hints = []
            if column is not None and column not in values:
                columns = ", ".join(map(repr, list(values)[:20]))
                hints.append(
                    f"it is read from column '{column}', and there is none; the columns are {columns}"
                )
            elif column is not None:
                hints.append(f"it is read from column '{column}'")
            elif detail["type"] == "missing" and name not in values:
                hints.append(f"name its column with --map {name}=COLUMN")
            if detail["type"] == "missing" and (column or name) in values:
                hints.append("it is blank, which counts as missing")
            elif detail["type"] == "finite_number":
                hints.append("leave it out where it is unknown")
            elif detail["type"] != "missing" and name in _HINTS:
                hints.append(_HINTS[name])
            if hints:
                advice.setdefault(name, f"{name}: {', '.join(hints)}")
        return explain(error) + "".join(f"; {sentence}" for sentence in advice.values())


def _plain(value: Any) -> Any:
    """A value of any file format as the event models take it: scalars as text, nothing as None.

    Text keeps amounts exact and ids opaque: a column of whole numbers is an id as good as any.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, float):
        if not math.isfinite(value):
            return value  # refused by every field, with the field's name
        return str(int(value)) if value.is_integer() and math.fabs(value) < 2**53 else repr(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        if value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
            return {str(name): _plain(inner) for name, inner in value}  # a Parquet map
        return [plain for plain in (_plain(inner) for inner in value) if plain is not None]
    return str(value)


def _json_if_text(value: Any, opening: str) -> Any:
    """A cell that holds a JSON document, decoded; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith(opening):
        try:
            return json.loads(value, parse_float=str)
        except ValueError:
            return value
    return value


def _whole_number(value: Any) -> Any:
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value
