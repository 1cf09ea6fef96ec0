"""The digest of an item's reviews: a few sentences of the most helpful, most recent and least alike of them.

Pure: the same reviews give the same digest, whatever order they come in, at whatever time. No model is asked.
`reviews_text` says what of it is encoded, where somebody listens to reviews (consumers/opinions.py).

With t the time of a review's newest event, v its helpful votes, t' the newest t among them, and H = 180 days:

    usefulness u = log2(1 + v) + t / H              a doubling of votes weighs as much as half a year
    help       h = (1 + v) * 2^-((t' - t) / H)      the same order as u: 2^(u - t' / H)
    relevance  r = log2(1 + h) / log2(1 + h of the best review)

Sentences are taken one by one, greedily, as in maximal marginal relevance (Carbonell and Goldstein, SIGIR
1998), each time the one with the greatest

    gain       g = r / (1 + n) * (1 - o) * min(1, w / 6)

where n is how many sentences of the same review are taken, w how many words it has (short ones apart), and o
the largest share of words that it has in common with a taken one, |A & B| / min(|A|, |B|). It stops when
nothing that is left fits and says something new.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

#: In which votes halve in weight.
HALF_LIFE_DAYS = 180.0
#: Reviews that sentences come from, and of each of these so many at most, its first ones.
REVIEWS = 20
SENTENCES_PER_REVIEW = 6
TAKEN_PER_REVIEW = 3
#: Longer sentences are cut at a word.
SENTENCE_CHARS = 240
#: A sentence that shares more of its words with a taken one says nothing new.
SAID_ALREADY = 0.75
#: With fewer words than this a sentence ("Never again.") says little.
TELLING_WORDS = 6

_STANCES = (("good", "Good"), ("bad", "Bad"))
_DAY_MICROSECONDS = 24 * 3600 * 1_000_000
_FIRST_UNSPACED = "\u3040"
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SENTENCE_ENDS = re.compile(r"(?<=[.!?\u2026])\s+|(?<=[\u3002\uff01\uff1f])|\n+")
_WORDS = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
#: Short words of spaced scripts are mostly grammar.
_LETTERS = 4


class ReviewText(Protocol):
    """One live review as far as the digest needs it."""

    @property
    def review_id(self) -> str:
        """Breaks ties."""
        ...

    @property
    def votes(self) -> int:
        """How many shoppers found it helpful."""
        ...

    @property
    def at(self) -> int:
        """When it was written, in microseconds since 1970."""
        ...

    @property
    def text(self) -> str:
        """Title and text; read only where sentences are taken."""
        ...


@dataclass(slots=True)
class _Sentence:
    """A candidate: the place of its review (the best is 0), its place there, its words."""

    review: int
    place: int
    text: str
    words: frozenset[str]
    #: The largest share of words in common with one of the first `compared` sentences taken.
    overlap: float = 0.0
    compared: int = 0


def usefulness(votes: int, at: int) -> float:
    """Orders reviews by help and recency at once, without a clock. `at` is in microseconds since 1970."""
    return math.log2(1 + votes) + at / (HALF_LIFE_DAYS * _DAY_MICROSECONDS)


def review_rank(review_id: str, votes: int, at: int) -> int:
    """Usefulness as a whole number below 2^53, hardly ever the same twice: which texts are kept.

    In steps of half an hour; between equals a hash of the id decides.
    """
    last = int.from_bytes(hashlib.blake2b(review_id.encode(), digest_size=3).digest())
    return math.floor(usefulness(votes, at) * 2**13) * 2**24 + last


def review_digest(reviews: Sequence[ReviewText], *, chars: int) -> str:
    """At most `chars` characters of sentences, the best first; empty where no review says anything."""
    best = sorted(reviews, key=lambda one: (-usefulness(one.votes, one.at), one.review_id))[:REVIEWS]
    if not best:
        return ""
    relevance = _relevance(best, newest=max(review.at for review in reviews))
    taken_of = [0] * len(best)
    taken: list[_Sentence] = []
    room = chars

    def order(one: _Sentence) -> tuple[float, int, int]:
        """The greatest gain first, then the better review, then the earlier place."""
        # Rounded below, so that the last bit of a logarithm decides nothing.
        telling = min(1.0, len(one.words) / TELLING_WORDS)
        gain = relevance[one.review] / (1 + taken_of[one.review]) * (1 - one.overlap) * telling
        return -round(gain, 9), one.review, one.place

    found = [one for number, review in enumerate(best) for one in _sentences(number, review.text)]
    heap = [(order(one), one) for one in found]
    heapq.heapify(heap)
    while heap:
        # Gains only ever fall, so whoever is still first after a new look is the greatest of all.
        one = heapq.heappop(heap)[1]
        for other in taken[one.compared :]:
            shared = len(one.words & other.words)
            if shared:
                one.overlap = max(one.overlap, shared / min(len(one.words), len(other.words)))
        one.compared = len(taken)
        if len(one.text) > room or one.overlap > SAID_ALREADY or taken_of[one.review] == TAKEN_PER_REVIEW:
            continue
        place = order(one)
        if heap and heap[0][0] < place:
            heapq.heappush(heap, (place, one))
            continue
        taken.append(one)
        taken_of[one.review] += 1
        room -= len(one.text) + 1
    return " ".join(one.text for one in taken)


def reviews_text(digest: str, opinions: Sequence[str]) -> str:
    """What is encoded for the vector `reviews`: what reviewers come to ("Good fit. Bad noise."), the digest.

    `opinions` are terms (schemas.opinions.opinion_terms). Good ones come first, each kind by name; mixed ones
    say nothing. All of them come before the digest: what is too long for the encoder is cut at its end, and
    there they changed nothing (docs/opinions.md). Without any it is the digest, without a digest nothing.
    """
    if not digest:
        return ""
    told = [term.rpartition(": ") for term in sorted(opinions)]
    stances = [
        f"{said} {aspect.replace('_', ' ')}."
        for tendency, said in _STANCES
        for aspect, _, found in told
        if found == tendency
    ]
    return " ".join([*stances, digest])


def _relevance(best: Sequence[ReviewText], *, newest: int) -> list[float]:
    helps = [
        (1 + review.votes) * 2.0 ** ((review.at - newest) / (HALF_LIFE_DAYS * _DAY_MICROSECONDS))
        for review in best
    ]
    top = math.log2(1 + max(helps))
    return [math.log2(1 + one) / top for one in helps]


def _sentences(review: int, text: str) -> list[_Sentence]:
    """The first sentences of a review that have at least two words to compare, as whole sentences."""
    found: list[_Sentence] = []
    for part in _SENTENCE_ENDS.split(text):
        sentence = _cut(" ".join(part.split()))
        words = _content_words(sentence)
        if len(words) >= 2:
            if sentence[-1].isalnum():
                sentence += "."
            found.append(_Sentence(review, len(found), sentence, words))
            if len(found) == SENTENCES_PER_REVIEW:
                break
    return found


def _cut(sentence: str) -> str:
    if len(sentence) <= SENTENCE_CHARS:
        return sentence
    start = sentence[:SENTENCE_CHARS]
    return (start.rpartition(" ")[0] or start) + "\u2026"


def _content_words(sentence: str) -> frozenset[str]:
    """Words of four letters and more, numbers, and pairs of characters where a script has no spaces."""
    words: set[str] = set()
    for word in _WORDS.findall(sentence.casefold()):
        if word[0] >= _FIRST_UNSPACED and _IS_UNSPACED.match(word):
            words.update(word[place : place + 2] for place in range(max(1, len(word) - 1)))
        elif len(word) >= _LETTERS or word.isdecimal():
            words.add(word)
    return frozenset(words)
