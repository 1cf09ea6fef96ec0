"""Prices planted into a synthetic shop: what a kind costs, packs that only look dear, and wrong ones.

Reads, writes  nothing; `Planted.save` and `load` keep the truth in a file, for whoever scores
Never          tells a product that its price was planted: what is true stands in the truth alone

A kind has one price; each of its products costs that, log-normal with sigma 0.25 (times `noise`). A fifth are
packs of several, priced accordingly and saying so in an attribute. A tenth are wrong: 1.8 to 4 times what the
kind costs, or as small a part of it. With `on_top` the factor comes on top of the product's own draw instead:
some wrong prices then lie where right ones do, and nobody could tell them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from random import Random

from producers.shop import Shop
from schemas.events import ProductUpserted

SIGMA = 0.25
OUTLIERS = 0.1
PACKS = 0.2
PACK_ATTRIBUTE = "pack size"
_PACK_SIZES = (2, 3, 4, 6, 10, 12)
#: Ten cost less than ten times one.
_PACK_EXPONENT = 0.95
_FACTOR = (1.8, 4.0)
#: Kinds whose own text speaks of amounts would have prices that contradict it.
_AMOUNTS = frozenset({"weight", "bottle", "pack", "set", "scope", "content", "volume", "pieces", "format"})


@dataclass(frozen=True, slots=True)
class Planted:
    """The truth. `outliers` have their factor, `packs` their size; `expected` is what each should cost."""

    outliers: Mapping[str, float]
    packs: Mapping[str, int]
    expected: Mapping[str, float]
    sigma: float

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load(path: Path) -> Planted:
    """What `save` wrote."""
    return Planted(**json.loads(path.read_text(encoding="utf-8")))


def priced(
    shop: Shop, *, noise: float = 1.0, kinds: int | None = None, levels: int = 2, on_top: bool = False
) -> tuple[list[ProductUpserted], Planted]:
    """Products of the first `kinds` kinds (None: all) with planted prices, and the truth about them.

    Categories keep their first `levels` levels, so that a shelf holds several kinds. The same shop has the
    same packs, outliers and draws at every noise.
    """
    nouns: dict[str, int] = {}
    for listing in shop.listings:
        kind = listing.design.kind
        if not _AMOUNTS & set(kind.choices):
            nouns.setdefault(kind.noun, len(nouns))
    outliers: dict[str, float] = {}
    packs: dict[str, int] = {}
    expected: dict[str, float] = {}
    products = []
    for listing, product in zip(shop.listings, shop.products(), strict=True):
        kind = listing.design.kind
        if kind.noun not in nouns or (kinds is not None and nouns[kind.noun] >= kinds):
            continue
        draw = Random(f"{shop.seed}:prices:{listing.index}")
        price = math.sqrt(kind.price[0] * kind.price[1])
        name = product.product_id
        pack = draw.choice(_PACK_SIZES) if draw.random() < PACKS else 1
        price *= pack**_PACK_EXPONENT
        expected[name] = price
        own = math.exp(draw.gauss(0.0, SIGMA) * noise)
        wrong, factor = draw.random() < OUTLIERS, draw.uniform(*_FACTOR) ** draw.choice((1, -1))
        if wrong:
            outliers[name] = factor
        price *= (factor * own if on_top else factor) if wrong else own
        attributes = dict(product.attributes)
        if pack > 1:
            packs[name] = pack
            attributes[PACK_ATTRIBUTE] = str(pack)
        changes = {
            "price": Decimal(str(round(max(price, 0.05), 2))),
            "attributes": attributes,
            "category": product.category[:levels],
        }
        products.append(product.model_copy(update=changes))
    return products, Planted(outliers, packs, expected, SIGMA * noise)


def precision_and_recall(found: Sequence[str], true: Mapping[str, object]) -> tuple[float, float]:
    """Of what was found, how much is true; of what is true, how much was found."""
    hit = sum(one in true for one in found)
    return (hit / len(found) if found else 1.0), (hit / len(true) if true else 1.0)
