"""Opinions planted into a synthetic shop's reviews: which aspects of an item please, and which do not.

Reads, writes  nothing; `Planted.save` and `load` keep the truth in a file, for whoever scores
Never          tells a review what was planted: what is true stands in the truth alone

An item has a few aspects, each good or bad. A review mentions some of them and agrees with the truth, but for
a part (`CONTRARY` times `noise`) that says the opposite. Its stars follow from what it says, blurred by
`noise`; its opening and closing follow from the stars. An opinion is said outright ("The bass is superb.") or
by what happened (producers/shop_reviews.py: "The battery is flat by lunchtime."), and sometimes two opposed
ones stand in one sentence. Nouns, judgements, frames and such sentences are in two halves that share none:
`seen` items speak in one, all others in the other. Most reviews also say something about a further aspect,
which is in no truth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from producers.shop import DEFAULT_START, Shop
from producers.shop_reviews import ASPECTS, review_around
from schemas.events import ReviewPosted

CONTRARY = 0.1
_STARS_SIGMA = 0.6
#: In reviews that people have annotated, about a quarter of the opinions are told without a word that judges.
_OUTRIGHT = 0.75
_OPPOSED = 0.3
_ASIDE = 0.7
_ASPECTS_OF_ITEM = (3, 5)
_MENTIONED = (1, 3)
#: So many outright opinions of each aspect, pole and half are drawn; reviews repeat them.
_BANK = 12

Pole = int
#: aspect -> nouns of the seen half, of the other half, and whose sentences of the shop's reviews it shares.
_NOUNS: dict[str, tuple[str, str, str]] = {
    "noise": ("noise level|motor noise", "sound it makes while running|running noise", "noise"),
    "battery": (
        "battery|battery life",
        "rechargeable battery|battery runtime",
        "battery charging_speed",
    ),
    "fit": ("fit|sizing", "way it fits|cut and size", "fit size"),
    "comfort": ("comfort|wearing comfort", "feel over long hours|level of comfort", "comfort"),
    "durability": (
        "durability|lifespan",
        "resistance to wear|long-term durability",
        "durability reliability",
    ),
    "looks": ("look|design", "appearance|colour in real life", "looks colour"),
    "smell": ("smell|scent", "odour|fragrance", "smell"),
    "taste": ("taste|flavour", "aftertaste|taste in the mouth", "taste"),
    "cleaning": ("cleaning|way it washes off", "clean-up|cleaning afterwards", "cleaning cleaning_power"),
    "setup": ("setup|assembly", "installation|manual for putting it together", "setup assembly instructions"),
    "sound": ("sound quality|sound of the speakers", "audio|bass and treble", "sound"),
    "delivery": ("delivery|shipping", "parcel service|packing of the parcel", "delivery"),
    "value": ("price|value for money", "cost|price-performance ratio", "value"),
    "picture": ("picture|picture quality", "image quality|photo quality", "camera display picture"),
}
#: (good, bad) of the seen half, then of the other.
_JUDGEMENTS = (
    (
        "great|excellent|very good|perfect|lovely|impressive|better than I had hoped",
        "terrible|poor|bad|disappointing|awful|useless|worse than I had feared",
    ),
    (
        "superb|fantastic|outstanding|first-rate|a pleasure|brilliant|wonderful",
        "dreadful|horrible|lousy|miserable|a let-down|unacceptable|pathetic",
    ),
)
_FRAMES = (
    "The {noun} is {judged}.|For me the {noun} is {judged}.|{noun}: {judged}.",
    "I would call the {noun} {judged}.|Honestly, the {noun} turned out {judged}.|And the {noun}? {judged}!",
)


_TOLD = {name for *_, told in _NOUNS.values() for name in told.split()}
#: What a review may say besides, which is in no truth.
ASIDES = sorted(set(ASPECTS) - _TOLD)


class Opinion(NamedTuple):
    """One opinion as a review says it."""

    text: str
    aspect: str
    pole: Pole


@dataclass(frozen=True, slots=True)
class Planted:
    """The truth: for each item what is good (1) and bad (-1) about it, and each opinion as it was said."""

    items: Mapping[str, Mapping[str, Pole]]
    said: Mapping[str, Sequence[Opinion]]

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load(path: Path) -> Planted:
    """What `save` wrote."""
    read = json.loads(path.read_text(encoding="utf-8"))
    return Planted(
        read["items"], {one: [Opinion(*row) for row in rows] for one, rows in read["said"].items()}
    )


def opinionated(
    shop: Shop, *, items: Sequence[str], seen: bool, reviews: int = 8, noise: float = 1.0
) -> tuple[list[ReviewPosted], Planted]:
    """About `reviews` reviews of each of the items, in the words of one half, and the truth."""
    bank = _bank(shop.seed, seen)
    written: list[ReviewPosted] = []
    truth: dict[str, dict[str, Pole]] = {}
    said: dict[str, list[Opinion]] = {}
    for product_id in items:
        draw = Random(f"{shop.seed}:opinions:{product_id}:{seen}")
        aspects = draw.sample(sorted(_NOUNS), draw.randint(*_ASPECTS_OF_ITEM))
        truth[product_id] = {aspect: draw.choice((1, -1)) for aspect in aspects}
        aside = ASPECTS[draw.choice(ASIDES)][draw.randrange(2)].split("|")
        for number in range(reviews):
            mentioned = draw.sample(aspects, draw.randint(*_MENTIONED))
            opinions = []
            for aspect in mentioned:
                contrary = draw.random() < CONTRARY * noise
                pole = -truth[product_id][aspect] if contrary else truth[product_id][aspect]
                said_how = bank[aspect, pole][draw.random() >= _OUTRIGHT]
                opinions.append(Opinion(draw.choice(said_how), aspect, pole))
            pleased = sum(one.pole > 0 for one in opinions) / len(opinions)
            stars = min(5, max(1, round(1 + 4 * pleased + draw.gauss(0, _STARS_SIGMA * noise))))
            review_id = f"o-{product_id}-{number}"
            said[review_id] = opinions
            sentences = _joined(draw, opinions)
            if draw.random() < _ASIDE:
                sentences.append(draw.choice(aside))
            title, text = review_around(draw, stars, sentences)
            written.append(
                ReviewPosted(
                    review_id=review_id,
                    product_id=product_id,
                    occurred_at=DEFAULT_START,
                    rating=stars,
                    title=title,
                    text=text,
                )
            )
    return written, Planted(truth, said)


def _bank(seed: int, seen: bool) -> dict[tuple[str, Pole], tuple[list[str], list[str]]]:
    """What can be said, by aspect and pole: outright, and by what happened."""
    draw = Random(f"{seed}:opinions:{seen}")
    half = 0 if seen else 1
    found = {}
    for aspect, (*nouns, told) in _NOUNS.items():
        for place, pole in enumerate((1, -1)):
            outright = [
                _capital(
                    draw.choice(_FRAMES[half].split("|")).format(
                        noun=draw.choice(nouns[half].split("|")),
                        judged=draw.choice(_JUDGEMENTS[half][place].split("|")),
                    )
                )
                for _ in range(_BANK)
            ]
            happened = [
                sentence
                for name in told.split()
                for number, sentence in enumerate(ASPECTS[name][place].split("|"))
                if number % 2 == half
            ]
            found[aspect, pole] = outright, happened
    return found


def _joined(draw: Random, opinions: Sequence[Opinion]) -> list[str]:
    """The opinions as sentences; two neighbours that disagree may become one."""
    sentences: list[str] = []
    for place, opinion in enumerate(opinions):
        before = opinions[place - 1] if place else None
        if before is not None and before.pole != opinion.pole and draw.random() < _OPPOSED:
            own = (
                opinion.text if opinion.text.startswith("I ") else opinion.text[0].lower() + opinion.text[1:]
            )
            sentences[-1] = f"{sentences[-1].rstrip('.!')}, but {own}"
        else:
            sentences.append(opinion.text)
    return sentences


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
