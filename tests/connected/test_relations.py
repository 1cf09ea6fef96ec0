"""From events on a broker to relations that the service reads: the archive, a miner's process, Redis."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from adapters.kafka import Publisher
from app.local import LocalRedis
from app.relations import ScheduledMiner
from app.settings import Settings, load_settings
from app.wiring import make_topics, open_relations
from schemas.events import UserEvent
from tests.support.draining import quick_settings
from tests.support.servers import Broker

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PATIENCE_SECONDS = 60.0


def publish(settings: Settings) -> None:
    """200 shoppers buy two of twenty things each; forty of them a lamp and its bulb."""
    draw = np.random.default_rng(1)
    publisher = Publisher(settings.kafka)
    for shopper in range(200):
        bought = [f"i{number}" for number in draw.choice(20, 2, replace=False)]
        if shopper % 5 == 0:
            bought += ["lamp", "bulb"]
        for step, item in enumerate(bought):
            event = UserEvent(
                event_id=f"{shopper}-{step}",
                type="purchase",
                user_id=f"u{shopper}",
                product_id=item,
                occurred_at=NOW + timedelta(hours=shopper, seconds=step),
            )
            topic = settings.named_topics().events.name
            publisher.send(topic, key=event.user_id, value=event.model_dump_json().encode())
    assert publisher.flush(30.0) == 0
    publisher.close()


def test_events_become_relations_by_a_miner_in_a_process_of_its_own(
    broker: Broker, redis_server: LocalRedis, namespace: str, tmp_path: Path
) -> None:
    base = load_settings(
        {
            "SIMSTREAM_NAMESPACE": namespace,
            "SIMSTREAM_REDIS__URL": redis_server.url,
            "SIMSTREAM_ARCHIVE__FOLDER": str(tmp_path / "archive"),
            "SIMSTREAM_RELATIONS__EVERY_MINUTES": "0.001",
        }
    )
    settings = base.model_copy(update={"kafka": quick_settings(broker)})
    make_topics(settings)
    publish(settings)
    store, miner = open_relations(settings), ScheduledMiner(settings)
    thread = threading.Thread(target=miner.run)
    thread.start()
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while (found := store.of("lamp")).mined is None:
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        miner.stop()
        thread.join(30)
    assert not thread.is_alive()
    (partner,) = found.mined.partners
    assert partner.item_id == "bulb"
    assert partner.bought is not None
    assert partner.bought.together == 40
    assert partner.later == 1.0
