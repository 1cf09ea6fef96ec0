"""Shoppers with tastes that no text shows, and what they do in a session.

Reads, writes  nothing
Never          looks at titles or descriptions: taste groups cut across departments

A session follows from its number alone: `Random("seed:session:number")`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random

from producers.shop_assortment import TASTE_GROUPS, Design, Listing
from schemas.events import UserEventType

#: How often a shopper's next look is at something of their taste; otherwise at whatever is popular.
TASTE_SHARE = 0.75
#: Of looks by taste, or of visits, those by the main one of a shopper's two tastes.
_MAIN_SHARE = 0.75
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Shopper:
    """One account. `tastes` are a main and a side taste group."""

    user_id: str
    tastes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done in a session, `wait_seconds` after the step before. `stars` where it is a rating."""

    type: UserEventType
    listing: Listing
    wait_seconds: float
    quantity: int = 1
    position: int | None = None
    query: str | None = None
    stars: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What one shopper did in one visit, in order."""

    session_id: str
    shopper: Shopper
    steps: tuple[Step, ...]


class _Weighted:
    """Listings to draw from, popular ones more often."""

    def __init__(self, listings: Sequence[Listing]) -> None:
        self._listings = listings
        self._cumulative = list(accumulate(listing.design.appeal for listing in listings))

    def __bool__(self) -> bool:
        return bool(self._listings)

    def draw(self, draw: Random) -> Listing:
        return draw.choices(self._listings, cum_weights=self._cumulative)[0]


class Shoppers:
    """The customers of one shop.

    `one_taste_a_visit`: what is looked at by taste in a visit is all of one taste, not a bit of both.
    """

    def __init__(
        self, seed: int, listings: Sequence[Listing], *, shoppers: int, one_taste_a_visit: bool = False
    ) -> None:
        self._seed = seed
        self._one_taste = one_taste_a_visit
        self._count = shoppers
        self._all = _Weighted(listings)
        self._by_taste = [
            _Weighted([listing for listing in listings if listing.design.taste == taste])
            for taste in range(TASTE_GROUPS)
        ]
        by_kind: dict[str, list[Listing]] = {}
        accessories: dict[int, list[Listing]] = {}
        for listing in listings:
            by_kind.setdefault(listing.design.kind.noun, []).append(listing)
            if listing.design.host is not None:
                accessories.setdefault(listing.design.host.number, []).append(listing)
        self._by_kind = by_kind
        self._accessories = accessories

    def shopper(self, number: int) -> Shopper:
        """The shopper of this number, 0 <= number < shoppers."""
        draw = Random(f"{self._seed}:shopper:{number}")
        main = draw.randrange(TASTE_GROUPS)
        side = draw.randrange(TASTE_GROUPS)
        return Shopper(user_id=f"u{number:06d}", tastes=(main, side))

    def someone(self, draw: Random) -> Shopper:
        """A shopper; low numbers are the loyal ones and come more often."""
        return self.shopper(int(self._count * draw.random() ** 1.7))

    def session(self, number: int) -> Session:
        """The session of this number."""
        draw = Random(f"{self._seed}:session:{number}")
        shopper = self.someone(draw)
        today = shopper
        if self._one_taste:
            taste = shopper.tastes[0 if draw.random() < _MAIN_SHARE else 1]
            today = replace(shopper, tastes=(taste, taste))
        return Session(session_id=f"s{number:08d}", shopper=shopper, steps=tuple(self._steps(draw, today)))

    def _wanted(self, draw: Random, shopper: Shopper) -> Listing:
        chance = draw.random()
        if chance < TASTE_SHARE:
            taste = shopper.tastes[0] if chance < _MAIN_SHARE * TASTE_SHARE else shopper.tastes[1]
            group = self._by_taste[taste]
            if group:
                return group.draw(draw)
        return self._all.draw(draw)

    def _steps(self, draw: Random, shopper: Shopper) -> Iterator[Step]:
        target = self._wanted(draw, shopper)
        if draw.random() < 0.3:
            yield from self._search(draw, target)
        for look in range(1 + min(8, int(draw.expovariate(0.35)))):
            if look:
                # Now and then an alternative of the same kind is compared; mostly taste leads elsewhere.
                same = self._by_kind[target.design.kind.noun]
                target = draw.choice(same) if draw.random() < 0.15 else self._wanted(draw, shopper)
            yield Step("view", target, draw.expovariate(1 / 45))
            if draw.random() < 0.02:
                yield Step("share", target, draw.expovariate(1 / 20))
            if draw.random() < 0.28:
                yield Step("cart", target, draw.expovariate(1 / 30))
                if draw.random() < 0.6:
                    yield from self._buys(draw, target)

    def _search(self, draw: Random, target: Listing) -> Iterator[Step]:
        query = target.design.kind.noun
        same = self._by_kind[query]
        shown = draw.sample(same, min(len(same), draw.randrange(2, 6)))
        if target not in shown:
            shown[draw.randrange(len(shown))] = target
        for position, listing in enumerate(shown):
            yield Step("impression", listing, 0.0, position=position, query=query)
        clicked = shown.index(target)
        yield Step("click", target, draw.expovariate(1 / 8), position=clicked, query=query)

    def _buys(self, draw: Random, target: Listing) -> Iterator[Step]:
        cheap = target.price < 20
        yield Step(
            "purchase",
            target,
            draw.expovariate(1 / 90),
            quantity=draw.choice((1, 1, 1, 2, 3)) if cheap else 1,
        )
        accessories = self._accessories.get(target.design.number)
        if accessories and draw.random() < 0.6:
            accessory = draw.choice(accessories)
            yield Step("view", accessory, draw.expovariate(1 / 20))
            yield Step("purchase", accessory, draw.expovariate(1 / 60))
        if draw.random() < 0.2:
            yield Step(
                "rate",
                target,
                _DAY_SECONDS * draw.uniform(0.5, 2),
                stars=stars_of(draw, target.design),
            )


def stars_of(draw: Random, design: Design) -> int:
    """How one buyer rates a design, 1 to 5: around its quality."""
    return max(1, min(5, round(draw.gauss(2.1 + 3.0 * design.quality, 1.1))))
