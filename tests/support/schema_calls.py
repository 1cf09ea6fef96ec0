"""Calls made from the OpenAPI document, valid ones and wrong ones, and what came back.

Reads   the document of a running service
Writes  requests to it
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import (
    CheckFunction,
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

#: Routes that answer for as long as somebody listens.
WITHOUT_END = frozenset({"/v1/updates"})
#: What every answer has to keep of what the document promises.
CHECKS: tuple[CheckFunction, ...] = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


@dataclass
class Tally:
    """How often each route answered what. `missing` are the stores that 503s named, by route."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    missing: dict[str, set[str]] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """All calls."""
        return self.statuses.total()

    def note(self, route: str, response: Response) -> None:
        """One answer more."""
        self.statuses[route, response.status_code] += 1
        if response.status_code == 503:
            assert "retry-after" in response.headers
            stores = {error["store"] for error in response.json()["errors"]}
            assert stores, "a 503 without a reason"
            self.missing.setdefault(route, set()).update(stores)

    def count(self, *, least: int, most: int = 599) -> int:
        """Answers with a status from `least` to `most`."""
        return sum(count for (_, status), count in self.statuses.items() if least <= status <= most)

    def routes(self, status: int) -> set[str]:
        """The routes that gave this status."""
        return {route for route, given in self.statuses if given == status}


def call_all(
    address: str,
    document: dict[str, Any],
    *,
    per_operation: int,
    draw: int = 1,
    may_be_missing: bool = False,
    timeout_seconds: float = 60.0,
) -> Tally:
    """Call every operation of the document about `per_operation` times, half with valid data, half not.

    Fails on an answer that the document does not promise; on a 5xx too, unless stores `may_be_missing`: then
    only a 503 that names one passes.
    """
    tally = Tally()
    checks = CHECKS if may_be_missing else (not_a_server_error, *CHECKS)
    chosen = settings(
        max_examples=max(1, per_operation // 2),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    # A stream has no end that a caller could wait for: tests/service/test_watch_routes.py reads it.
    finite = {path: operations for path, operations in document["paths"].items() if path not in WITHOUT_END}
    for result in schemathesis.openapi.from_dict({**document, "paths": finite}).get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        route = f"{operation.method.upper()} {operation.path}"

        def one(case: Case[Any]) -> None:
            response = case.call(base_url=address, timeout=timeout_seconds)
            tally.note(route, response)  # noqa: B023  run within this turn of the loop
            case.validate_response(response, checks=list(checks))

        # Its examples first: what is drawn may all be refused.
        for strategy in operation.get_strategies_from_examples():
            seed(draw)(settings(chosen, max_examples=1)(given(case=strategy)(one)))()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
                continue  # nothing that could be wrong
            strategy = operation.as_strategy(generation_mode=mode)
            seed(draw)(chosen(given(case=strategy)(one)))()
    return tally
