"""Which aspects reviewers are listened to for: names with phrases that praise and phrases that complain.

Reads   one YAML file: the setting's, or the one beside this module
Writes  nothing
Never   knows a shop: an aspect is found by what its phrases mean, in whatever words a review says it
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from schemas.events import Frozen
from schemas.parsing import explain

DEFAULT_FILE = Path(__file__).with_name("aspects.yaml")
MOST_ASPECTS = 200
MOST_BYTES = 1_000_000

AspectName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9 _-]{0,63}$")]
Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class Aspect(Frozen):
    """What praise and complaint about one aspect sound like."""

    good: Annotated[list[Phrase], Field(min_length=1, max_length=50)]
    bad: Annotated[list[Phrase], Field(min_length=1, max_length=50)]


Aspects = Annotated[dict[AspectName, Aspect], Field(min_length=1, max_length=MOST_ASPECTS)]
_aspects: TypeAdapter[dict[str, Aspect]] = TypeAdapter(Aspects)


class InvalidAspects(ValueError):
    """A file of aspects that cannot be used; the message names the file and what is wrong."""


def read_aspects(path: Path | None) -> dict[str, Aspect]:
    """The aspects of a file; None: those that come along. Raises InvalidAspects."""
    path = path or DEFAULT_FILE
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InvalidAspects(f"{path} cannot be read: {error.strerror}") from error
    if len(body) > MOST_BYTES:
        raise InvalidAspects(f"{path} has {len(body)} bytes, more than {MOST_BYTES}")
    try:
        return _aspects.validate_python(yaml.safe_load(body))
    except yaml.YAMLError as error:
        raise InvalidAspects(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        raise InvalidAspects(
            f"{path}: expected aspect -> {{good: [phrases], bad: [phrases]}}: {explain(error)}"
        ) from None
