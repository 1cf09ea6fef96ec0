"""`simstream rebuild --from-log`: state and index made anew from the topics, while the old ones serve.

Reads   catalog.products, catalog.reviews, user.events from their oldest record; user.erasures before them
Writes  a new generation of the state and a new collection; in the end the pointer and the alias
Never   announces before the log's end, nor touches the live state, nor switches to what it has not verified,
        nor retires what went live meanwhile, nor removes a collection that it has not made

1. replay   the consumers as they always run, in groups of their own, into the new generation; silent
2. compare  every item of the live state is there
3. fill     a fresh collection (app/filling.py); from here on the new consumers' hints are published
4. switch   the pointer, then the alias: from the replay on both states and both collections are kept current,
            so whichever pair a query meets in between, it is answered, and rightly

Consumers of the old generation stop when they see the pointer, and go on with the new one when they are
started again, from what the rebuild's members of their groups have committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from adapters.index_port import VectorIndex, release_of
from adapters.kafka import Publisher
from adapters.kafka_groups import GroupOffsets, remove_group
from adapters.kafka_reader import Partition
from adapters.kafka_spans import Span, first_records, spans
from adapters.redis_items import ItemStore
from app.filling import Filling, Working, next_collection
from app.runners import STATE_CONSUMERS, state_group, state_runner
from app.settings import Settings
from app.wiring import alias_of, open_board, open_generations, open_store, patiently
from consumers.reconcile import FREE_DELETES, FREE_DELETES_SHARE
from consumers.replay import GatedPublisher, KnownDeadLetters
from schemas.errors import Halt
from schemas.vectors import Encoder, TextRecipe

Say = Callable[[str], None]

#: What was dead-lettered once is no news: the replay is not stopped by a bad deploy of the past.
_ANY_POISON = 1 << 60
_PAGE = 500


@dataclass(slots=True)
class Rebuilt:
    """What came of it. `since`: from when on a topic counts whose beginning retention has removed."""

    generation: int
    collection: str
    items: int = 0
    missing: int = 0
    resurrected: int = 0
    passed: dict[str, int] = field(default_factory=dict)
    since: dict[str, datetime | None] = field(default_factory=dict)

    def sentences(self) -> Iterator[str]:
        """The report."""
        yield f"generation {self.generation} and collection {self.collection} are live: {self.items} items"
        for topic, since in self.since.items():
            begins = f"begins at {since.isoformat()}" if since is not None else "holds nothing any more"
            yield f"{topic} {begins}: retention has removed what was before, and totals count since then"
        for topic, count in self.passed.items():
            yield f"{count} records of {topic} were dead-lettered before, and are as dead now"
        if self.missing:
            yield f"{self.missing} items of the old state are not on the topics any more, and are gone"
        if self.resurrected:
            yield (
                f"{self.resurrected} items that were deleted are back: their null tombstones have left "
                "catalog.products, and an older record of theirs has not. Delete them again (product_deleted "
                "records stay), and look whether the topic was given more partitions"
            )


class FromLog:
    """One rebuild. The encoder and the recipe are those of the live collection's release."""

    def __init__(
        self,
        settings: Settings,
        *,
        index: VectorIndex,
        release_id: str,
        encoder: Encoder,
        recipe: TextRecipe,
        publisher: Publisher,
        say: Say = lambda sentence: None,
    ) -> None:
        self._settings = settings
        self._index = index
        self._release_id = release_id
        self._encoder = encoder
        self._recipe = recipe
        self._publisher = publisher
        self._say = say
        self._generations = open_generations(settings)
        self._topics = settings.named_topics()
        #: Which topic each consumer of state reads.
        self._inputs = {
            "products": self._topics.products.name,
            "reviews": self._topics.reviews.name,
            "behaviour": self._topics.events.name,
        }
        self._working = Working()

    def run(self, *, accept_missing: int = 0) -> Rebuilt:
        """Rebuild and switch. Raises Halt, and switches nothing, where what it made is not whole."""
        old, began = open_store(self._settings), self._live()
        generation = self._generations.make()
        asked_for = [one.collection for one in open_board(self._settings).all()]
        collection = next_collection(
            self._release_id,
            [*self._index.collections(), *asked_for],
            generation=generation,
            namespace=self._settings.namespace,
        )
        done = Rebuilt(generation, collection)
        self._say(f"generation {generation} of the state beside generation {old.generation}; {collection}")
        new = open_store(self._settings, generation)
        filling = Filling(
            self._settings,
            store=new,
            index=self._index,
            collection=collection,
            encoder=self._encoder,
            recipe=self._recipe,
            publisher=self._publisher,
            working=self._working,
        )
        with self._left_clean(filling, collection):
            gate = self._replay(old.generation, done)
            self._compare(old, new, done, accept_missing=accept_missing)
            filling.begin()
            # What is announced from here on is behind its commits; what was written before, its walk finds.
            gate.open()
            filling.write()
            self._say(f"filling {collection}")
            done.items = filling.equal().items
            self._until_read(generation, self._reach())
            filling.until_written()
            self._refuse_moved(began)
            # The pointer first: should we end here, whoever writes the old collection writes it from the new
            # state, and nothing is stale.
            patiently("redis", lambda: self._generations.take_over(generation))
            patiently("qdrant", lambda: self._index.set_alias(alias_of(self._settings), collection))
        return done

    def _live(self) -> str | None:
        """The collection behind the alias."""
        return patiently("qdrant", lambda: self._index.resolve(alias_of(self._settings)))

    def _refuse_moved(self, began: str | None) -> None:
        """Raises Halt where the alias is no longer on the collection that the rebuild began with."""
        live = self._live()
        if live != began:
            release = f"release {release_of(live)} ({live})" if live is not None else "nothing"
            raise Halt(
                f"{release} went live meanwhile, in place of {began}: nothing was switched. Run it again, "
                "and it rebuilds what is live by then"
            )

    @contextmanager
    def _left_clean(self, filling: Filling, collection: str) -> Iterator[None]:
        """In the end nothing of this runs. After a failure the collection that was made here is removed.

        The state stays, for whoever wants to know what was wrong with it: `remove_retired`.
        """
        try:
            yield
        except BaseException:
            self._working.stop()
            # The switch may have failed after it had moved the alias; nobody else moves it to this one.
            if filling.made and self._index.resolve(alias_of(self._settings)) != collection:
                self._index.drop_collection(collection)
            raise
        self._working.stop()

    def _replay(self, old: int, done: Rebuilt) -> GatedPublisher:
        settings = self._settings
        wanted = self._reach()
        done.since = self._since(wanted)
        gate = GatedPublisher(self._publisher)
        with self._commits(old) as commits:
            letters = KnownDeadLetters(publisher=self._publisher, known=commits())
        for consumer in STATE_CONSUMERS:
            group = state_group(settings, consumer, done.generation)
            # Redis may have been lost with its numbers: what such a group committed was about another state.
            if not remove_group(settings.kafka, group):
                raise Halt(f"group {group} has members: another rebuild, or a process of its generation")
            runner = state_runner(
                consumer,
                settings,
                publisher=gate,
                generation=done.generation,
                dead_letters=letters,
                accept_poison=_ANY_POISON,
            )
            self._working.start(runner)
        records = sum(span.end - span.start for span in wanted.values())
        self._say(f"replaying {records} records")
        self._until_read(done.generation, wanted)
        done.passed = dict(letters.passed)
        return gate

    def _reach(self) -> dict[Partition, Span]:
        """How far the topics reach now."""
        return spans(self._settings.kafka, list(self._inputs.values()))

    def _since(self, wanted: Mapping[Partition, Span]) -> dict[str, datetime | None]:
        """By topic whose beginning has gone: from when on all of its partitions are there."""
        cut = {part: span.start for part, span in wanted.items() if span.start > 0}
        found: dict[str, datetime | None] = {}
        for part, at in first_records(self._settings.kafka, cut).items() if cut else ():
            since = datetime.fromtimestamp(at / 1000, tz=UTC) if at is not None else None
            known = found.setdefault(part.topic, since)
            if since is not None and (known is None or since > known):
                found[part.topic] = since
        return found

    @contextmanager
    def _commits(self, generation: int) -> Iterator[Callable[[], dict[Partition, int | None]]]:
        """Asks how far the consumers of a generation have come."""
        with ExitStack() as opened:
            groups = [
                opened.enter_context(
                    GroupOffsets(
                        self._settings.kafka,
                        group=state_group(self._settings, consumer, generation),
                        topics=[topic],
                    )
                )
                for consumer, topic in self._inputs.items()
            ]
            yield lambda: {part: at for group in groups for part, at in group.commits().items()}

    def _until_read(self, generation: int, wanted: Mapping[Partition, Span]) -> None:
        """Wait until the groups of a generation have committed all of this."""
        with self._commits(generation) as commits:
            self._working.until_read(self._settings.kafka, commits, wanted)

    def _compare(self, old: ItemStore, new: ItemStore, done: Rebuilt, *, accept_missing: int) -> None:
        """Raises Halt where the topics no longer hold what the live state does."""
        live, done.missing, done.resurrected = compared(old, new)
        allowed = max(FREE_DELETES, int(FREE_DELETES_SHARE * live), accept_missing)
        if done.missing > allowed:
            raise Halt(
                f"{done.missing} of {live} items are not on {self._inputs['products']} any more: the rebuild "
                "would lose them, and nothing was switched. If they really are to go, run it again with "
                f"--accept-missing {done.missing}"
            )


def remove_retired(settings: Settings) -> int:
    """Remove the state of every generation but the live one, and its groups; how many keys.

    Raises Halt where somebody still works on one: a rebuild, or a consumer that nobody has started again.
    """
    generations, removed = open_generations(settings), 0
    for number in generations.retired():
        for consumer in STATE_CONSUMERS:
            group = state_group(settings, consumer, number)
            if not remove_group(settings.kafka, group):
                raise Halt(f"group {group} has members, so generation {number} of the state is not removed")
        removed += generations.drop(number)
    return removed


def compared(old: ItemStore, new: ItemStore) -> tuple[int, int, int]:
    """How many items live in the old state, how many of them not in the new one, and how many came back."""
    live, missing = _only_in(old, new)
    _, resurrected = _only_in(new, old, known=True)
    return live, missing, resurrected


def _only_in(here: ItemStore, there: ItemStore, *, known: bool = False) -> tuple[int, int]:
    """Live items here, and how many of them are not live there; `known`: but are known there as deleted."""
    ids = iter(dict.fromkeys(one for page in here.scan_ids() for one in page))
    live = apart = 0
    while page := list(islice(ids, _PAGE)):
        alive = [one for one, state in here.read(page).items() if not state.deleted]
        others = there.read(alive)
        live += len(alive)
        for one in alive:
            other = others.get(one)
            apart += (other is not None and other.deleted) if known else (other is None or other.deleted)
    return live, apart
