"""What the fields of events may be: ids, times, amounts, words. Used by events and by bodies of the API.

Reads, writes  nothing
Never          guesses: what is out of bounds is refused, null where leaving out says the same
"""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints, WithJsonSchema

MAX_REVISION = 2**53 - 1

#: An id is opaque: any characters but the empty string; at most 256 of them.
Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Name = Annotated[str, StringConstraints(max_length=500)]
Revision = Annotated[int, Field(ge=0, le=MAX_REVISION, strict=True)]
#: An exact amount of money. NaN and infinity are refused. A JSON number is a double: send a string where
#: more than 15 digits count.
Amount = Annotated[
    Decimal,
    Field(ge=0, max_digits=20, decimal_places=8, allow_inf_nan=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,8})?$"},
                {"type": "number", "minimum": 0},
            ],
            "examples": ["19.90"],
        },
        mode="validation",
    ),
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]

MAX_ATTRIBUTE_LENGTH = 2_000
#: The last year that a time may be in.
LAST_YEAR = 9998


def _real_time(value: datetime) -> datetime:
    """Placeholders such as year 1 cannot be converted between zones, and are never meant."""
    if not 1970 <= value.year <= LAST_YEAR:
        raise ValueError(f"expected a time between the years 1970 and {LAST_YEAR}, not a placeholder")
    return value


#: A time with a zone.
Moment = Annotated[AwareDatetime, AfterValidator(_real_time)]


def _attribute_word(value: Any) -> str:
    """Numbers and booleans become text; a shop's attributes are compared as words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number; leave the attribute out where it is unknown")
    if not isinstance(value, str | int | float | Decimal):
        raise ValueError("expected text, a number, true or false, or a list of these")
    word = str(value)
    if len(word) > MAX_ATTRIBUTE_LENGTH:
        raise ValueError(f"expected at most {MAX_ATTRIBUTE_LENGTH} characters, got {len(word)}")
    return word


def _attribute_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_attribute_word(inner) for inner in value if inner is not None]
    return _attribute_word(value)


def _known(value: Any) -> Any:
    """Attributes without those that are null; null itself is none at all."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {name: inner for name, inner in value.items() if inner is not None}
    return value


_Word = Annotated[str, Field(max_length=MAX_ATTRIBUTE_LENGTH)] | int | float | bool
AttributeValue = Annotated[
    str | list[str],
    BeforeValidator(_attribute_value, json_schema_input_type=_Word | list[_Word | None] | None),
]
_AttributeMap = Annotated[dict[Name, AttributeValue], Field(max_length=200)]
Attributes = Annotated[_AttributeMap, BeforeValidator(_known, json_schema_input_type=_AttributeMap | None)]


def _or(default: Any, wire: Any) -> BeforeValidator:
    """On the topic, null says the same as leaving an optional field out."""
    return BeforeValidator(
        lambda value: default() if value is None else value, json_schema_input_type=wire | None
    )


_CategoryList = Annotated[list[Name], Field(max_length=20)]
Category = Annotated[_CategoryList, _or(list, _CategoryList)]
_Quantity = Annotated[int, Field(ge=1, le=1_000_000)]
Quantity = Annotated[_Quantity, _or(lambda: 1, _Quantity)]
_Votes = Annotated[int, Field(ge=0, le=MAX_REVISION)]
Votes = Annotated[_Votes, _or(int, _Votes)]
