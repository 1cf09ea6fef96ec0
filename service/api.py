"""The HTTP API, put together: routes, limits, keys; OpenAPI at /docs.

Reads   what its routes read
Writes  events that are posted, onto their topics
Never   blocks the event loop: every call to a store runs in a worker thread
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from fastapi.telemetry import TelemetryConfig
from prometheus_client import REGISTRY, CollectorRegistry

from adapters import tracing
from adapters.index_port import LIVE_ALIAS, VectorIndex
from schemas.behaviour import BehaviourReader
from schemas.items import Items
from schemas.opinions import OpinionReader
from schemas.relations import RelationReader
from schemas.reports import ReportBox
from schemas.topics import Topics
from service import insight_routes, problems, routes
from service.access import Access, Keyring
from service.catalogue import Catalogue
from service.docs_page import document
from service.middleware import ALWAYS, Admission, Bodies, Measured
from service.openapi import describe
from service.opinions import Opinions
from service.page import Page, explorer
from service.presets import PRESETS
from service.prices import Prices, PriceSettings
from service.publish_routes import publishing
from service.query import QueryEngine
from service.recommend import Recommender
from service.relations import Relations
from service.releases import Releases
from service.rulebook import RuleBook, RuleSettings
from service.settings import ServiceSettings
from service.sink import EventSink
from service.standing import Standing
from service.watch_routes import watching
from service.watching import Watched, Watching
from service.workers import Workers

#: For the document alone; service/access.py looks at the header before any route.
_BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="A key of `simstream keys new`.")


def _telemetry() -> TelemetryConfig:
    """The framework's own spans, one for each request, while tracing is on; nothing else of its telemetry."""
    provider = tracing.provider()
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "exclude": lambda scope: scope["path"] in ALWAYS,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def create_app(
    *,
    index: VectorIndex,
    store: Items,
    releases: Releases,
    settings: ServiceSettings,
    alias: str = LIVE_ALIAS,
    registry: CollectorRegistry = REGISTRY,
    behaviour: BehaviourReader | None = None,
    keyring: Keyring | None = None,
    sink: EventSink | None = None,
    topics: Topics | None = None,
    rules: RuleBook | None = None,
    prices: PriceSettings | None = None,
    relations: RelationReader | None = None,
    opinions: OpinionReader | None = None,
    reports: ReportBox | None = None,
    watched: Watched | None = None,
    notes: Callable[[], Mapping[str, str | None]] = dict,
) -> FastAPI:
    """The application. Everything it needs is handed in open; it closes nothing.

    `alias` names the live collection (namespace included). Requests beyond `settings.threads` at a time wait.
    With a `keyring` that is not empty nothing but health and the explorer's files answers without a key.
    Without `behaviour`, `relations`, `opinions`, `reports` or a `sink` the routes that need it answer 503,
    and without `behaviour` items show no counters. `watched` is what can be seen beyond the index, `notes`
    what else readiness should mention.
    """
    catalogue = Catalogue(
        index=index,
        store=store,
        releases=releases,
        alias=alias,
        behaviour=behaviour,
        rating_prior=settings.rating_prior,
    )
    book = rules if rules is not None else RuleBook(RuleSettings())
    standing = Standing(lambda: store.ping())
    engine = QueryEngine(
        catalogue=catalogue,
        settings=settings,
        rules=lambda: book.rules,
        relations=relations,
        relations_away=lambda: standing.known_away,
    )
    recommender = Recommender(
        catalogue=catalogue,
        engine=engine,
        behaviour=behaviour,
        settings=settings,
        rules=lambda: book.rules,
    )
    workers = Workers(settings.threads, answer_seconds=settings.answer_seconds)

    app = FastAPI(
        title="simstream",
        summary="Similar items that are never stale.",
        version="1",
        redirect_slashes=False,
        telemetry=_telemetry(),
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app, retry_after_seconds=settings.retry_after_seconds)
    page = Page(
        keys=bool(keyring),
        weights={"": settings.weights, **{name: preset.weights for name, preset in PRESETS.items()}},
        image_origins=settings.image_origins,
    )
    if keyring:
        app.add_middleware(Access, keyring=keyring, page=page.paths)
    app.add_middleware(Admission, most=settings.concurrent)
    app.add_middleware(Bodies, max_bytes=settings.max_body_bytes, read_seconds=settings.body_seconds)
    app.add_middleware(Measured)
    locked = [Security(_BEARER)] if keyring else []
    judge = Prices(catalogue=catalogue, service=settings, settings=prices)
    watched = watched or Watched()
    watch = Watching(catalogue=catalogue, registry=registry, watched=watched)
    app.include_router(explorer(page))
    app.include_router(document())
    related = Relations(catalogue=catalogue, reader=relations, alike=settings.alike, rules=lambda: book.rules)
    app.include_router(insight_routes.relations(related, workers, locked))
    heard = Opinions(catalogue=catalogue, reader=opinions)
    app.include_router(insight_routes.opinions(heard, workers, locked))
    app.include_router(insight_routes.reporting(reports, catalogue, workers, locked))
    app.include_router(routes.ranking(engine, catalogue, workers, standing, judge, locked))
    app.include_router(routes.shoppers(recommender, workers, locked))
    app.include_router(watching(watch, watched.feed, workers, locked))
    app.include_router(publishing(sink, topics or Topics.named(), locked))
    app.include_router(
        routes.operations(
            catalogue,
            workers,
            settings,
            registry,
            notes=lambda: {
                "broker": sink.away if sink is not None else None,
                **book.notes(),
                **notes(),
            },
            dependencies=locked,
        )
    )
    describe(app)
    return app
