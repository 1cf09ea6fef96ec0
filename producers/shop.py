"""A seeded synthetic shop: products, reviews, shoppers, and a live stream of what changes.

Reads, writes  nothing: it yields events; app/commands/shop.py publishes them or writes them to a file
Never          asks the clock or a global random generator: seed and start are arguments

    shop = Shop(7, products=1_000)
    for product in shop.products(): ...      # the catalogue as it is at `start`
    for event in shop.stream(count=500): ... # what happens from then on
    shop.truth.near_duplicates               # what was planted, to measure against

The same arguments yield the same events, byte for byte, in every process.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import count as numbers
from random import Random

from producers.shop_assortment import Listing, Tastes, Truth, assortment, charming, truth
from producers.shop_reviews import review_text, review_title
from producers.shop_shoppers import Session, Shoppers, Step, stars_of
from producers.shop_writing import Writer
from schemas.events import ProductDeleted, ProductEvent, ProductUpserted, ReviewPosted, UserEvent

DEFAULT_START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
#: Visits that overlap in the live stream.
_SESSIONS_AT_ONCE = 40
_STREAM_STEP = timedelta(milliseconds=100)

Clock = Callable[[], datetime]
ShopEvent = ProductEvent | ReviewPosted | UserEvent


@dataclass(frozen=True, slots=True)
class Mix:
    """Relative frequencies of what happens in `Shop.stream`. Zero switches a thing off."""

    user_event: float = 86.0
    price: float = 6.0
    stock: float = 4.0
    title: float = 1.0
    review: float = 2.5
    delete: float = 0.3
    relist: float = 0.2


@dataclass(slots=True)
class _Live:
    """What has changed about a product since the catalogue was published."""

    price: Decimal
    in_stock: bool
    edition: int = 0
    deleted: bool = False


class Shop:
    """One shop. `start` is when its catalogue is published: history lies before it, the stream after it.

    `tastes`: what shoppers like is drawn for each design, or for each kind of product (`assortment`); then
    a visit is about one of a shopper's tastes.
    """

    def __init__(
        self,
        seed: int,
        *,
        products: int = 1_000,
        shoppers: int = 500,
        sessions_per_shopper: float = 6.0,
        reviews_per_product: float = 4.0,
        history_days: int = 30,
        start: datetime = DEFAULT_START,
        tastes: Tastes = "designs",
    ) -> None:
        for name, number in (("products", products), ("shoppers", shoppers), ("history_days", history_days)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1 (got {number})")
        if start.tzinfo is None:
            raise ValueError("start must carry a time zone, for example datetime(2026, 1, 5, tzinfo=UTC)")
        self.seed = seed
        self.start = start
        self._tastes = tastes
        self._product_count = products
        self._shopper_count = shoppers
        self._sessions = max(1, round(shoppers * sessions_per_shopper))
        self._reviews_per_product = reviews_per_product
        self._history = timedelta(days=history_days)
        self._writer = Writer(seed)

    @cached_property
    def listings(self) -> list[Listing]:
        """What is sold, before any text is written; one per product, in order."""
        return assortment(self.seed, self._product_count, tastes=self._tastes)

    @cached_property
    def truth(self) -> Truth:
        """What was planted: near-duplicate pairs, complements, taste groups."""
        return truth(self.listings)

    @cached_property
    def shoppers(self) -> Shoppers:
        """The customers."""
        return Shoppers(
            self.seed,
            self.listings,
            shoppers=self._shopper_count,
            one_taste_a_visit=self._tastes == "kinds",
        )

    def products(self) -> Iterator[ProductUpserted]:
        """The catalogue at `start`, each product once."""
        for listing in self.listings:
            yield self._writer.product(listing, self.start)

    def reviews(self) -> Iterator[ReviewPosted]:
        """Reviews written in the days before `start`, product by product."""
        for listing in self.listings:
            draw = Random(f"{self.seed}:reviews:{listing.index}")
            mean = self._reviews_per_product * min(3.0, 0.4 + listing.design.appeal / 4)
            wanted = min(60, int(draw.expovariate(1 / mean))) if mean > 0 else 0
            for number in range(wanted):
                ago = self._history * draw.random()
                yield self._review(draw, listing, number, self.start - ago)

    def _review(self, draw: Random, listing: Listing, number: int, when: datetime) -> ReviewPosted:
        design = listing.design
        stars = stars_of(draw, design)
        return ReviewPosted(
            review_id=f"r-{listing.product_id}-{number}",
            product_id=listing.product_id,
            user_id=self.shoppers.someone(draw).user_id,
            occurred_at=when,
            rating=stars,
            title=review_title(draw, stars),
            text=review_text(draw, stars, design.kind.parsed_aspects, design.strengths),
            helpful_votes=min(200, int(draw.expovariate(0.4))),
        )

    def events(self) -> Iterator[UserEvent]:
        """What shoppers did in the days before `start`, in the order of time."""
        waiting: list[tuple[datetime, int, Session, Step]] = []
        tie = numbers()
        opened = self.start - self._history
        for number in range(self._sessions):
            session_start = opened + self._history * (number / self._sessions)
            while waiting and waiting[0][0] <= session_start:
                yield _user_event(*heapq.heappop(waiting))
            session = self.shoppers.session(number)
            moment = session_start
            for step in session.steps:
                moment += timedelta(seconds=step.wait_seconds)
                if moment < self.start:
                    heapq.heappush(waiting, (moment, next(tie), session, step))
        while waiting:
            yield _user_event(*heapq.heappop(waiting))

    def stream(
        self, *, count: int | None = None, clock: Clock | None = None, mix: Mix | None = None
    ) -> Iterator[ShopEvent]:
        """What happens from `start` on: visits, prices, stock, titles, reviews, products that go and return.

        `count` None is endless. Times come from `clock`, or move 0.1 s per event; for one product they always
        grow, so that its revisions do. Ids never repeat those of `reviews` and `events`.
        """
        mix = mix or Mix()
        draw = Random(f"{self.seed}:stream")
        live: dict[int, _Live] = {}
        visits = _Visits(self.shoppers, draw)
        things = ("user_event", "price", "stock", "title", "review", "delete", "relist")
        weights = [float(getattr(mix, thing)) for thing in things]
        now = self.start
        emitted = 0
        while count is None or emitted < count:
            now = max(clock() if clock else now + _STREAM_STEP, now + timedelta(microseconds=1))
            thing = draw.choices(things, weights)[0]
            event: ShopEvent | None
            if thing == "user_event":
                event = visits.next(now)
            elif thing == "review":
                listing = draw.choice(self.listings)
                event = self._review(draw, listing, 1_000_000 + emitted, now)
            else:
                event = self._product_change(draw, thing, live, now)
            if event is None or _is_gone(event, live, self._index_of):
                continue
            yield event
            emitted += 1

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {listing.product_id: listing.index for listing in self.listings}

    def _product_change(
        self, draw: Random, thing: str, live: dict[int, _Live], now: datetime
    ) -> ProductEvent | None:
        """One change of a product, remembered in `live`; None where it does not apply to the one drawn."""
        listing = draw.choice(self.listings)
        if thing == "relist":
            gone = [index for index, state in live.items() if state.deleted]
            if not gone:
                return None
            listing = self.listings[draw.choice(gone)]
        state = live.get(listing.index)
        if state is None:
            first = self._writer.product(listing, self.start)
            state = live[listing.index] = _Live(price=listing.price, in_stock=bool(first.in_stock))
        if thing == "relist":
            state.deleted, state.in_stock = False, True
        elif state.deleted:
            return None
        elif thing == "price":
            state.price = charming(float(listing.price) * draw.uniform(0.75, 1.12))
        elif thing == "stock":
            state.in_stock = not state.in_stock
        elif thing == "title":
            state.edition += 1
        elif thing == "delete":
            state.deleted = True
            return ProductDeleted(product_id=listing.product_id, occurred_at=now)
        return self._writer.product(
            listing, now, price=state.price, in_stock=state.in_stock, edition=state.edition
        )


def _user_event(when: datetime, number: int, session: Session, step: Step) -> UserEvent:
    """One step as the event a shop would send. A rating's `value` is its stars, a purchase's the money."""
    value = step.listing.price * step.quantity if step.type == "purchase" else None
    return UserEvent(
        event_id=f"e{number:010d}",
        type=step.type,
        user_id=session.shopper.user_id,
        product_id=step.listing.product_id,
        occurred_at=when,
        session_id=session.session_id,
        quantity=step.quantity,
        value=Decimal(step.stars) if step.stars is not None else value,
        position=step.position,
        query=step.query,
    )


def _is_gone(event: ShopEvent, live: dict[int, _Live], index_of: dict[str, int]) -> bool:
    """Whether a shopper's event is about a product that has been taken out of the catalogue."""
    if isinstance(event, ProductUpserted | ProductDeleted):
        return False
    state = live.get(index_of[event.product_id])
    return state is not None and state.deleted


class _Visits:
    """Sessions that overlap: the next step of one of those under way."""

    def __init__(self, shoppers: Shoppers, draw: Random) -> None:
        self._shoppers = shoppers
        self._draw = draw
        self._session_numbers = numbers(1_000_000_000)
        self._event_numbers = numbers(5_000_000_000)
        self._under_way: list[tuple[Session, Iterator[Step]]] = []

    def next(self, now: datetime) -> UserEvent:
        while True:
            while len(self._under_way) < _SESSIONS_AT_ONCE:
                session = self._shoppers.session(next(self._session_numbers))
                self._under_way.append((session, iter(session.steps)))
            place = self._draw.randrange(len(self._under_way))
            session, steps = self._under_way[place]
            step = next(steps, None)
            if step is None:
                self._under_way.pop(place)
                continue
            return _user_event(now, next(self._event_numbers), session, step)
