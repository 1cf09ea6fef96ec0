"""adapters/redis_insights.py: which items were last published as outliers."""

from __future__ import annotations

from adapters.redis_client import RedisSettings, connect
from adapters.redis_insights import PriceMarks
from adapters.redis_nodes import RedisNodes
from app.local import LocalRedis


def test_marks_are_set_and_taken_away_and_other_namespaces_have_their_own(
    redis_server: LocalRedis, namespace: str
) -> None:
    with connect(RedisSettings(url=redis_server.url)) as client:
        nodes = RedisNodes(client)
        marks, others = PriceMarks(nodes=nodes, namespace=namespace), PriceMarks(nodes=nodes, namespace="x.")
        assert marks.known([]) == {}
        for _ in range(2):
            marks.mark("a", outlier=True)
        marks.mark("b", outlier=True)
        marks.mark("never", outlier=False)
        marks.telling("d")
        assert marks.known(["a", "b", "c", "d"]) == {"a": True, "b": True, "c": False, "d": None}
        marks.mark("a", outlier=False)
        marks.mark("d", outlier=True)
        assert marks.known(["a", "b", "d"]) == {"a": False, "b": True, "d": True}
        assert others.known(["b"]) == {"b": False}
        assert marks.run_id() == nodes.run_id()
