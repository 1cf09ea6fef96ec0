"""What one synthetic shop sells: designs, variants, other sellers' offers, accessories, and what is planted.

Reads, writes  nothing
Never          writes text: producers/shop_writing.py does, one product at a time

Everything follows from the seed by generators of its own (`Random("seed:what:number")`, whose seeding does
not depend on PYTHONHASHSEED), so that a larger shop of one seed starts with the smaller one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from itertools import count
from random import Random
from typing import Literal

from producers.shop_catalogue import (
    BY_NOUN,
    COMPLEMENTS,
    FITTING_NOUNS,
    KINDS,
    LINES,
    OWN_SELLER,
    SELLERS,
    brands_of,
)
from producers.shop_kinds import Kind

TASTE_GROUPS = 12
#: Variants that differ in amount differ in price: factor from one value of the axis to the next.
_PRICE_STEP = {
    "weight": 1.7,
    "bottle": 1.8,
    "pack": 1.7,
    "set": 1.6,
    "scope": 1.3,
    "diameter": 1.2,
    "content": 1.4,
    "volume": 1.5,
    "format": 1.2,
}
_ROMAN = ("II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
_ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MAIN_KINDS = tuple(kind for kind in KINDS if kind.noun not in FITTING_NOUNS)
_ACCESSORIES = {pair.host: pair for pair in COMPLEMENTS}


@dataclass(frozen=True, slots=True)
class Design:
    """One product as its maker knows it, before variants and sellers. `strengths` is by aspect, 0..1."""

    number: int
    kind: Kind
    brand: str
    line: str
    model: str
    specs: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    price: float
    taste: int
    appeal: float
    strengths: tuple[float, ...]
    host: Design | None = None
    fits: bool = False

    @property
    def quality(self) -> float:
        """0..1, the mean of its strengths: what the ratings settle around."""
        return sum(self.strengths) / len(self.strengths)

    @property
    def named(self) -> str:
        """Brand and model (or line): what an accessory says it fits."""
        return f"{self.brand} {self.model or self.line}"


@dataclass(frozen=True, slots=True)
class Listing:
    """One product of the catalogue: a variant of a design, offered by one seller."""

    index: int
    product_id: str
    design: Design
    variant: str
    seller: str
    group_id: str | None
    gtin: str | None
    price: Decimal

    @property
    def own(self) -> bool:
        """Whether the shop itself sells it, in its own words."""
        return self.seller == OWN_SELLER


@dataclass(frozen=True, slots=True)
class Truth:
    """What was planted, for whoever measures whether it is found again. Pairs are of product ids."""

    near_duplicates: tuple[tuple[str, str], ...]
    complements: tuple[tuple[str, str], ...]
    taste_of: dict[str, int]

    def taste_groups(self) -> dict[int, list[str]]:
        """Product ids by taste group."""
        groups: dict[int, list[str]] = {}
        for product_id, taste in self.taste_of.items():
            groups.setdefault(taste, []).append(product_id)
        return groups


def gtin13(payload: int) -> str:
    """A GTIN-13 in the range for use inside a shop (prefix 2), with its check digit. `payload` < 10**11."""
    digits = f"2{payload:011d}"
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


#: What a taste is drawn for: each design by itself, or all designs of a kind together.
Tastes = Literal["designs", "kinds"]


def assortment(seed: int, products: int, *, tastes: Tastes = "designs") -> list[Listing]:
    """The first `products` listings of the shop of this seed.

    With a taste for each design nothing but events says what is liked. With one for each kind, unlike kinds
    are liked together (tea and guitars): text says which kind a product is, and only events say which kinds
    go together, so it can be learned for products that nobody has seen yet.
    """
    ids = _Ids(seed)
    listings: list[Listing] = []
    for design in _designs(seed):
        if tastes == "kinds":
            design = replace(design, taste=_taste_of_kind(seed, design.kind.noun))
        for listing in _listings(seed, design, ids, len(listings)):
            listings.append(listing)
            if len(listings) >= products:
                return listings
    return listings


def truth(listings: list[Listing]) -> Truth:
    """What was planted among these listings. Offers of one variant by different sellers are duplicates,
    every offer of an accessory complements every offer of its host.
    """
    offers: dict[tuple[int, str], list[str]] = {}
    sold: dict[int, list[str]] = {}
    hosts: dict[int, int] = {}
    for listing in listings:
        design = listing.design
        offers.setdefault((design.number, listing.variant), []).append(listing.product_id)
        sold.setdefault(design.number, []).append(listing.product_id)
        if design.host is not None:
            hosts[design.number] = design.host.number
    return Truth(
        near_duplicates=tuple(
            (first, second)
            for same in offers.values()
            for place, first in enumerate(same)
            for second in same[place + 1 :]
        ),
        complements=tuple(
            (host, accessory)
            for number, host_number in hosts.items()
            for host in sold.get(host_number, ())
            for accessory in sold.get(number, ())
        ),
        taste_of={listing.product_id: listing.design.taste for listing in listings},
    )


@lru_cache(maxsize=4 * len(KINDS))
def _taste_of_kind(seed: int, noun: str) -> int:
    """Dealt like cards, so that the groups are as large as each other."""
    nouns = sorted(kind.noun for kind in KINDS)
    Random(f"{seed}:tastes").shuffle(nouns)
    return nouns.index(noun) % TASTE_GROUPS


class _Ids:
    """Opaque ids and GTINs: a bijection of the running number, shifted by the seed, so none repeats."""

    def __init__(self, seed: int) -> None:
        offset = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big")
        self._offset = offset

    def product(self, index: int) -> str:
        number = (index * 0x5DEECE66D + self._offset) % 2**40
        return "S" + "".join(_ID_ALPHABET[(number >> shift) & 31] for shift in range(35, -1, -5))

    def gtin(self, number: int) -> str:
        return gtin13((number * 7_654_321_897 + self._offset) % 10**11)


def _designs(seed: int) -> Iterator[Design]:
    """Designs without end: every kind once a round, in a new order, each followed by its accessory."""
    numbers = count()
    for round_number in count():
        order = list(_MAIN_KINDS)
        Random(f"{seed}:round:{round_number}").shuffle(order)
        for kind in order:
            design = _design(seed, next(numbers), kind, round_number)
            yield design
            pair = _ACCESSORIES.get(kind.noun)
            if pair is not None and Random(f"{seed}:accessory:{design.number}").random() < 0.75:
                accessory = BY_NOUN[pair.accessory]
                yield _design(seed, next(numbers), accessory, round_number, host=design, fits=pair.fits)


def _design(
    seed: int, number: int, kind: Kind, round_number: int, *, host: Design | None = None, fits: bool = False
) -> Design:
    draw = Random(f"{seed}:design:{number}")
    brands = brands_of(kind)
    brand = draw.choice(brands)
    if host is not None and fits and draw.random() < 0.6:
        brand = host.brand
    places = []
    specs = []
    for name, values in kind.choices.items():
        if name == kind.axis:
            continue
        place = draw.randrange(len(values))
        specs.append((name, values[place]))
        places.append(place / max(1, len(values) - 1))
    dear = sum(places) / len(places) if places else draw.random()
    standing = brands.index(brand) / (len(brands) - 1) if brand in brands else 0.5
    low, high = kind.price
    position = min(1.0, max(0.0, 0.5 * dear + 0.38 * standing + draw.uniform(0, 0.12)))
    features = list(kind.parsed_features)
    draw.shuffle(features)
    quality = min(0.95, max(0.05, draw.gauss(0.62, 0.17)))
    return Design(
        number=number,
        kind=kind,
        brand=brand,
        line=_line(seed, kind, round_number, accessory=host is not None),
        model=_model(draw, kind, brand),
        specs=tuple(specs),
        features=tuple(features),
        price=low * (high / low) ** position,
        taste=draw.randrange(TASTE_GROUPS),
        appeal=draw.paretovariate(1.1),
        strengths=tuple(min(1.0, max(0.0, draw.gauss(quality, 0.22))) for _ in kind.parsed_aspects),
        host=host,
        fits=fits,
    )


@lru_cache(maxsize=4 * len(KINDS))
def _line_names(seed: int, noun: str) -> tuple[str, ...]:
    """Every line name of a kind, in this shop's order."""
    kind = BY_NOUN[noun]
    if kind.names is None:
        names = list(LINES)
    else:
        pattern, first, second = kind.names
        names = [pattern.format(a=a, b=b) for a in first.split("|") for b in second.split("|")]
    Random(f"{seed}:lines:{noun}").shuffle(names)
    return tuple(names)


def _line(seed: int, kind: Kind, round_number: int, *, accessory: bool) -> str:
    """Names are dealt, not drawn: only when all of a kind's are used do they come again, as II, III, ..."""
    names = _line_names(seed, kind.noun)
    place = round_number + (len(names) // 2 if accessory else 0)
    name, mark = names[place % len(names)], round_number // len(names) + 1
    return name if mark == 1 else f"{name} {_ROMAN[mark - 2] if mark - 2 < len(_ROMAN) else mark}"


def _model(draw: Random, kind: Kind, brand: str) -> str:
    """`B-##0` drawn for Brimwick: `BR-740`. The first B is the brand; a number never starts with a zero."""
    text = ""
    for place, char in enumerate(kind.model):
        if char == "B" and place == 0:
            text += "".join(letter for letter in brand.upper() if letter.isalpha())[:2]
        elif char == "#":
            text += str(draw.randrange(0 if text[-1:].isdigit() else 1, 10))
        else:
            text += char
    return text


def _listings(seed: int, design: Design, ids: _Ids, first_index: int) -> Iterator[Listing]:
    """The shop's own variants of a design, each followed by other sellers' offers of it, if any."""
    draw = Random(f"{seed}:listings:{design.number}")
    values = design.kind.choices[design.kind.axis]
    variants = draw.sample(values, min(len(values), draw.choice((1, 1, 1, 2, 2, 3))))
    group_id = f"G{ids.product(design.number)[1:]}" if len(variants) > 1 else None
    index = first_index
    for place, variant in enumerate(variants):
        gtin = ids.gtin(design.number * 8 + place)
        own_price = charming(design.price * _amount(design.kind, variant))
        others = draw.sample(SELLERS[1:], draw.choice((0, 0, 0, 0, 0, 0, 1, 1, 1, 2)))
        for seller in (OWN_SELLER, *others):
            own = seller == OWN_SELLER
            yield Listing(
                index=index,
                product_id=ids.product(index),
                design=design,
                variant=variant,
                seller=seller,
                group_id=group_id if own else None,
                gtin=gtin if own or draw.random() < 0.5 else None,
                price=own_price if own else charming(float(own_price) * draw.uniform(0.88, 1.1)),
            )
            index += 1


def _amount(kind: Kind, variant: str) -> float:
    """What a variant costs compared with the middle one of its axis."""
    values = kind.choices[kind.axis]
    step = _PRICE_STEP.get(kind.axis, 1.0)
    return math.pow(step, values.index(variant) - (len(values) - 1) / 2)


def charming(price: float) -> Decimal:
    """The nearest price a shop would print: 4.49, 17.95, 128.90, 1249.00."""
    if price < 10:
        return Decimal(max(1, round(price * 2))) / 2 - Decimal("0.01")
    if price < 100:
        return Decimal(round(price)) - Decimal("0.05")
    if price < 500:
        return Decimal(round(price)) - Decimal("1.00") + Decimal("0.90")
    return Decimal(round(price / 10) * 10 - 1).quantize(Decimal("0.01"))
