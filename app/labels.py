"""Labelled rows of a file, as queries with their relevant items.

Two kinds, told by the columns, one kind a file:

    query_item, relevant_item            a pair of items; rows of one query_item are one query
    user_id, next_item                   what a shopper went for next: asked for as recommendations
    history, next_item                   the same, the shopper's items given, oldest first

`relevant_item`, `next_item` and `history` may be lists (JSON, Parquet) or ids separated by `|` (CSV). A row
with `label` 0 is no match and is passed over.

Reads   rows of producers/rows.py
Writes  nothing
Never   drops a row silently: each bad one is named by line and field
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from producers.rows import Row
from schemas.events import Frozen
from schemas.fields import Id

SEPARATOR = "|"
Ids = Annotated[list[Id], Field(min_length=1)]


class Label(Frozen):
    """One row. Raises ValidationError, each error naming its field."""

    query_item: Id | None = None
    user_id: Id | None = None
    history: Ids | None = None
    relevant_item: Ids | None = None
    next_item: Ids | None = None
    label: bool = True

    @field_validator("history", "relevant_item", "next_item", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(SEPARATOR) if part.strip()]
        return [str(value)] if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("query_item", "user_id", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Label:
        asks = [self.query_item is not None, self.user_id is not None or self.history is not None]
        if not any(asks):
            raise ValueError("needs query_item (with relevant_item), or user_id or history (with next_item)")
        if all(asks):
            raise ValueError("has query_item and user_id or history: a row asks one question")
        wanted = "relevant_item" if self.query_item is not None else "next_item"
        if getattr(self, wanted) is None:
            raise ValueError(f"{wanted} is missing")
        return self


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, and the items that answer it. `history` goes from the oldest to the newest."""

    relevant: frozenset[str]
    item: str | None = None
    user: str | None = None
    history: tuple[str, ...] = ()

    @property
    def next_item(self) -> bool:
        """Whether it asks what a shopper goes for next: then recommendations' weights are the defaults."""
        return self.item is None


@dataclass
class Labels:
    """The queries of a file, and what was wrong with its other rows, by line."""

    queries: list[Query] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rows: int = 0


_label: TypeAdapter[Label] = TypeAdapter(Label)


def labels_of(rows: Iterable[Row]) -> Labels:
    """Every query of these rows; pairs of one query_item are joined."""
    found = Labels()
    pairs: dict[str, set[str]] = {}
    kinds: set[str] = set()
    for row in rows:
        found.rows += 1
        values = row.values
        if values is None:
            found.problems.append(f"line {row.number}: {row.problem}")
            continue
        try:
            label = _label.validate_python(_given(values))
        except ValidationError as error:
            found.problems += [f"line {row.number}: {_said(each)}" for each in error.errors()]
            continue
        kinds.add("pairs" if label.query_item is not None else "next items")
        if len(kinds) > 1:
            found.problems.append(f"line {row.number}: pairs and next items in one file: split it in two")
            kinds.discard("pairs" if label.query_item is not None else "next items")
        elif not label.label:
            continue
        elif label.query_item is not None:
            pairs.setdefault(label.query_item, set()).update(label.relevant_item or ())
        else:
            history, wanted = tuple(label.history or ()), frozenset(label.next_item or ())
            user = label.user_id if not history else None
            found.queries.append(Query(wanted, user=user, history=history))
    for item, relevant in pairs.items():
        relevant.discard(item)
        if relevant:
            found.queries.append(Query(frozenset(relevant), item=item))
        else:
            found.problems.append(f"query_item {item!r}: its only relevant item is itself")
    return found


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The row without empty cells: CSV cannot say null."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _said(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
