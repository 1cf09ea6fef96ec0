"""service/settings.py: the one default configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.vectors import IMAGE, VECTOR_DIMENSIONS
from service.settings import ServiceSettings


def test_the_default_weighs_every_dimension_that_points_have() -> None:
    # Pictures are off by default, and weigh nothing until a request or a setting says so.
    assert set(ServiceSettings().weights) == set(VECTOR_DIMENSIONS) - {IMAGE}


def test_weights_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="above 0"):
        ServiceSettings(weights={"content": 0.0, "lexical": -1.0})
