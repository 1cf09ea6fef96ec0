"""The consumer of price insights, put together: service/prices.py judges, the consumer announces.

Reads   settings
Writes  nothing itself
"""

from __future__ import annotations

from adapters.index_port import VectorIndex
from adapters.kafka import Publisher
from adapters.kafka_reader import GroupReader
from adapters.redis_client import connect
from adapters.redis_insights import PriceMarks
from adapters.redis_nodes import RedisNodes
from app.settings import Settings
from app.wiring import alias_of, client_id, live_state
from consumers.dead_letters import DeadLetters
from consumers.price_insights import PriceInsightsHandler
from consumers.runner import Runner
from schemas.events import ItemChanged
from service.catalogue import Catalogue
from service.prices import Prices
from service.releases import LoadedRelease, ReleaseNotLoaded


class NoReleases:
    """Prices are looked at without an encoder. Implements service.releases.Releases."""

    def loaded(self, release_id: str) -> LoadedRelease:
        """None is. Raises ReleaseNotLoaded."""
        raise ReleaseNotLoaded(release_id)


def insights_runner(
    settings: Settings, *, publisher: Publisher, index: VectorIndex, accept_poison: int = 0
) -> Runner[ItemChanged]:
    """The consumer, ready to run on an index that is open."""
    catalogue = Catalogue(
        index=index, store=live_state(settings), releases=NoReleases(), alias=alias_of(settings)
    )
    handler = PriceInsightsHandler(
        judge=Prices(catalogue=catalogue, service=settings.service, settings=settings.prices),
        marks=PriceMarks(nodes=RedisNodes(connect(settings.redis)), namespace=settings.namespace),
        publisher=publisher,
        topics=settings.named_topics(),
        settings=settings.insights,
    )
    return Runner(
        # Nobody waits for an insight as for a price.
        reader=GroupReader(
            settings.kafka.unhurried(),
            group=f"{settings.namespace}simstream-insights",
            client_id=client_id(settings, "insights"),
        ),
        handler=handler,
        dead_letters=DeadLetters(publisher=publisher),
        settings=settings.loop,
        accept_poison=accept_poison,
    )
