"""The doctor's checks of the index, the live release, and releases on their way.

Reads   the alias, the releases folder, records of the rollout
Writes  nothing
Never   opens a collection: an embedded one has an owner
"""

from __future__ import annotations

from collections.abc import Iterator

from adapters.index import open_index
from adapters.index_port import VectorIndex, release_of
from adapters.index_server import ServerIndex
from adapters.redis_rollouts import ROLLOUT_LEASE
from adapters.releases import ReleaseStore
from app.doctor import Finding
from app.settings import Settings
from app.wiring import alias_of, open_board
from schemas.rollouts import RolloutState


def index_alias(settings: Settings) -> Iterator[Finding]:
    """The index: version, and what the alias says is live."""
    index = open_index(settings.qdrant)
    try:
        if isinstance(index, ServerIndex):
            index.check_version()
        yield from _alias(settings, index)
    finally:
        index.close()


def _alias(settings: Settings, index: VectorIndex) -> Iterator[Finding]:
    alias = alias_of(settings)
    live = index.resolve(alias)
    if live is None:
        yield Finding(
            "index",
            "fault",
            alias,
            "nothing is live: there is no such alias",
            "`simstream consume embeddings` makes the first collection; an index that was lost whole is "
            "filled from item state by it and `simstream reconcile`",
        )
    elif live not in index.collections():
        yield Finding(
            "index",
            "fault",
            alias,
            f"it points at {live}, which does not exist",
            "restore the index, or remove the alias and start `simstream consume embeddings`",
        )


def live_collection(settings: Settings) -> str | None:
    """What the alias names; None where it names nothing."""
    index = open_index(settings.qdrant)
    try:
        return index.resolve(alias_of(settings))
    finally:
        index.close()


def live_release(settings: Settings) -> Iterator[Finding]:
    """The release of the live collection: that it is there, whole and unaltered."""
    live = live_collection(settings)
    if live is None:
        return
    store = ReleaseStore(settings.releases)
    try:
        store.fetch(release_of(live))
    except ValueError as error:
        yield Finding(
            "releases",
            "fault",
            release_of(live),
            str(error),
            "restore its folder from a backup; processes that have it loaded go on, others cannot start",
        )


def rollouts(settings: Settings) -> Iterator[Finding]:
    """Records of releases: equal to the alias, on their way, and encoders that instances have not loaded."""
    board, index = open_board(settings), open_index(settings.qdrant)
    try:
        live = index.resolve(alias_of(settings))
    finally:
        index.close()
    records = board.all()
    said = [one.collection for one in records if one.state is RolloutState.LIVE]
    holder = board.holder(ROLLOUT_LEASE)
    if live is not None and records and said != [live] and holder is None:
        yield Finding(
            "rollouts",
            "fault",
            live,
            f"the alias says it is live, the records say {', '.join(said) or 'nothing'}",
            "the alias counts; `simstream consume embeddings` (or `simstream up`) sets the records right",
        )
    for one in records:
        if not one.wanted or one.pruned:
            continue
        if holder is None:
            yield Finding(
                "rollouts",
                "fault",
                one.collection,
                f"{one.release_id} is asked for and nobody works on it",
                "start `simstream consume embeddings` (or `simstream up`)",
            )
        elif one.reason:
            yield Finding(
                "rollouts",
                "warning",
                one.collection,
                f"{one.state.value}: {one.reason}",
                "docs/operations.md",
            )
    if live is not None:
        release = release_of(live)
        without = sorted(name for name, loaded in board.instances().items() if release not in loaded)
        if without:
            yield Finding(
                "rollouts",
                "warning",
                ", ".join(without),
                f"the encoder of {release} is not loaded there: it answers from the collection before",
                "wait some seconds; then look for `release_not_loaded` in its log",
            )
