"""Turns a listing into the product a shop would publish: title, description, attributes, image.

Reads, writes  nothing
Never          shares a generator: the text of a listing follows from its index and edition alone
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from random import Random

from producers.shop_assortment import Listing
from schemas.events import ProductUpserted

CURRENCY = "EUR"
MIN_WORDS, MAX_WORDS = 30, 80

#: {the} is "The Brimwick Alder BR-740", {name} the same inside a sentence, {verb:is|are} agrees with it.
_OPENINGS = (
    "{The} {is} {a_noun} for {use}.",
    "{The} {is} made with {use} in mind.",
    "Our buyers chose {the} for {use}.",
    "With {first} and {second}, {the} {suits} {use}.",
    "New in our range: {the}, {a_noun} for {use}.",
    "{A_noun} by {brand} for {use}: {first}, {second} and no nonsense.",
    "Looking for {a_noun} for {use}? {The} {brings} {first}.",
    "{The} {comes} with {first}, which matters for {use}.",
)
_FITTING_OPENINGS = (
    "Made for the {host}.",
    "{A_noun} for the {host}, checked for fit.",
    "Fits the {host} without fiddling.",
)
_SPECS = ("In short: {specs}.", "{Specs}.", "Key figures: {specs}.", "Details: {specs}.")
_OTHER_OPENINGS = (
    "{A_noun}, {brand} {label}. Features {first}, {second} and {third}.",
    "{brand} {label}, {variant}. Highlights: {first}; {second}; {third}.",
    "We offer {a_noun} by {brand} ({label}) with {first}, {second}, {third}.",
    "{brand} {label}: {first}, {second}. Also {third}.",
)
_OTHER_CLOSINGS = (
    "Original box, sent within one working day.",
    "Sold by a small shop with a counter you can visit.",
    "Invoice with VAT, returns for thirty days.",
    "Never used, box slightly marked.",
    "Combined postage if you order twice.",
    "Stock in our own warehouse, questions answered by people.",
)
_CLOSINGS: dict[str, tuple[str, ...]] = {
    "": (
        "Guaranteed for two years.",
        "Guaranteed for three years, spare parts for ten.",
        "Delivered ready to use.",
        "Tested in our own workshop before we listed it.",
        "Returns are free for thirty days.",
    ),
    "Clothing": (
        "Our model is 1.80 m tall and wears a medium.",
        "Made in small runs in Portugal.",
        "Wash inside out and dry flat.",
        "Free alterations in the first month.",
    ),
    "Grocery": (
        "Best kept cool, dry and dark.",
        "Vegan, and packed where it is made.",
        "May contain traces of nuts.",
        "Best before: at least six months after delivery.",
    ),
    "Books": (
        "Signed copies while they last.",
        "Printed on paper from certified forests.",
        "Translated into eleven languages.",
        "Also recommended by our own booksellers.",
    ),
    "Beauty & Care": (
        "Not tested on animals.",
        "Made in small batches, dated by hand.",
        "Dermatologically tested.",
        "Sent in plain cardboard.",
    ),
    "Pets": (
        "Developed with a veterinary practice.",
        "Tried by the office dog and two demanding cats.",
        "Money back if it is refused.",
    ),
}
_TITLE_STYLES = (
    "{brand} {label} {noun} {variant} {specs}",
    "{noun} {brand} {label} - {variant} - {specs}",
    "{BRAND} {label} {noun} w/ {first} ({variant})",
    "{brand} {noun} {label} / {specs} / {variant}",
    "{label} {noun} by {brand}, {variant}, {specs}",
)
#: Departments and kinds that go by their own name, without brand or article.
_TITLED = frozenset({"crime novel", "cookbook", "picture book", "board game"})
#: How another seller words the same thing.
_SYNONYMS = (
    ("wireless", "cordless"),
    ("portable", "mobile"),
    ("inch", "in"),
    ("rechargeable", "with battery"),
    (" and ", " & "),
    ("colour", "color"),
    ("pieces", "pcs"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("stainless", "inox"),
)
_SPACES = re.compile(r"\s+")
_LOOSE = re.compile(r"\s+([,.:;)])|\(\s+|,(?=,)")


class Writer:
    """Writes the products of one shop. The same listing and edition always read the same."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def product(
        self,
        listing: Listing,
        occurred_at: datetime,
        *,
        price: Decimal | None = None,
        in_stock: bool | None = None,
        edition: int = 0,
    ) -> ProductUpserted:
        """The whole product as it is at `occurred_at`. A later `edition` has a new title and description."""
        draw = Random(f"{self._seed}:text:{listing.index}:{edition}")
        design, kind = listing.design, listing.design.kind
        words = self._words(draw, listing)
        title = self._title(draw, listing, words, edition)
        description = self._description(draw, listing, words)
        stocked = draw.random() < 0.93
        attributes: dict[str, str | list[str]] = {kind.axis: listing.variant, **dict(design.specs)}
        if not listing.own:
            attributes = {
                name.replace("colour", "color"): value
                for name, value in attributes.items()
                if name == kind.axis or draw.random() < 0.7
            }
        if design.fits and design.host is not None:
            attributes["compatible with"] = design.host.named
        return ProductUpserted(
            product_id=listing.product_id,
            occurred_at=occurred_at,
            title=title,
            brand=design.brand,
            category=list(kind.category),
            description=description,
            attributes=attributes,
            price=listing.price if price is None else price,
            currency=CURRENCY,
            in_stock=stocked if in_stock is None else in_stock,
            image_url=f"https://images.shop.example/{listing.product_id.lower()}.jpg",
            group_id=listing.group_id,
            seller_id=listing.seller,
            condition="new" if listing.own or draw.random() < 0.85 else "open box",
            gtin=listing.gtin,
            language="en",
        )

    def _words(self, draw: Random, listing: Listing) -> dict[str, str]:
        """Everything that a sentence or a title may name."""
        design, kind = listing.design, listing.design.kind
        titled = kind.noun in _TITLED
        label = design.line if titled else f"{design.line} {design.model}".strip()
        name = design.line if titled else f"{design.brand} {label}"
        plural = kind.plural
        # "The Fennimore Ember guitar strings come", but "the Brimwick Alder BR-740 comes".
        the = name if titled else f"the {name} {kind.noun}" if plural else f"the {name}"
        phrases = [phrase for phrase, _ in design.features]
        values = {kind.axis: listing.variant, **dict(design.specs)}
        return {
            "brand": design.brand,
            "BRAND": design.brand.upper(),
            "line": design.line,
            "model": design.model,
            "label": label,
            "noun": kind.noun,
            "a_noun": kind.with_article,
            "A_noun": _capital(kind.with_article),
            "the": the,
            "The": _capital(the),
            "is": "are" if plural else "is",
            "suits": "suit" if plural else "suits",
            "brings": "bring" if plural else "brings",
            "comes": "come" if plural else "comes",
            "use": draw.choice(kind.parsed_uses),
            "first": phrases[0],
            "second": phrases[1],
            "third": phrases[2],
            "feature": phrases[0],
            "variant": listing.variant,
            "host": design.host.named if design.host is not None else "",
            "specs": ", ".join(value for _, value in design.specs),
            **{attribute.replace(" ", "_"): value for attribute, value in values.items()},
        }

    def _title(self, draw: Random, listing: Listing, words: dict[str, str], edition: int) -> str:
        design = listing.design
        if edition:
            words = {**words, "feature": design.features[edition % len(design.features)][0]}
        if listing.own:
            title = _tidy(design.kind.title.format_map(words))
            if edition and words["feature"] not in title:
                title = f"{title}, {words['feature']}"
            return title if listing.variant in title else f"{title}, {listing.variant}"
        # Offers of one variant follow each other, so no two of them are worded in one style.
        title = _TITLE_STYLES[listing.index % len(_TITLE_STYLES)].format_map(words)
        if design.fits:
            title = f"{title} for {words['host']}"
        return _tidy(_reworded(draw, title))

    def _description(self, draw: Random, listing: Listing, words: dict[str, str]) -> str:
        design = listing.design
        sentences = [sentence for _, sentence in design.features]
        draw.shuffle(sentences)
        if listing.own:
            opening = draw.choice(_FITTING_OPENINGS if design.fits else _OPENINGS)
            own = _CLOSINGS.get(design.kind.department, ())
            closing = draw.choice((*own, *own, *_CLOSINGS[""]) if not own else own)
            wanted = draw.choice((2, 3, 3))
        else:
            opening = _OTHER_OPENINGS[listing.index % len(_OTHER_OPENINGS)]
            closing = draw.choice(_OTHER_CLOSINGS)
            wanted = 1
        specs = _spec_words({design.kind.axis: listing.variant, **dict(design.specs)})
        middle = draw.choice(_SPECS).format(specs=specs, Specs=_capital(specs))
        head = _tidy(opening.format_map(words))
        chosen: list[str] = []
        length = _length(head) + _length(middle) + _length(closing)
        for sentence in sentences:
            more = length + _length(sentence)
            if (len(chosen) >= wanted and length >= MIN_WORDS) or more > MAX_WORDS:
                break
            chosen.append(sentence)
            length = more
        body = " ".join(chosen)
        if not listing.own:
            body = _reworded(draw, body)
        return f"{head} {body} {middle} {closing}"


def _spec_words(values: dict[str, str]) -> str:
    """`tank 1.8 l, power 1,500 W`; a value that says its name already stands alone."""
    parts = []
    for name, value in values.items():
        stem = name.rstrip("s")
        parts.append(value if stem in value or name in ("author", "format") else f"{name} {value}")
    return ", ".join(parts)


def _reworded(draw: Random, text: str) -> str:
    for word, other in _SYNONYMS:
        if draw.random() < 0.5:
            text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])" if word[0] != " " else word, other, text)
    return text


def _tidy(text: str) -> str:
    """Without the gaps that empty words leave behind; the first letter is a capital one."""
    return _capital(
        _LOOSE.sub(lambda match: match.group(1) or match.group(0).strip()[:1], _SPACES.sub(" ", text)).strip(
            " ,-/"
        )
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _length(text: str) -> int:
    return text.count(" ") + 1
