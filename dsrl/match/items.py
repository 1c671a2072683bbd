"""Test items that a text gives away, by five rules from sure to likely; docs/clean.md says how each was settled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from dsrl.match.runs import Demand, Runs
from dsrl.match.words import Coded, Coder, Masker, plain, words

if TYPE_CHECKING:
    from dsrl.match.words import Flags

Kind = Literal["same", "whole", "run", "most", "renamed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The surest first."""

ENOUGH = 13
"""Words in a row of which one shared run is enough; of shorter runs it takes half of an item's."""
FEWEST = 5
"""Words of the shortest item that is sought inside a text; a shorter one must be all of it."""
PHRASE = 3
"""A run of words that stands in more items than that is a phrase that belongs to none of them."""
COMMON, FEW_ITEMS = 0.1, 10
"""A run that stands in more than this share of items, and in more than so many, is how such items are put: it counts
for nothing."""
TELLING = 0.3
"""Share of a run's words that must be uncommon, which is to stand in fewer items than COMMON: `which of the following
statements, if true, would most weaken the argument` is a way of asking, not an item."""
SHARE, FEWEST_RUNS = 0.5, 3
"""How much of an item's shorter runs a text must have, and how many at least."""
MASKED = 4
"""Words in a row of masked texts."""
FEWEST_MASKED = 10
"""Runs that an item of fewer counts as having when it is sought under other names."""
ALIKE = 0.01
"""Share of items of which another one is the same but for names and numbers, from which on this says nothing: all items
are made by a few patterns."""
AT_ONCE = 4096
"""Texts that are looked at together."""


@dataclass(frozen=True)
class Hit:
    """An item that a text gives away."""

    text: int
    item: int
    kind: Kind
    size: int
    """Words in a row that the rule looks at."""
    share: float
    """Of the item's runs of that size, those found."""

    @property
    def rank(self) -> int:
        """0: nothing is surer."""
        return rank(self.kind)


def rank(kind: str) -> int:
    """0: no rule is surer."""
    return KINDS.index(kind)


def reason(kind: str, size: int) -> str:
    """A rule in words that can be counted."""
    words = {
        "same": "the same as a test item",
        "whole": "a whole test item",
        "run": f"{size} words of a test item",
        "most": "most of a test item",
        "renamed": "a test item but for names and numbers",
    }
    return words[kind]


@dataclass(frozen=True)
class Rule:
    """Runs of one length and what finding them means."""

    kind: Kind
    size: int
    runs: Runs


class Items:
    """All items of a test set, as sorted codes of their runs of words: a few bytes a word."""

    def __init__(self, items: Sequence[str], ngrams: Sequence[int] = (13, 8), renamed: float | None = SHARE) -> None:
        """`ngrams`: words in a row; `renamed`: share of an item's masked runs, None: names and numbers must agree."""
        split = [words(item) for item in items]
        self._coder = Coder(plain)
        coded = self._coder.coded(split)
        self._same: dict[bytes, list[int]] = {}
        for item, content in enumerate(coded.contents()):
            self._same.setdefault(content, []).append(item)
        distinct = _flags(len(split), (places[0] for places in self._same.values()))
        self._same.pop(b"", None)
        rules = _rules(coded, distinct, ngrams)
        self._plain = sorted(rules, key=lambda rule: (KINDS.index(rule.kind), -rule.size))
        self._masker = Masker(split)
        self._masked = None if renamed is None else _masked(self._masker.coded(split), distinct, renamed)

    @property
    def names_tell(self) -> bool:
        """Whether items are sought under other names and numbers."""
        return self._masked is not None

    def hits(self, texts: Sequence[str]) -> Iterator[Hit]:
        """Every pair of a text and an item that it gives away, once, by its surest rule; texts in their order."""
        for start in range(0, len(texts), AT_ONCE):
            found: dict[tuple[int, int], Hit] = {}
            for hit in self._found([words(text) for text in texts[start : start + AT_ONCE]], start):
                found.setdefault((hit.text, hit.item), hit)
            yield from (found[pair] for pair in sorted(found))

    def _found(self, split: Sequence[Sequence[str]], start: int) -> Iterator[Hit]:
        coded = self._coder.coded(split)
        for text, content in enumerate(coded.contents(), start):
            for item in self._same.get(content, ()):
                yield Hit(text, item, "same", 0, 1.0)
        yield from _applied(self._plain, coded, start)
        if self._masked:
            yield from _applied([self._masked], self._masker.coded(split), start)


def _applied(rules: Sequence[Rule], coded: Coded, start: int) -> Iterator[Hit]:
    rows = coded.rows(rule.size for rule in rules)
    for rule in rules:
        for text, item, share in rule.runs.found(rows[rule.size]):
            yield Hit(start + text, item, rule.kind, rule.size, share)


def _rules(coded: Coded, distinct: "Flags", ngrams: Sequence[int]) -> Iterator[Rule]:
    """Short items as a whole, then the longest runs first."""
    lengths, common = coded.lengths(), max(FEW_ITEMS, round(COMMON * coded.count))
    long = min((size for size in ngrams if size >= ENOUGH), default=ENOUGH)
    short = sorted({int(length) for length in lengths if FEWEST <= length < long})
    telling = coded.spread(distinct) <= common
    for size, rows in coded.rows([*short, *ngrams]).items():
        own = rows.only(coded.counted(telling, size) >= TELLING * size)
        if size in short:
            yield Rule("whole", size, Runs(own.only(lengths[own.owners] == size), distinct, Demand(most=PHRASE)))
        if size in ngrams and size >= ENOUGH:
            yield Rule("run", size, Runs(own, distinct, Demand(most=PHRASE)))
        elif size in ngrams:
            yield Rule("most", size, Runs(rows, distinct, Demand(most=common, share=SHARE, fewest=FEWEST_RUNS)))


def _masked(coded: Coded, distinct: "Flags", share: float) -> Rule | None:
    """None where too many items are alike."""
    rows = coded.rows([MASKED])[MASKED]
    runs = Runs(rows, distinct, Demand(most=PHRASE, share=share, least=FEWEST_MASKED))
    alike = {item for text, item, _ in runs.found(rows) if distinct[text] and distinct[item] and text != item}
    return None if len(alike) > ALIKE * coded.count else Rule("renamed", MASKED, runs)


def _flags(count: int, places: Iterator[int]) -> "Flags":
    import numpy

    flags = numpy.zeros(count, dtype=bool)
    flags[list(places)] = True
    return flags
