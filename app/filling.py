"""A fresh collection, filled by this process: made, announced to, compared until it is what state asks for.

Reads   item state of one generation; hints
Writes  the collection, through the handler of embeddings; commits of its group; hints on the bulk lane
Never   writes a point itself, nor moves the alias

1. begin   the collection is made, which must be new, and its group starts at the ends of both lanes
2. write   embeddings runs here; what is announced from now on is written
3. equal   state and collection are walked, what differs is announced, until hardly anything does

A change before the committed ends has its state in Redis, where 3 finds it; one behind them is delivered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from adapters.index_port import VectorIndex, collection_name
from adapters.kafka import KafkaSettings, Publisher
from adapters.kafka_groups import GroupOffsets, remove_group
from adapters.kafka_reader import Partition
from adapters.kafka_spans import Span, behind, first_records, spans
from adapters.redis_items import ItemStore
from adapters.state_generation import group_suffix
from app.runners import embeddings_group, embeddings_runner, reconciler
from app.settings import Settings
from app.wiring import collection_spec, patiently
from consumers.reconcile import FREE_DELETES, FREE_DELETES_SHARE, Reconciled
from consumers.runner import Runner
from schemas.errors import Halt
from schemas.vectors import Encoder, TextRecipe

_LOOK_SECONDS = 0.2
#: While events arrive, some items are always on their way: so many looks, and few enough differ at the last.
_LOOKS = 5


class Working:
    """Runners on threads; `check` raises what one of them died of."""

    def __init__(self) -> None:
        self._runners: list[tuple[Runner[Any], threading.Thread]] = []
        self._failure: BaseException | None = None

    def start(self, runner: Runner[Any]) -> None:
        """Run it until `stop`."""

        def run() -> None:
            try:
                runner.run()
            except BaseException as error:  # noqa: BLE001  raised again by `check`
                self._failure = self._failure or error

        thread = threading.Thread(target=run, daemon=True)
        self._runners.append((runner, thread))
        thread.start()

    def check(self) -> None:
        """Raise what ended one of them."""
        if self._failure is not None:
            raise self._failure

    def until_read(
        self,
        kafka: KafkaSettings,
        commits: Callable[[], Mapping[Partition, int | None]],
        wanted: Mapping[Partition, Span],
    ) -> None:
        """Wait until all of it is committed.

        A transaction ends with a mark that nobody reads, so a commit may stand still below the end. Where all
        do, it is asked whether there is a record behind them.
        """
        before: Mapping[Partition, int] | None = None
        while True:
            self.check()
            left = patiently("kafka", lambda: behind(commits(), wanted))
            if left and left == before:
                still = patiently("kafka", lambda: first_records(kafka, left))  # noqa: B023  called at once
                left = {part: left[part] for part, at in still.items() if at is not None}
            if not left:
                return
            before = left
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """End all, after the work in hand, with their commits."""
        for runner, _ in self._runners:
            runner.stop()
        for _, thread in self._runners:
            thread.join(60.0)


class Filling:
    """One collection on its way. An encoder and its recipe are what encodes.

    `made`: whether this process has made the collection; nobody else's is ever removed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: ItemStore,
        index: VectorIndex,
        collection: str,
        encoder: Encoder,
        recipe: TextRecipe,
        publisher: Publisher,
        working: Working,
    ) -> None:
        self._settings = settings
        self._store = store
        self._index = index
        self._collection = collection
        self._encoder = encoder
        self._recipe = recipe
        self._publisher = publisher
        self._working = working
        topics = settings.named_topics()
        self._lanes = [topics.changed.name, topics.changed_bulk.name]
        self._group = embeddings_group(settings, collection)
        self.made = False

    def begin(self) -> None:
        """Make it. Raises Halt where there is one of that name, or somebody writes it."""
        if self._collection in self._index.collections():
            raise Halt(f"{self._collection} is there already: somebody else fills it")
        spec = collection_spec(self._settings, self._encoder.dimension)
        self.made = True
        self._index.ensure_collection(self._collection, spec)
        if not remove_group(self._settings.kafka, self._group):
            raise Halt(f"group {self._group} has members: somebody else fills {self._collection}")
        with GroupOffsets(self._settings.kafka, group=self._group, topics=self._lanes) as offsets:
            offsets.start_at_ends()

    def write(self) -> None:
        """Start embeddings. It stays when another generation takes over: that may be its own."""
        self._working.start(
            embeddings_runner(
                self._settings,
                store=self._store,
                publisher=self._publisher,
                index=self._index,
                collection=self._collection,
                encoder=self._encoder,
                recipe=self._recipe,
                stays=True,
            )
        )

    def equal(self) -> Reconciled:
        """Announce what differs until hardly anything does; the last look. Raises Halt if it does not end."""
        walk = reconciler(
            self._settings,
            store=self._store,
            publisher=self._publisher,
            index=self._index,
            collection=self._collection,
            recipe=self._recipe,
            weigh=True,
        )
        for _ in range(_LOOKS):
            # The first look finds every item missing, and announces it: that is what fills the collection.
            found = walk.run()
            if not found.announced:
                return found
            self.until_written()
        few = max(FREE_DELETES, int(FREE_DELETES_SHARE * found.items))
        if found.announced > few:
            raise Halt(
                f"{self._collection} does not become what the state asks for, and nothing was switched: "
                f"after {_LOOKS} looks {found}"
            )
        return found

    def until_written(self) -> None:
        """Wait until every hint of now has been served."""
        wanted = spans(self._settings.kafka, self._lanes)
        with GroupOffsets(self._settings.kafka, group=self._group, topics=self._lanes) as offsets:
            self._working.until_read(self._settings.kafka, offsets.commits, wanted)


def next_collection(release_id: str, taken: Iterable[str], *, generation: int, namespace: str = "") -> str:
    """The name of another collection of a release, beside those there are and those that are asked for.

    It ends in the generation that it is filled from, as `items__R__2-g3`: a generation is given out once, so
    nobody else comes to the same name in the hours until the collection is made.
    """
    stem = collection_name(release_id, 1, namespace=namespace).removesuffix("1")
    numbers = [name.removeprefix(stem).partition("-")[0] for name in taken if name.startswith(stem)]
    newest = max((int(number) for number in numbers if number.isdigit()), default=0)
    return collection_name(release_id, newest + 1, namespace=namespace) + group_suffix(generation)
