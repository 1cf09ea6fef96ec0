"""One JSON document becomes an event, or an error that a producer's engineer can act on.

Reads, writes  nothing
Never          repeats in an error what a shopper wrote or who they are (`Frozen.private`)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NotRequired, Required, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict  # pydantic's own, until Python 3.12

from schemas.events import EVENT_MODELS, Frozen

Event = TypeVar("Event", bound=Frozen)


#: How many wrong fields an error names.
MAX_EXPLAINED = 5


class InvalidEvent(ValueError):
    """Not an event that this topic carries; the message names the field and what was expected."""


@cache
def _adapter(models: tuple[type[Frozen], ...]) -> TypeAdapter[Any]:
    if len(models) == 1:
        return TypeAdapter(models[0])
    union: Any = models[0]
    for model in models[1:]:
        union = union | model
    return TypeAdapter(Annotated[union, Field(discriminator="kind")])


def parse_event(body: bytes | str, *models: type[Event]) -> Event:
    """Parse one JSON document into the one of `models` that its `kind` names.

    Raises InvalidEvent, with one sentence per wrong field (at most five), each naming the field.
    """
    try:
        event: Event = _adapter(models).validate_json(body)
    except ValidationError as error:
        raise InvalidEvent(explain(error, *models)) from None
    return event


def fields_parser(model: type[Frozen]) -> Callable[[bytes], dict[str, Any]]:
    """`parse_event` of one model for those who parse a million: its fields as a dict, without an object each.

    Every field is checked by the model's own rules, and what they refuse is explained by the model. Optional
    fields that the document leaves out are left out.
    """
    rules: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        rule: Any = field.annotation
        for more in field.metadata:
            rule = Annotated[rule, more]
        rules[name] = Required[rule] if field.is_required() else NotRequired[rule]
    typed_dict: Any = TypedDict  # of fields that only the model knows
    lean = typed_dict(model.__name__, rules)
    lean.__pydantic_config__ = model.model_config
    validate = TypeAdapter(lean).validator.validate_json

    def parse(body: bytes) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = validate(body)
        except ValidationError:
            return parse_event(body, model).model_dump()
        return fields

    return parse


def explain(error: ValidationError, *models: type[Frozen]) -> str:
    """Say what is wrong in words a producer's engineer can act on, values shortened, at most five fields.

    `models` are what could have been meant; their kinds are named where the kind is missing, and the values
    of their private fields are left out.
    """
    sentences: dict[str, str] = {}
    details = error.errors(include_url=False)
    for detail in details:
        path = ".".join(str(part) for part in detail["loc"] if not _is_tag(part))
        if path not in sentences:
            sentences[path] = _sentence(path, detail, models)
    more = len(sentences) - MAX_EXPLAINED
    text = "; ".join(list(sentences.values())[:MAX_EXPLAINED])
    return text + (f"; and {more} more" if more > 0 else "")


def _sentence(path: str, detail: ErrorDetails, models: tuple[type[Frozen], ...]) -> str:
    where = f"field '{path}'" if path else "the message"
    if detail["type"] == "missing":
        return f"{where} is missing: it is required"
    if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
        kinds = ", ".join(repr(model.model_fields["kind"].default) for model in models)
        tag = detail.get("ctx", {}).get("tag")
        given = "is missing" if tag is None else f"is {_shortened(tag)}"
        return f"field 'kind' {given}: expected one of {kinds or 'the kinds this topic carries'}"
    message = detail["msg"].removeprefix("Value error, ")
    private = frozenset[str]().union(*(model.private for model in models))
    if path in private or (private and not path):
        return f"{where}: {message}"
    return f"{where}: {message} (got {_shortened(detail.get('input'))})"


def _shortened(value: Any) -> str:
    shown = repr(value[:80] if isinstance(value, str | bytes) else value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


_TAGS = frozenset(model.model_fields["kind"].default for model in EVENT_MODELS)


def _is_tag(part: int | str) -> bool:
    return part in _TAGS
