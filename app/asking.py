"""The running service, asked labelled queries: what it finds, and every dimension's exact scores for a fit.

Reads   the service's HTTP API
Writes  nothing
Never   asks twice for what it has; never guesses what the service weighs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, get_args
from urllib.parse import quote

import httpx
import numpy as np

from app.labels import Query
from schemas.api import Answer, DimensionName, Hit, ItemView
from schemas.errors import Transient
from schemas.vectors import IMAGE
from service.fitting import Question
from service.settings import ServiceSettings

#: Those that every collection has; pictures are weighed by hand.
DIMENSIONS: tuple[str, ...] = tuple(name for name in get_args(DimensionName) if name != IMAGE)
#: What the other dimensions weigh when one proposes the candidates: enough to be scored, too little to rank.
LEANING = 0.001
#: Candidates that each dimension proposes to a fit.
PROPOSED = 60
CLIENTS = 4
Given = TypeVar("Given")
Made = TypeVar("Made")


class Refused(Exception):
    """The service cannot answer one query (an unknown item, a shopper without history): 4xx."""


class Asker:
    """Asks one service. Thread-safe."""

    def __init__(
        self, client: httpx.Client, settings: ServiceSettings, options: Mapping[str, Any] | None = None
    ) -> None:
        self._client = client
        self._settings = settings
        #: Fields of every request: a preset, a filter.
        self._options = dict(options or {})

    def present_weights(self, query: Query) -> dict[str, float]:
        """What the service weighs for such a query when nobody says, by this process's settings."""
        settings = self._settings
        weights = settings.recommendation_weights if query.next_item else settings.weights
        return {str(name): weight for name, weight in weights.items()}

    def found(self, query: Query, *, limit: int, weights: Mapping[str, float] | None = None) -> list[str]:
        """Ids of the hits, best first. Raises Refused, Transient."""
        return [hit.item_id for hit in self.hits(query, limit=limit, weights=weights)]

    def hits(self, query: Query, *, limit: int, weights: Mapping[str, float] | None = None) -> Sequence[Hit]:
        """The hits, best first. Raises Refused, Transient."""
        body: dict[str, Any] = {**self._options, "limit": limit}
        if weights is not None:
            body["weights"] = dict(weights)
        if query.user is not None:
            return self._answer(
                "GET", f"/v1/users/{quote(query.user, safe='')}/recommendations", _short(body)
            )
        if query.item is not None:
            body["seeds"] = [{"item_id": query.item}]
            return self._answer("POST", "/v1/similar", body)
        # As recommendations do it: the last items, each one this much of the next newer one.
        recent = list(dict.fromkeys(reversed(query.history)))[: self._settings.recent_items]
        decay = self._settings.recent_decay
        body["seeds"] = [{"item_id": item, "weight": decay**age} for age, item in enumerate(recent)]
        if "preset" not in body:
            body.setdefault("weights", dict(self._settings.recommendation_weights))
        return self._answer("POST", "/v1/similar", body)

    def question(self, query: Query) -> Question:
        """The union of what each dimension proposes, with exact scores in all. Raises Refused, Transient."""
        union: dict[str, Hit] = {}
        evidence = dict.fromkeys(DIMENSIONS, 0.0)
        even = dict.fromkeys(DIMENSIONS, 1.0)
        for weights in [even, *({**dict.fromkeys(DIMENSIONS, LEANING), name: 1.0} for name in DIMENSIONS)]:
            for hit in self.hits(query, limit=PROPOSED, weights=weights):
                union.setdefault(hit.item_id, hit)
                for name, part in hit.dimensions.items():
                    evidence[name] = max(evidence[name], part.weight / weights[name])
        items = sorted(union)
        scores = np.full((len(items), len(DIMENSIONS)), np.nan)
        for row, item in enumerate(items):
            for column, name in enumerate(DIMENSIONS):
                if name in union[item].dimensions:
                    scores[row, column] = union[item].dimensions[name].score
        return Question(
            scores=scores,
            evidence=np.array([min(1.0, evidence[name]) for name in DIMENSIONS]),
            places=[row for row, item in enumerate(items) if item in query.relevant],
            relevant=len(query.relevant),
        )

    def release(self) -> str:
        """The release that answers. Raises Transient."""
        return str(self._request("GET", "/v1/release", None).json()["release_id"])

    def item(self, item_id: str) -> ItemView | None:
        """The item as the service shows it; None where it does not know it."""
        try:
            response = self._request("GET", f"/v1/items/{quote(item_id, safe='')}", None)
        except Refused:
            return None
        return ItemView.model_validate_json(response.content)

    def _answer(self, method: str, path: str, body: Mapping[str, Any]) -> Sequence[Hit]:
        return Answer.model_validate_json(self._request(method, path, body).content).items

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        given: dict[str, Any] = {"json": body} if method == "POST" else {"params": body}
        try:
            response = self._client.request(method, path, **given)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Transient(
                f"no service answers at {self._client.base_url} ({error}); "
                "start one with `simstream up`, or name it with --url"
            ) from error
        if response.is_success:
            return response
        detail = _detail(response)
        if response.status_code < 500:
            raise Refused(detail)
        raise Transient(f"{self._client.base_url} answered {response.status_code}: {detail}")


def each(work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made | Refused]:
    """`work` on each of many, several at a time, in order; of what was refused comes the refusal."""

    def one(what: Given) -> Made | Refused:
        try:
            return work(what)
        except Refused as refusal:
            return refusal

    with ThreadPoolExecutor(CLIENTS) as clients:
        yield from clients.map(one, given)


def _short(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as the parameters of a GET route."""
    parameters = {name: value for name, value in body.items() if name not in ("weights", "filter")}
    parameters.update(body.get("filter") or {})
    if "weights" in body:
        parameters["weights"] = ",".join(f"{name}:{weight}" for name, weight in body["weights"].items())
    return parameters


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
