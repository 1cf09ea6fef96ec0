"""The shape of the shop's tables: what a kind of product is, and which kinds belong together.

Reads, writes  nothing
Never          draws at random: producers/shop_assortment.py does

The tables themselves are in producers/shop_tables_*.py; producers/shop_catalogue.py joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Kind:
    """One kind of product: how its members are named, described, priced and judged.

    `attributes` maps a name to its values, `|` between them, cheapest first. The first attribute is the one
    that variants differ in; it never moves the price. `features` are `phrase: sentence`: the phrase can
    follow "with", the sentence stands in a description. `title` may name {brand} {line} {model} {noun}
    {feature} {host} and every attribute (blanks as `_`). `model` starts with B (the brand's initials)
    or not; each # is a digit.
    `names` replaces the shop's line names: a pattern and the words for its places {a} and {b}.
    """

    noun: str
    path: str
    price: tuple[float, float]
    attributes: dict[str, str]
    title: str
    features: tuple[str, ...]
    uses: str
    aspects: str
    model: str = ""
    brands: str = ""
    names: tuple[str, str, str] | None = None
    plural: bool = False

    @cached_property
    def category(self) -> tuple[str, ...]:
        """The category path, department first."""
        return tuple(self.path.split(" > "))

    @property
    def department(self) -> str:
        """The first level of the category path."""
        return self.category[0]

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Values by attribute."""
        return {name: tuple(values.split("|")) for name, values in self.attributes.items()}

    @cached_property
    def axis(self) -> str:
        """The attribute in which variants differ."""
        return next(iter(self.attributes))

    @cached_property
    def parsed_features(self) -> tuple[tuple[str, str], ...]:
        """(phrase, sentence) of each feature."""
        return tuple((phrase, sentence) for phrase, _, sentence in (f.partition(": ") for f in self.features))

    @cached_property
    def parsed_uses(self) -> tuple[str, ...]:
        """What or whom the product is for; each can follow "for"."""
        return tuple(self.uses.split("|"))

    @cached_property
    def parsed_aspects(self) -> tuple[str, ...]:
        """What reviewers judge; keys of producers/shop_reviews.py ASPECTS."""
        return tuple(self.aspects.split())

    @property
    def with_article(self) -> str:
        """`a kettle`, `an espresso machine`, `running shoes`."""
        if self.plural:
            return self.noun
        return f"{'an' if self.noun[0].lower() in 'aeiou' else 'a'} {self.noun}"


@dataclass(frozen=True, slots=True)
class Complement:
    """Who buys a `host` needs an `accessory`. `fits`: the accessory's text names the very host it fits.

    Without `fits` the two share no words on purpose: only shoppers' behaviour shows that they go together.
    """

    host: str
    accessory: str
    fits: bool
