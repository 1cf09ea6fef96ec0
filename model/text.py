"""A product as text for the encoder and as character grams for word-for-word similarity.

Reads   a product's title, brand, category, attributes and description, each up to its limit
Writes  nothing; pure functions of the product and of `TextSettings`
Never   imports torch, and never reads a field that `fingerprint` does not cover

Grams: NFKC, lower case, each word padded with a space on both sides, character 4-grams hashed to 32 bits
with xxHash32. Runs of a script written without spaces (Chinese, Japanese, Thai, ...) give 1- and 2-grams. A
gram's weight is 1 + ln(how often it counts), over the L2 norm; what a gram is worth (IDF) is known to the
index alone, which has live statistics. A recipe belongs to a release: its manifest records the settings.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, NamedTuple

import xxhash
from pydantic import Field

from schemas.events import Frozen, Product
from schemas.items import CATEGORY_SEPARATOR, digest
from schemas.vectors import SparseVector

#: Part of every fingerprint. Raise it when the code below makes other text or grams from equal settings.
RECIPE_VERSION = 1

GramSizes = Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1)]

#: Scripts that are written without spaces between words.
_UNSPACED = re.compile(
    "(["
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # radicals, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"  # Thai to Khmer
    "]+)"
)
_EDGES = re.compile(r"^\W+|\W+$")
#: Words up to this length are remembered with their grams; longer ones are rarely met twice.
_REMEMBERED_LENGTH = 32
_LOG_TABLE = tuple(1.0 + math.log(count) if count else 0.0 for count in range(256))


class FieldUse(Frozen):
    """What one field of a product contributes.

    `content_chars` and `lexical_chars` limit it in the encoder's text and among the grams (0 leaves it out);
    a gram of it counts `times` times.
    """

    content_chars: int = Field(default=0, ge=0, le=200_000)
    lexical_chars: int = Field(default=0, ge=0, le=200_000)
    times: int = Field(default=1, ge=1, le=100)


class TextSettings(Frozen):
    """The recipe's knobs. They are written into the manifest of the release that they made."""

    title: FieldUse = FieldUse(content_chars=400, lexical_chars=1_000, times=3)
    brand: FieldUse = FieldUse(content_chars=80, lexical_chars=80)
    category: FieldUse = FieldUse(content_chars=120, lexical_chars=200)
    attributes: FieldUse = FieldUse(content_chars=300, lexical_chars=500)
    description: FieldUse = FieldUse(content_chars=1_000, lexical_chars=1_000)
    #: Between two fields of the encoder's text.
    separator: str = ". "
    #: A brand that the title names already is not said twice to the encoder.
    brand_once: bool = True
    #: Lengths of the grams of words, and of runs of scripts without spaces.
    gram_sizes: GramSizes = (4,)
    unspaced_gram_sizes: GramSizes = (1, 2)
    #: Whether punctuation around a word ("(black)", "black,") is dropped before it is cut into grams.
    strip_punctuation: bool = False
    #: Words whose grams are remembered, per process (about half a kilobyte each).
    remembered_words: int = Field(default=50_000, ge=0)


class _Part(NamedTuple):
    """One field of one product, uncut, with its use."""

    text: str
    use: FieldUse


class ProductText:
    """Implements `schemas.vectors.TextRecipe`. Thread-safe; equal settings make equal output everywhere."""

    def __init__(self, settings: TextSettings | None = None) -> None:
        self.settings = settings or TextSettings()
        cut = self.settings
        # Remembering changes speed and nothing else, so it stays out of the name.
        self._name = digest(RECIPE_VERSION, cut.model_dump(mode="json", exclude={"remembered_words"}))
        self._order = (cut.title, cut.brand, cut.category, cut.attributes, cut.description)
        # One character more than is used: whether a field was cut is part of the result.
        self._covers = [max(use.content_chars, use.lexical_chars) + 1 for use in self._order]
        self._remembered: Callable[[str], tuple[int, ...]] = lru_cache(cut.remembered_words)(self._hashed)

    def content(self, product: Product) -> str:
        """The text handed to the encoder: title first, each field up to its limit, cut between words."""
        texts = [cut_text(part.text, part.use.content_chars) for part in self._parts(product)]
        title, brand = texts[0], texts[1]
        if brand and self.settings.brand_once and brand.casefold() in title.casefold():
            texts[1] = ""
        return self.settings.separator.join(text for text in texts if text)

    def lexical(self, product: Product) -> SparseVector:
        """Weighted grams of the same fields: unique ascending 32-bit indices, unit L2 norm."""
        counts: dict[int, int] = {}
        for text, times in self._lexical_texts(product):
            self._count(text, times, counts)
        if not counts:
            # A title of control characters alone has no word; a point without a gram would be no point.
            counts[hash_gram(product.title)] = 1
        return _weighted(counts)

    def lexical_query(self, text: str) -> SparseVector:
        """Grams of a search text, weighted as an item's; no grams for a text of nothing but white space."""
        counts: dict[int, int] = {}
        self._count(text, 1, counts)
        return _weighted(counts)

    def fingerprint(self, product: Product) -> str:
        """16 hex digits that name the recipe and the part of the product it uses. Builds no grams."""
        return digest(
            self._name,
            [part.text[:chars] for part, chars in zip(self._parts(product), self._covers, strict=True)],
        )

    def grams(self, product: Product) -> Mapping[int, str]:
        """The gram behind each index of `lexical`, padding included; of two that collide, the first."""
        found: dict[int, str] = {}
        for text, _ in self._lexical_texts(product):
            for word in self._words(text):
                for gram in self._cut_word(word):
                    found.setdefault(hash_gram(gram), gram)
        return found or {hash_gram(product.title): product.title}

    def _parts(self, product: Product) -> tuple[_Part, ...]:
        title, brand, category, attributes, description = self._order
        return (
            _Part(product.title, title),
            _Part(product.brand or "", brand),
            _Part(CATEGORY_SEPARATOR.join(product.category), category),
            _Part(attribute_text(product.attributes) if product.attributes else "", attributes),
            _Part(product.description or "", description),
        )

    def _lexical_texts(self, product: Product) -> Iterator[tuple[str, int]]:
        for part in self._parts(product):
            text = cut_text(part.text, part.use.lexical_chars)
            if text:
                yield text, part.use.times

    def _count(self, text: str, times: int, counts: dict[int, int]) -> None:
        seen = counts.get
        for word in self._words(text):
            indices = self._remembered(word) if len(word) <= _REMEMBERED_LENGTH else self._hashed(word)
            for index in indices:
                counts[index] = seen(index, 0) + times

    def _words(self, text: str) -> list[str]:
        words = normalised(text).split()
        if self.settings.strip_punctuation:
            # A word of nothing but punctuation stays: it may be all there is.
            words = [_EDGES.sub("", word) or word for word in words]
        return words

    def _hashed(self, word: str) -> tuple[int, ...]:
        return tuple(hash_gram(gram) for gram in self._cut_word(word))

    def _cut_word(self, word: str) -> Iterator[str]:
        if word.isascii():
            yield from _grams_of(f" {word} ", self.settings.gram_sizes)
            return
        # Odd pieces are the runs that the pattern matched.
        for position, piece in enumerate(_UNSPACED.split(word)):
            if position % 2:
                yield from _grams_of(piece, self.settings.unspaced_gram_sizes)
            elif piece:
                yield from _grams_of(f" {piece} ", self.settings.gram_sizes)


def normalised(text: str) -> str:
    """NFKC and lower case: full-width, ligature and superscript forms become their plain characters."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def hash_gram(gram: str) -> int:
    """The 32-bit index of a gram: xxHash32 of its UTF-8 bytes, the same in every process."""
    return xxhash.xxh32_intdigest(gram.encode("utf-8", "surrogatepass"))


def cut_text(text: str, chars: int) -> str:
    """At most `chars` characters, cut back to the last white space where there is one in the second half.

    A function of the first `chars` + 1 characters alone: `fingerprint` relies on it.
    """
    if len(text) <= chars:
        return text
    head = text[:chars]
    if text[chars].isspace() or not head.strip():
        return head.rstrip()
    whole_words = head.rsplit(None, 1)[0]
    return whole_words if 2 * len(whole_words) >= chars else head


def attribute_text(attributes: Mapping[str, str | list[str]]) -> str:
    """`colour: black; size: 40, 41`, ordered by name so that the order in the event does not matter."""
    return "; ".join(
        f"{name}: {', '.join(value) if isinstance(value, list) else value}"
        for name, value in sorted(attributes.items())
    )


def _grams_of(text: str, sizes: tuple[int, ...]) -> Iterator[str]:
    """All substrings of each size; a text that is no longer than a size is one gram, and the last."""
    for size in sizes:
        if len(text) <= size:
            yield text
            return
        for start in range(len(text) - size + 1):
            yield text[start : start + size]


def _weighted(counts: dict[int, int]) -> SparseVector:
    """(1 + ln count) / L2. Hashes that collide were counted together."""
    if not counts:
        return SparseVector((), ())
    indices = sorted(counts)
    table, size = _LOG_TABLE, len(_LOG_TABLE)
    weights = [
        table[count] if count < size else 1.0 + math.log(count) for count in map(counts.__getitem__, indices)
    ]
    norm = math.hypot(*weights)
    return SparseVector(tuple(indices), tuple([weight / norm for weight in weights]))
