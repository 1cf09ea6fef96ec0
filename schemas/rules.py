"""The shop's rules file as a model: what people decide about similarity, and no vector knows.

docs/rules.md explains each rule with an example; service/rules.py applies them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from schemas.api import Strict
from schemas.fields import LAST_YEAR, Id, Name

#: Boosts and bridges ask the index once more each, so that what they lift is among the candidates.
MAX_LIFTS = 50
Pair = Annotated[list[Id], Field(min_length=2, max_length=2)]
Categories = Annotated[list[Name], Field(min_length=2, max_length=2)]


def _real_day(value: date | datetime) -> date | datetime:
    """The day after it is reckoned with, and in every zone: the last year of the calendar has none."""
    if not 1 <= value.year <= LAST_YEAR:
        raise ValueError(f"expected a year between 1 and {LAST_YEAR}: without an end leave 'until' out")
    return value


Day = Annotated[date | datetime, AfterValidator(_real_day)]


class Rule(Strict):
    """What every rule may have: a name and a reason, shown in explanations, and the days it holds.

    `from` and `until` are days (UTC, both included) or times with a zone (`until` excluded).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    name: Name | None = None
    reason: Name | None = None
    begins: Day | None = Field(default=None, alias="from")
    until: Day | None = None

    @field_validator("begins", "until", mode="before")
    @classmethod
    def _a_moment(cls, value: object) -> object:
        """YAML reads days as dates. A time needs a zone, or it would mean another moment elsewhere."""
        if isinstance(value, str):
            try:
                value = date.fromisoformat(value)
            except ValueError:
                try:
                    value = datetime.fromisoformat(str(value))
                except ValueError:
                    raise ValueError("write a day, 2026-11-27, or a time, 2026-11-27T08:00:00Z") from None
        if isinstance(value, datetime) and value.tzinfo is None:
            raise ValueError("a time needs a zone: write 2026-11-27T08:00:00Z, or the day alone")
        return value

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.begins is not None and self.until is not None and _start(self.begins) >= _end(self.until):
            raise ValueError("'until' lies before 'from': the rule would never hold")
        return self

    def holds(self, now: datetime) -> bool:
        """Whether `now` lies within its days."""
        return (self.begins is None or _start(self.begins) <= now) and (
            self.until is None or now < _end(self.until)
        )


class PairRule(Rule):
    """Two items."""

    items: Pair

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.items[0] == self.items[1]:
            raise ValueError("'items' names one item twice: name the two that the rule is about")
        return self


class BarrierRule(Rule):
    """No item of the one category is a hit for an item of the other, in either direction."""

    between: Categories

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.between[0] == self.between[1]:
            raise ValueError("'between' names one category twice: name the two sides")
        return self


class BridgeRule(BarrierRule):
    """Items of the one category count as near to items of the other: their score times `factor`."""

    factor: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] = 1.5


class Match(Strict):
    """Which items a rule is about: those that meet every field given; a list is met by any of its values."""

    items: Annotated[list[Id], Field(max_length=1_000)] = []
    category: Annotated[list[Name], Field(max_length=100)] = []
    brand: Annotated[list[Name], Field(max_length=100)] = []
    attributes: Annotated[dict[Name, Annotated[list[Name], Field(max_length=100)]], Field(max_length=20)] = {}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.items or self.category or self.brand or any(self.attributes.values())):
            raise ValueError("name at least one of items, category, brand, attributes")
        return self


class BoostRule(Rule):
    """The score of what matches, times `factor`."""

    match: Match
    factor: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]

    @field_validator("factor")
    @classmethod
    def _up(cls, factor: float) -> float:
        if factor <= 1:
            raise ValueError("a boost multiplies by more than 1; below 1 it belongs under 'demotions'")
        return factor


class DemotionRule(Rule):
    """The same, downwards."""

    match: Match
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @field_validator("factor")
    @classmethod
    def _down(cls, factor: float) -> float:
        if factor >= 1:
            raise ValueError("a demotion multiplies by less than 1; above 1 it belongs under 'boosts'")
        return factor


class Blocked(Strict):
    """What is never shown: items, and items with one of these words in title, brand or attributes."""

    items: Annotated[list[Id], Field(max_length=100_000)] = []
    words: Annotated[list[Name], Field(max_length=1_000)] = []


class RulesFile(Strict):
    """The whole file."""

    #: Names of categories that mean the same.
    synonyms: Annotated[
        list[Annotated[list[Name], Field(min_length=2, max_length=100)]], Field(max_length=1_000)
    ] = []
    never_similar: Annotated[list[PairRule], Field(max_length=100_000)] = []
    always_similar: Annotated[list[PairRule], Field(max_length=100_000)] = []
    barriers: Annotated[list[BarrierRule], Field(max_length=1_000)] = []
    bridges: Annotated[list[BridgeRule], Field(max_length=1_000)] = []
    boosts: Annotated[list[BoostRule], Field(max_length=MAX_LIFTS)] = []
    demotions: Annotated[list[DemotionRule], Field(max_length=1_000)] = []
    blocked: Blocked = Blocked()

    @field_validator("synonyms")
    @classmethod
    def _one_group_each(cls, groups: list[list[str]]) -> list[list[str]]:
        seen: set[str] = set()
        for group in groups:
            if twice := seen & set(group):
                raise ValueError(f"{min(twice)!r} stands in two groups: make them one")
            seen |= set(group)
        return groups

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        never = {frozenset(rule.items) for rule in self.never_similar}
        for place, rule in enumerate(self.always_similar):
            if frozenset(rule.items) in never:
                raise ValueError(
                    f"always_similar[{place}] and never_similar both name {' and '.join(rule.items)}:"
                    " remove one of the two"
                )
        return self


def _start(day: Day) -> datetime:
    return day if isinstance(day, datetime) else datetime.combine(day, time(), UTC)


def _end(day: Day) -> datetime:
    return day if isinstance(day, datetime) else datetime.combine(day, time(), UTC) + timedelta(days=1)
