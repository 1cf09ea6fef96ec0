"""The API's OpenAPI document without a service that runs: what the explorer's types are made from.

Reads   nothing but the code
Writes  nothing
"""

from __future__ import annotations

import json
from typing import Any, cast

from service.api import create_app
from service.settings import ServiceSettings


def document() -> str:
    """The document as JSON, the same text each time for the same code."""
    nothing = cast(Any, None)  # no route is called
    app = create_app(index=nothing, store=nothing, releases=nothing, settings=ServiceSettings())
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
