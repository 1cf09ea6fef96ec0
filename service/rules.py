"""The shop's rules, ready for queries: what each says to the seeds of one query, and to each hit. Pure.

`CompiledRules` is made once per version of the file; a `Ruling` is what it says to one query. What can be
said to the index is (barriers, pairs that are never similar); blocked words and items are looked for in each
candidate's payload, before anything is cut to the number of hits that was asked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from schemas.api import AppliedRule, Filter, RuleKind
from schemas.items import category_terms
from schemas.rules import Match, Rule, RulesFile
from schemas.vectors import AnyOf, Clause, Ids, Where
from service.filters import holds

#: Scripts written without spaces: a word of theirs is found inside others.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True)
class Seen:
    """What rules look at in a positive seed."""

    product_id: str | None
    category: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lift:
    """A factor for the score of hits for which `where` holds."""

    rule: AppliedRule
    factor: float
    where: Where


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say to one query."""

    book: CompiledRules
    #: Never hits, for these seeds.
    must_not: tuple[Clause, ...] = ()
    #: Hits in any case, if the request's filters let them through.
    pinned: Mapping[str, AppliedRule] = field(default_factory=dict)
    lifts: tuple[Lift, ...] = ()
    #: Sentences on what was left out.
    notes: tuple[str, ...] = ()

    def narrowed(self, where: Where) -> Where:
        """The conditions of the query, with what the rules leave out."""
        return Where(where.must, (*where.must_not, *self.must_not)) if self.must_not else where

    def refuses(self, payload: Mapping[str, Any]) -> bool:
        """Whether a candidate is blocked."""
        return self.book.refuses(payload)

    @property
    def picky(self) -> bool:
        """Whether candidates may be refused one by one, so that more of them may be needed."""
        return self.book.blocks

    def factor(self, payload: Mapping[str, Any]) -> float | None:
        """What the score of a hit is multiplied by; None where no rule says anything."""
        factor = None
        for lift in self.lifts:
            if holds(lift.where, payload):
                factor = (1.0 if factor is None else factor) * lift.factor
        return factor

    def applied(self, payload: Mapping[str, Any]) -> list[AppliedRule]:
        """The rules that moved a hit."""
        own = self.pinned.get(payload.get("product_id", ""))
        moved = [lift.rule for lift in self.lifts if holds(lift.where, payload)]
        return moved if own is None else [own, *moved]

    def raised(self) -> list[Where]:
        """Conditions of what a factor may carry up from below the candidates; one more call for each."""
        found: list[Where] = []
        merged: dict[str, list[Any]] = {}
        for lift in self.lifts:
            if lift.factor <= 1:
                continue
            if len(lift.where.must) > 1:
                found.append(lift.where)
                continue
            (clause,) = lift.where.must
            if isinstance(clause, Ids):
                merged.setdefault("", []).extend(clause.product_ids)
            elif isinstance(clause, AnyOf):
                merged.setdefault(clause.field, []).extend(clause.values)
        for name, values in merged.items():
            chosen = tuple(dict.fromkeys(values))
            found.append(Where((AnyOf(name, chosen) if name else Ids(chosen),)))
        return found


class CompiledRules:
    """One version of the file. Immutable."""

    def __init__(self, file: RulesFile) -> None:
        self._file = file
        self._same = {name: tuple(group) for group in file.synonyms for name in group}
        self._never = _pairs("never_similar", file.never_similar)
        self._always = _pairs("always_similar", file.always_similar)
        self._barriers = self._sides("barriers", file.barriers)
        self._bridges = self._sides("bridges", file.bridges)
        self._lifts = [
            *((rule, self._lift("boosts", place, rule, "boost")) for place, rule in enumerate(file.boosts)),
            *(
                (rule, self._lift("demotions", place, rule, "demotion"))
                for place, rule in enumerate(file.demotions)
            ),
        ]
        self._items = frozenset(file.blocked.items)
        self._words = _pattern(file.blocked.words)

    @property
    def blocks(self) -> bool:
        """Whether anything is blocked."""
        return bool(self._items) or self._words is not None

    def counts(self) -> dict[str, int]:
        """How many rules of each kind it has."""
        file = self._file
        kinds = ("synonyms", "never_similar", "always_similar", "barriers", "bridges", "boosts", "demotions")
        found = {name: len(getattr(file, name)) for name in kinds}
        return {**found, "blocked_items": len(self._items), "blocked_words": len(file.blocked.words)}

    def refuses(self, payload: Mapping[str, Any]) -> bool:
        """Whether the item of this payload is blocked: by id, or by a word of title, brand, attributes."""
        if payload.get("product_id") in self._items:
            return True
        if self._words is None:
            return False
        values = [term.partition("=")[2] for term in payload.get("attributes") or ()]
        text = " ".join([payload.get("title") or "", payload.get("brand_name") or "", *values])
        return self._words.search(_folded(text)) is not None

    def widened(self, wanted: Filter) -> Filter:
        """The filter, each category with those that mean the same."""
        if not wanted.category or not self._same:
            return wanted
        return wanted.model_copy(update={"category": list(self._all_names(wanted.category))})

    def leaf(self, path: Sequence[str]) -> tuple[str, ...]:
        """A category path with every level by the first name of its group, so that synonyms are equal."""
        return tuple(self._same.get(level, (level,))[0] for level in path)

    def ruling(self, seeds: Sequence[Seen], now: datetime) -> Ruling:
        """What the rules say to a query with these positive seeds. Any one of several seeds is enough."""
        must_not: list[Clause] = []
        notes: list[str] = []
        ids = [seed.product_id for seed in seeds if seed.product_id is not None]
        if never := self._partners(self._never, ids, now):
            must_not.append(Ids(tuple(sorted(never))))
            notes.append(f"rules: never similar to a seed: {', '.join(sorted(never))}")
        pinned = {one: rule for one, rule in self._partners(self._always, ids, now).items() if one not in ids}
        terms = {term for seed in seeds for term in category_terms(list(seed.category))}
        for rule, label, other in self._crossing(self._barriers, terms, now):
            must_not.append(AnyOf("category", other))
            why = f" ({rule.reason})" if rule.reason else ""
            notes.append(f"rules: {label} leaves out the category {other[0]!r}{why}")
        lifts = [
            Lift(
                AppliedRule(rule=label, kind="bridge", factor=rule.factor, reason=rule.reason),
                rule.factor,
                Where((AnyOf("category", other),)),
            )
            for rule, label, other in self._crossing(self._bridges, terms, now)
        ]
        lifts += [lift for rule, lift in self._lifts if rule.holds(now)]
        return Ruling(self, tuple(must_not), pinned, tuple(lifts), tuple(notes))

    @staticmethod
    def _partners(
        pairs: Mapping[str, Sequence[tuple[str, Rule, AppliedRule]]], ids: Iterable[str], now: datetime
    ) -> dict[str, AppliedRule]:
        return {other: shown for one in ids for other, rule, shown in pairs.get(one, ()) if rule.holds(now)}

    def _sides(self, section: str, rules: Sequence[Any]) -> dict[str, list[tuple[Any, str, tuple[str, ...]]]]:
        """By each name of a side: the rule, its label, and the names of the other side."""
        sides: dict[str, list[tuple[Any, str, tuple[str, ...]]]] = {}
        for place, rule in enumerate(rules):
            one, other = (self._all_names([side]) for side in rule.between)
            for name in one:
                sides.setdefault(name, []).append((rule, _label(section, place, rule), other))
            for name in other:
                sides.setdefault(name, []).append((rule, _label(section, place, rule), one))
        return sides

    @staticmethod
    def _crossing(
        sides: Mapping[str, Sequence[tuple[Any, str, tuple[str, ...]]]], terms: Iterable[str], now: datetime
    ) -> list[tuple[Any, str, tuple[str, ...]]]:
        found = {}
        for term in terms:
            for rule, label, other in sides.get(term, ()):
                if rule.holds(now):
                    found[label, other] = (rule, label, other)
        return [found[key] for key in sorted(found)]

    def _lift(self, section: str, place: int, rule: Any, kind: RuleKind) -> Lift:
        shown = AppliedRule(
            rule=_label(section, place, rule), kind=kind, factor=rule.factor, reason=rule.reason
        )
        return Lift(shown, rule.factor, self._where(rule.match))

    def _where(self, match: Match) -> Where:
        must: list[Clause] = []
        if match.items:
            must.append(Ids(tuple(match.items)))
        if match.category:
            must.append(AnyOf("category", self._all_names(match.category)))
        if match.brand:
            must.append(AnyOf("brand", tuple(brand.casefold() for brand in match.brand)))
        for name, values in match.attributes.items():
            if values:
                must.append(AnyOf("attributes", tuple(f"{name}={value}".casefold() for value in values)))
        return Where(tuple(must))

    def _all_names(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each for name in names for each in (name, *self._same.get(name, ()))))


def _pairs(section: str, rules: Sequence[Any]) -> dict[str, list[tuple[str, Rule, AppliedRule]]]:
    kind: RuleKind = "always_similar" if section == "always_similar" else "never_similar"
    pairs: dict[str, list[tuple[str, Rule, AppliedRule]]] = {}
    for place, rule in enumerate(rules):
        shown = AppliedRule(rule=_label(section, place, rule), kind=kind, reason=rule.reason)
        one, other = rule.items
        pairs.setdefault(one, []).append((other, rule, shown))
        pairs.setdefault(other, []).append((one, rule, shown))
    return pairs


def _label(section: str, place: int, rule: Rule) -> str:
    return rule.name or f"{section}[{place}]"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of the words: a whole one, or within a text of a script without spaces."""
    parts = []
    for word in sorted({_folded(word) for word in words}, key=len, reverse=True):
        quoted = re.escape(word)
        parts.append(quoted if _UNSPACED.search(word) else rf"(?<!\w){quoted}(?!\w)")
    return re.compile("|".join(parts)) if parts else None


#: What holds where there is no file.
NO_RULES = CompiledRules(RulesFile())
NOTHING_SAID = Ruling(NO_RULES)
