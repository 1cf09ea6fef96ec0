"""service/rulebook.py: a rules file is checked as a whole, and the last right version is served."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from fastapi.testclient import TestClient

from app.commands.rules import check
from schemas.errors import Halt
from service.rulebook import InvalidRules, RuleBook, RuleSettings, parsed
from service.rules import CompiledRules
from tests.service.shop import Shop

RIGHT = """
synonyms:
  - [Shoes, Footwear]
never_similar:
  - items: [s1, s3]
barriers:
  - between: [Sport, Home]
    reason: they are not compared
boosts:
  - match: {brand: [Hoka]}
    factor: 2
    from: 2026-11-20
    until: 2026-11-27
blocked:
  items: [s8]
  words: [refurbished]
"""


def book_of(path: Path, text: str) -> RuleBook:
    path.write_text(text, encoding="utf-8")
    return RuleBook(RuleSettings(file=path))


def rewrite(path: Path, text: str) -> None:
    """As editors and mounted configuration do: another file takes the name."""
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def test_every_kind_of_rule_is_read_and_an_empty_file_has_none() -> None:
    assert parsed(RIGHT.encode()).blocked.items == ["s8"]
    assert parsed(b"").blocked.items == []
    assert parsed(b"# nothing yet\n").barriers == []


def test_the_example_of_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    counts = CompiledRules(parsed(example.encode())).counts()
    assert min(counts.values()) >= 1, counts


def test_a_file_is_checked_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RIGHT)
    check(path)
    assert "1 barriers, 1 boosts, 1 blocked_items" in capsys.readouterr().out
    path.write_text("boosts: 1")
    with pytest.raises(InvalidRules):
        check(path)
    with pytest.raises(typer.Exit):
        check(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "boosts:\n- match: {brand: [A]}\n  factr: 2",
            r"boosts\[0\].factr: is no field, did you mean 'factor'",
        ),
        ("boosts:\n- match: {brand: [A]}\n  factor: 0.5", r"boosts\[0\].factor: .*belongs under 'demotions'"),
        ("demotions:\n- match: {brand: [A]}\n  factor: 2", r"demotions\[0\].factor: .*under 'boosts'"),
        ("boosts:\n- match: {}\n  factor: 2", r"boosts\[0\].match: name at least one of items"),
        ("boost: []", r"boost: is no field, did you mean 'boosts'"),
        ("never_similar:\n- items: [a]", r"never_similar\[0\].items: .*at least 2"),
        ("never_similar:\n- items: [a, a]", r"never_similar\[0\]: 'items' names one item twice"),
        ("barriers:\n- between: [X, X]", r"barriers\[0\]: 'between' names one category twice"),
        ("synonyms: [[A, B], [B, C]]", r"synonyms: 'B' stands in two groups"),
        (
            "boosts:\n- {match: {brand: [A]}, factor: 2, from: 2026-11-27, until: 2026-11-20}",
            r"boosts\[0\]: 'until' lies before 'from'",
        ),
        (
            "boosts:\n- {match: {brand: [A]}, factor: 2, until: 2026-11-20T08:00:00}",
            r"boosts\[0\].until: a time needs a zone",
        ),
        (
            "boosts:\n- {match: {brand: [A]}, factor: 2, until: 9999-12-31}",
            r"boosts\[0\].until: expected a year between 1 and 9998",
        ),
        (
            "boosts:\n- {match: {brand: [A]}, factor: 2, from: 2026-11-20, until: '9999-12-31'}",
            r"boosts\[0\].until: expected a year",
        ),
        (
            "boosts:\n- {match: {brand: [A]}, factor: 2, from: 9999-12-31T23:00:00-05:00}",
            r"boosts\[0\].from: expected a year",
        ),
        # Numbers are milliseconds since 1970, and this many are the last day of the calendar.
        (
            "boosts:\n- {match: {brand: [A]}, factor: 2, until: 253402214400000}",
            r"boosts\[0\].until: expected a year",
        ),
        ("blocked:\n  items: [2026-13-45]", r"line 2: '2026-13-45' is no timestamp"),
        ("blocked:\n  items: [!!bool maybe]", r"line 2: 'maybe' is no bool"),
        ("blocked:\n  items: [!!timestamp soon]", r"line 2: 'soon' is no timestamp"),
        ("blocked:\n  items: [!!int '']", r"line 2: '' is no int"),
        ("? [a]\n: b", r"no YAML: unhashable"),
        ("boosts:\n- {match: {brand: [A]}, factor: 2, until: soon}", r"boosts\[0\].until: write a day"),
        (
            "never_similar: [{items: [a, b]}]\nalways_similar: [{items: [b, a]}]",
            r"always_similar\[0\] and never_similar both name b and a",
        ),
        ("barriers: []\nbarriers: []", r"line 2: 'barriers' stands twice"),
        ("blocked: {words: [a, b", r"line 1: no YAML"),
        ("blocked: &b {words: [a]}\nboosts: *b", r"line 2: aliases"),
        ("- a\n- b", r"expected sections .* got a list"),
        ("blocked: {items: [7]}", r"blocked.items\[0\]: .*string.*got 7"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_the_fix(text: str, named: str) -> None:
    with pytest.raises(InvalidRules, match=named):
        parsed(text.encode())


def test_a_missing_or_wrong_file_at_the_start_halts(tmp_path: Path) -> None:
    with pytest.raises(Halt, match=r"SIMSTREAM_RULES__FILE: .*nowhere.yaml cannot be read"):
        RuleBook(RuleSettings(file=tmp_path / "nowhere.yaml"))
    with pytest.raises(Halt, match=r"boosts: .*list"):
        book_of(tmp_path / "rules.yaml", "boosts: 1")


def test_a_new_version_is_taken_and_a_wrong_one_keeps_the_old_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rules.yaml"
    book = book_of(path, RIGHT)
    first = book.rules
    book.look()
    assert book.rules is first
    rewrite(path, "blocked: {items: [s1, s2]}")
    book.look()
    assert book.rules.counts()["blocked_items"] == 2
    good = book.rules
    for text, said in (("boosts: 1", "boosts: "), ("[", "no YAML")):
        rewrite(path, text)
        book.look()
        book.look()
        assert book.rules is good
        assert book.refused is not None
        assert said in book.refused
    path.unlink()
    book.look()
    assert book.rules is good
    assert "cannot be read" in (book.refused or "")
    # One line for each reason, however often it is looked.
    assert sum(record.message.startswith("rules_refused") for record in caplog.records) == 3
    rewrite(path, "blocked: {items: [s1]}")
    book.look()
    assert (book.refused, book.rules.counts()["blocked_items"]) == (None, 1)


def test_going_back_to_the_version_that_is_served_ends_the_complaint(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    book = book_of(path, RIGHT)
    rewrite(path, "boosts: 1")
    book.look()
    assert book.refused is not None
    rewrite(path, RIGHT)
    book.look()
    assert book.refused is None
    path.unlink()
    book.look()
    assert book.refused is not None
    # The same content under another inode is nothing new, and is served all the same.
    rewrite(path, RIGHT)
    book.look()
    assert book.refused is None


def test_readiness_and_metrics_tell_of_a_refused_version(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rules.yaml"
    book = book_of(path, RIGHT)
    with TestClient(shop.app(rules=book)) as client:
        assert client.get("/health/ready").json() == {"status": "ready", "missing": []}
        assert "simstream_rules_refused 0.0" in client.get("/metrics").text
        rewrite(path, "boosts: SECRET")
        book.look()
        ready = client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"
        (noted,) = ready.json()["missing"]
        # Nothing of the file: readiness answers without a key.
        assert noted == {
            "store": "rules",
            "message": "the rules file was refused, and the rules before it are in force: the log says why",
        }
        assert "boosts: " in caplog.text
        assert "SECRET" in caplog.text
        text = client.get("/metrics").text
        assert "simstream_rules_refused 1.0" in text
        assert 'simstream_rules_versions_total{result="refused"}' in text


def test_a_rule_until_the_last_day_that_is_taken_holds() -> None:
    (rule,) = parsed(
        b"boosts: [{match: {brand: [A]}, factor: 2, from: 0001-01-01, until: 9998-12-31}]"
    ).boosts
    assert rule.holds(datetime(2026, 11, 26, tzinfo=UTC))


def test_a_version_that_nobody_foresaw_is_refused_and_a_later_one_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rules.yaml"
    book = book_of(path, RIGHT)
    good = book.rules
    with monkeypatch.context() as patched:

        def fails(_: object) -> CompiledRules:
            raise OverflowError("date value out of range")

        patched.setattr("service.rulebook.CompiledRules", fails)
        rewrite(path, "blocked: {items: [s2]}")
        book.look()
    assert book.rules is good
    assert "OverflowError: date value out of range" in (book.refused or "")
    assert "rules_refused reason=" in caplog.text
    rewrite(path, "blocked: {items: [s1, s2]}")
    book.look()
    assert (book.refused, book.rules.counts()["blocked_items"]) == (None, 2)
