"""The digest: helpful, recent and diverse sentences, the same whatever order the reviews come in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.review_digest import HALF_LIFE_DAYS, SENTENCE_CHARS, review_digest, reviews_text, usefulness

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)


@dataclass(frozen=True)
class Review:
    """Implements consumers.review_digest.ReviewText."""

    review_id: str
    text: str
    votes: int = 0
    at: int = 0


def at(days_ago: float) -> int:
    return int((NOW - timedelta(days=days_ago)).timestamp() * 1_000_000)


def review(review_id: str, text: str, *, votes: int = 0, days_ago: float = 0.0) -> Review:
    return Review(review_id, text, votes, at(days_ago))


BATTERY = "The battery lasts four long working days without charging."
SOUND = "Bass sounds warm while voices stay clear even outdoors."
COMFORT = "Ear cushions press against glasses after about an hour."
HINGE = "One hinge broke during the second month of careful use."


def test_no_review_and_no_words_make_no_digest() -> None:
    assert review_digest([], chars=500) == ""
    assert review_digest([review("a", ""), review("b", "!!! ..."), review("c", "Wow")], chars=500) == ""


def test_it_is_made_of_whole_sentences_of_several_reviews() -> None:
    digest = review_digest([review("a", f"{BATTERY} {SOUND}"), review("b", f"{COMFORT}\n{HINGE}")], chars=500)
    assert len(digest) == len(" ".join((BATTERY, SOUND, COMFORT, HINGE)))
    assert all(sentence in digest for sentence in (BATTERY, SOUND, COMFORT, HINGE))


def test_the_more_helpful_review_speaks_first() -> None:
    reviews = [review("a", BATTERY, votes=1), review("b", SOUND, votes=40), review("c", HINGE, votes=9)]
    assert review_digest(reviews, chars=500) == f"{SOUND} {HINGE} {BATTERY}"


def test_of_two_equally_helpful_ones_the_newer_speaks_first() -> None:
    reviews = [review("a", BATTERY, votes=3, days_ago=400), review("b", SOUND, votes=3, days_ago=10)]
    assert review_digest(reviews, chars=500) == f"{SOUND} {BATTERY}"


def test_a_doubling_of_votes_weighs_as_much_as_half_a_year() -> None:
    older = usefulness(1, at(HALF_LIFE_DAYS))
    assert usefulness(0, at(0)) == pytest.approx(older)
    assert usefulness(2, at(HALF_LIFE_DAYS)) > older


def test_recency_is_relative_to_the_newest_review_and_not_to_the_clock() -> None:
    texts = [(BATTERY, 9, 30.0), (SOUND, 0, 0.0), (HINGE, 2, 500.0), (COMFORT, 90, 900.0)]
    digests = {
        review_digest(
            [
                review(str(number), text, votes=votes, days_ago=days + shift)
                for number, (text, votes, days) in enumerate(texts)
            ],
            chars=500,
        )
        for shift in (0.0, 365.0, 3650.0)
    }
    assert len(digests) == 1


def test_what_was_said_already_is_not_said_again() -> None:
    same = [review(str(number), BATTERY, votes=50 - number) for number in range(5)]
    assert review_digest([*same, review("x", HINGE)], chars=500) == f"{BATTERY} {HINGE}"


def test_a_sentence_that_repeats_half_of_another_comes_after_one_that_is_new() -> None:
    half = "The battery lasts four days although reception suffers indoors sometimes."
    reviews = [review("a", BATTERY, votes=30), review("b", half, votes=9), review("c", HINGE, votes=8)]
    assert review_digest(reviews, chars=500) == f"{BATTERY} {HINGE} {half}"


def test_one_review_does_not_speak_alone_however_helpful_it_is() -> None:
    names = ("alpha bravo charlie", "delta echo foxtrot", "golf hotel india", "juliett kilo lima")
    long = " ".join(f"Sentence about {words} number{place}." for place, words in enumerate(names))
    digest = review_digest([review("a", long, votes=1000), review("b", BATTERY)], chars=2_000)
    assert BATTERY in digest
    assert digest.count("Sentence about") == 3


def test_a_telling_sentence_comes_before_an_exclamation_of_the_same_review() -> None:
    digest = review_digest([review("a", f"Never again! {BATTERY}")], chars=500)
    assert digest == f"{BATTERY} Never again!"


def test_sentences_without_an_end_get_one_and_line_breaks_end_them() -> None:
    digest = review_digest([review("a", "Great sound overall\nbattery could last longer")], chars=500)
    assert digest == "battery could last longer. Great sound overall."


def test_chinese_is_cut_at_its_own_full_stops_and_compared_by_pairs_of_characters() -> None:
    first, second = "音质非常好低音也很足。", "电池只能用两个小时。"
    digest = review_digest([review("a", first + second), review("b", first + "包装很差。")], chars=500)
    assert digest.count(first) == 1
    assert second in digest
    assert "包装很差" in digest


def test_an_endless_sentence_is_cut_at_a_word() -> None:
    digest = review_digest([review("a", "lorem ipsum " * 200)], chars=1_000)
    assert len(digest) <= SENTENCE_CHARS + 1
    assert digest.endswith(("lorem\u2026", "ipsum\u2026"))


def test_a_sentence_that_does_not_fit_makes_room_for_one_that_does() -> None:
    reviews = [review("a", BATTERY, votes=9), review("b", SOUND + " " + "x" * 8, votes=5), review("c", HINGE)]
    room = len(BATTERY) + 1 + max(len(SOUND), len(HINGE))
    assert len(review_digest(reviews, chars=room)) <= room
    assert review_digest(reviews, chars=len(BATTERY) - 1) != ""
    assert review_digest(reviews, chars=10) == ""


texts = st.lists(
    st.sampled_from([BATTERY, SOUND, COMFORT, HINGE, "Never again!", "好用。", "a", ""]), max_size=4
).map(" ".join)
many = st.lists(
    st.builds(
        Review,
        review_id=st.uuids().map(str),
        text=texts,
        votes=st.integers(0, 2**53 - 1),
        at=st.integers(0, 253_000_000_000_000_000),
    ),
    max_size=40,
    unique_by=lambda one: one.review_id,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(reviews=many, seed=st.integers(0, 9), chars=st.integers(1, 600))
def test_any_order_of_the_reviews_makes_the_same_digest_within_its_bound(
    reviews: list[Review], seed: int, chars: int
) -> None:
    digest = review_digest(reviews, chars=chars)
    shuffled = list(reviews)
    Random(seed).shuffle(shuffled)
    assert review_digest(shuffled, chars=chars) == digest
    assert len(digest) <= chars
    said = {sentence for sentence in (BATTERY, SOUND, COMFORT, HINGE) if sentence in digest}
    assert all(digest.count(sentence) == 1 for sentence in said)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(votes=st.integers(0, 2**53 - 1), moment=st.integers(0, 253_000_000_000_000_000))
def test_usefulness_grows_with_votes_and_with_time(votes: int, moment: int) -> None:
    assert usefulness(votes + votes // 2 + 1, moment) > usefulness(votes, moment)
    assert usefulness(votes, moment + 10_000_000_000) > usefulness(votes, moment)
    assert math.isfinite(usefulness(votes, moment))


def _greedy(reviews: list[Review], chars: int) -> list[str]:
    """The formula of the module's docstring, step by step, over reviews of one sentence each."""
    best = sorted(reviews, key=lambda one: (-usefulness(one.votes, one.at), one.review_id))
    newest = max(one.at for one in best)
    helps = [(1 + one.votes) * 2 ** ((one.at - newest) / (HALF_LIFE_DAYS * 86_400e6)) for one in best]
    top = math.log2(1 + helps[0])
    words = {one.review_id: {word for word in one.text[:-1].lower().split() if len(word) > 3} for one in best}
    taken: list[Review] = []
    while True:
        gains = []
        for number, one in enumerate(best):
            own = words[one.review_id]
            shares = [
                len(own & words[other.review_id]) / min(len(own), len(words[other.review_id]))
                for other in taken
            ]
            overlap = max(shares, default=0.0)
            used = sum(len(other.text) + 1 for other in taken)
            if one not in taken and overlap <= 0.75 and used + len(one.text) <= chars:
                gain = math.log2(1 + helps[number]) / top * (1 - overlap) * min(1, len(own) / 6)
                gains.append((-round(gain, 9), number, one))
        if not gains:
            return [one.text for one in taken]
        taken.append(min(gains)[2])


@pytest.mark.parametrize("seed", range(20))
def test_it_takes_what_the_formula_says(seed: int) -> None:
    draw = Random(seed)
    vocabulary = [f"word{letter}" for letter in "abcdefghijklmnop"]
    reviews = [
        Review(
            f"r{number}",
            " ".join(draw.sample(vocabulary, draw.randint(2, 8))).capitalize() + ".",
            draw.randint(0, 60),
            at(draw.uniform(0, 900)),
        )
        for number in range(15)
    ]
    assert review_digest(reviews, chars=400) == " ".join(_greedy(reviews, 400))


# --- what is encoded --------------------------------------------------------------------------------


def test_without_opinions_the_digest_is_encoded_as_it_is_and_without_a_digest_nothing() -> None:
    assert reviews_text(BATTERY, ()) == BATTERY
    assert reviews_text(BATTERY, ["noise: mixed"]) == BATTERY
    assert reviews_text("", ["noise: good"]) == ""


def test_what_reviewers_come_to_stands_before_the_digest_in_one_order() -> None:
    terms = ["battery: bad", "charging_speed: good", "fit: mixed", "noise: bad", "trim: narrow: good"]
    told = "Good charging speed. Good trim: narrow. Bad battery. Bad noise."
    for order in (terms, terms[::-1]):
        assert reviews_text(BATTERY, order) == f"{told} {BATTERY}"
