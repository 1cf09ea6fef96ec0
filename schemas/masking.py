"""Contact data in free text is masked: e-mail addresses, payment cards, telephone numbers.

Pure. For everything that shoppers write and that is stored or encoded. Masking again changes nothing.

Numbers are many things, so each rule asks for a shape that little else has:

card    13 to 19 digits in a card's groups or in none, a card's first digits, Luhn's check digit
phone   with a country code (+ or 00); with a leading 0; 3-3-4 digits as in North America; an 11-digit Chinese
        mobile number; or seven digits and more after a word such as "tel" or "call"

Left alone: dates, years, prices, sizes, model numbers (digits glued to letters), GTINs and ISBNs with a right
check digit, addresses that are spelled out ("a at b").
"""

from __future__ import annotations

import re

EMAIL, CARD, PHONE = "[email]", "[card]", "[phone]"

# What stands between groups of digits, as people type it and as word processors set it.
_GAP = " \u00a0\u2009\u202f\\-\u2010\u2011\u2012\u2013"
_ANY = f"[{_GAP}./()]{{0,2}}"
# Not inside a word or a longer number, nor part of a code such as SKU-0123 or of an address such as /p/0123.
# Letters of other scripts may touch: Chinese has no spaces.
_START = r"(?<![0-9A-Za-z+])(?<![0-9A-Za-z][-_/])(?<![0-9]\.)"
_END = r"(?![0-9A-Za-z])(?![-_][0-9A-Za-z])(?![.,][0-9])"

# Every quantifier is bounded, so that time grows with the length of the text and with nothing else.
_EMAIL = re.compile(r"[\w.%+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,8}")
# 4-4-4-4 (of 13 to 19 digits, in groups or not), 4-6-5 and 4-6-4.
_CARD = re.compile(
    rf"{_START}(?P<number>[0-9]{{4}}[{_GAP}]?(?:[0-9]{{4}}[{_GAP}]?[0-9]{{4}}[{_GAP}]?[0-9]{{1,4}}"
    rf"|[0-9]{{6}}[{_GAP}]?[0-9]{{4,5}}))(?P<more>[{_GAP}]?[0-9]{{1,3}})?{_END}"
)
# Most texts have no number that long, and are spared the rest.
_SEVEN_DIGITS = re.compile(r"[0-9](?:[^0-9]{0,3}[0-9]){6}")
_CUE = (
    r"(?<![A-Za-z])(?:telephone|telefon|tel|phone|call|mobile|mobil|cell|whats ?app|fax|handy|电话|手机|電話)"
    rf"(?:[{_GAP}](?:me|us|at|on|no|nr|number|nummer)\b){{0,2}}[.:#\uff1a]{{0,2}}[{_GAP}]{{0,2}}"
)
_PHONES = (
    rf"(?<![0-9A-Za-z])\+[1-9](?:{_ANY}[0-9]){{7,14}}",
    rf"{_START}00[1-9](?:{_ANY}[0-9]){{7,14}}",
    rf"{_START}\(0[1-9][0-9]{{0,4}}\)(?:{_ANY}[0-9]){{5,9}}",
    rf"{_START}0[1-9][0-9]{{0,4}}[{_GAP}./]{{1,3}}[0-9](?:{_ANY}[0-9]){{4,9}}",
    rf"{_START}0[1-9][0-9]{{8,9}}",
    rf"{_START}(?:1[{_GAP}.])?[2-9][0-9]{{2}}(?P<gap>[{_GAP}.])[0-9]{{3}}(?P=gap)[0-9]{{4}}",
    rf"{_START}(?:1[{_GAP}.])?\([2-9][0-9]{{2}}\)[{_GAP}]?[0-9]{{3}}[{_GAP}.][0-9]{{4}}",
    rf"{_START}1[3-9][0-9][{_GAP}]?[0-9]{{4}}[{_GAP}]?[0-9]{{4}}",
)
# A date is matched first and whole, so that no part of it can begin a number.
_DATE = (
    r"(?<![0-9./-])(?:[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"|[0-3]?[0-9](?P<mark>[./-])[0-3]?[0-9](?P=mark)(?:19|20)[0-9]{2})(?![0-9]|[./-][0-9])"
)
_PHONE = re.compile(
    rf"{_DATE}"
    rf"|(?P<cue>{_CUE})(?P<called>\+?\(?[0-9](?:{_ANY}[0-9]){{6,14}}){_END}"
    rf"|(?P<phone>{'|'.join(_PHONES)}){_END}",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """The text with `[email]`, `[card]` and `[phone]` in place of what looks like one."""
    if "@" in text:
        text = _EMAIL.sub(EMAIL, text)
    if _SEVEN_DIGITS.search(text):
        text = _PHONE.sub(_without_phone, _CARD.sub(_without_card, text))
    return text


def _without_card(match: re.Match[str]) -> str:
    # What follows may be the end of the number, or a quantity of something else.
    if _is_card(match.group()):
        return CARD
    return CARD + (match["more"] or "") if _is_card(match["number"]) else match.group()


def _without_phone(match: re.Match[str]) -> str:
    number = match["called"] or match["phone"]
    if number is None or (number.isdecimal() and _is_article(number)):
        return match.group()
    return (match["cue"] or "") + PHONE


def _is_card(number: str) -> bool:
    digits = re.sub("[^0-9]", "", number)
    first, length = int(digits[:4]), len(digits)
    if length == 16:
        issued = 2221 <= first <= 2720 or digits[0] in "3456"
    elif length in (14, 15):
        issued = digits[:2] in (("34", "37") if length == 15 else ("30", "36", "38", "39"))
    else:
        issued = (length in (13, 19) and digits[0] == "4") or (17 <= length <= 19 and digits[0] == "6")
    return issued and _luhn(digits) and not (number.isdecimal() and _is_article(number))


def _luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _is_article(digits: str) -> bool:
    """Whether the last digit is right for a GTIN (8, 12, 13 or 14 digits) or an ISBN-10."""
    if len(digits) == 10:
        return sum((10 - place) * int(digit) for place, digit in enumerate(digits)) % 11 == 0
    if len(digits) not in (8, 12, 13, 14):
        return False
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits))) % 10 == 0
