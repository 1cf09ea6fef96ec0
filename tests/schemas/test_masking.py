"""What looks like an e-mail address, a card or a telephone number is masked; mere digits are not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.masking import CARD, EMAIL, PHONE, masked


@pytest.mark.parametrize(
    "address",
    [
        "a@b.de",
        "jane.doe+shop@mail.example.com",
        "JANE_DOE@EXAMPLE.CO.UK",
        "jürgen@müller.example",
        "客服@example.cn",
        "x" * 64 + "@example.com",
    ],
)
def test_a_plain_address_is_masked_and_the_sentence_around_it_stays(address: str) -> None:
    assert masked(f"Write to <{address}>, they answer.") == f"Write to <{EMAIL}>, they answer."
    assert masked(f"{address}.") == f"{EMAIL}."


@pytest.mark.parametrize("text", ["jane at example dot com", "a@b", "@shop", "5 @ 3.20 each", "c@fé culture"])
def test_what_is_no_plain_address_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    "number",
    [
        "+49 30 1234567",
        "+49 (0)30 1234-567",
        "+493012345678",
        "+1 (555) 123-4567",
        "+1-555-123-4567",
        "+86 138 1234 5678",
        "0049 30 1234567",
        "030 1234567",
        "(030) 1234567",
        "030/123 45 67",
        "0171-1234567",
        "01711234567",
        "020 7946 0958",
        "07700 900123",
        "01 23 45 67 89",
        "01.02.20.03.04",
        "555-123-4567",
        "555.123.4567",
        "555 123 4567",
        "(555) 123-4567",
        "(555)123-4567",
        "1-800-555-1234",
        "555\u2013123\u20134567",
        "030\u00a01234567",
        "13812345678",
        "138-1234-5678",
        "138 1234 5678",
    ],
)
def test_a_telephone_number_is_masked_whole(number: str) -> None:
    for text in ("{}", "Ask for Jo, {}, after six.", "({})", "number:{}!", "我的电话{}请联系"):
        assert masked(text.format(number)) == text.format(PHONE), number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tel.: 612 345 678", f"Tel.: {PHONE}"),
        ("call me at 1234567", f"call me at {PHONE}"),
        ("Telefon 1234-567-8", f"Telefon {PHONE}"),
        ("WhatsApp: 98765432", f"WhatsApp: {PHONE}"),
        ("手机\uff1a1234567890", f"手机\uff1a{PHONE}"),
        ("my phone 5000 mAh", "my phone 5000 mAh"),
        ("recall 1234567", "recall 1234567"),
    ],
)
def test_a_word_that_announces_a_number_makes_shorter_ones_count(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "2223003122003222",
        "3782 822463 10005",
        "378282246310005",
        "3056 930902 5904",
        "6011111111111117",
        "4222222222222",
        "6200 0000 0000 0000 000",
    ],
)
def test_a_card_number_is_masked(number: str) -> None:
    assert masked(f"paid with {number}, twice") == f"paid with {CARD}, twice"


def test_a_quantity_before_or_behind_a_card_number_stays() -> None:
    assert masked("2 4111 1111 1111 1111 24") == f"2 {CARD} 24"


def test_a_wrong_check_digit_is_no_card() -> None:
    assert masked("4111 1111 1111 1112") == "4111 1111 1111 1112"


@pytest.mark.parametrize(
    "text",
    [
        "WH-1000XM4 beats the WH-1000XM3",
        "model DCS-930L/1234567B",
        "part SKU-0123-456789",
        "order no. A0171-1234567",
        "19.90 EUR, was 1.299,00",
        "$1,234,567.89",
        "12.345.678,90 €",
        "bought 05.12.2024 18:30, broke 2025-01-20",
        "from 01/02/2023 to 03/04/2024",
        "the 2019, 2020, 2021 and 2022 editions",
        "1998-2004",
        "120 x 60 x 75 cm",
        "0.12345678 g, 0.75 1234567",
        "20000 mAh, 3840x2160, 5400 rpm",
        "GTIN 4006381333931",
        "EAN 0012345678905",
        "UPC 036000291452",
        "ISBN 0306406152 or 9780306406157",
        "IMEI 352099001761481",
        "EN 12345-2018",
        "550e8400-e29b-41d4-a716-446655440000",
        "https://shop.example/p/0123456789?x=1",
        "192.168.100.200",
        "10 out of 10, 100% again",
        "1 000 000 times",
        "ten digits: 1234567890",
    ],
)
def test_numbers_of_other_kinds_stay(text: str) -> None:
    assert masked(text) == text


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("0123456789 +-./()@a:電\u00a0tel"), max_size=60))
def test_masking_again_changes_nothing(text: str) -> None:
    once = masked(text)
    assert masked(once) == once


@pytest.mark.parametrize(
    "unit", ["1", "a", "1 ", "a@", "0(", "+1", "tel ", "tel 1 ", "1-", "4 ", "a@a.", "01/"]
)
def test_the_longest_text_takes_no_longer_for_being_odd(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    started = time.perf_counter()
    masked(text)
    assert time.perf_counter() - started < 3.0  # a quadratic pattern takes minutes
