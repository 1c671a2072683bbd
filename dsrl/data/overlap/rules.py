"""The rules by which a text gives an item away, built for one set of items; docs/clean.md says how each was settled."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from dsrl.data.overlap.bag_of_words import Bags
from dsrl.data.overlap.ngrams import Demand, Runs
from dsrl.data.overlap.tokenize import Coded

if TYPE_CHECKING:
    from dsrl.data.overlap.tokenize import Flags

Kind = Literal["same", "whole", "run", "most", "renamed", "reworded"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The surest first."""

ENOUGH = 13
"""Words in a row of which one shared run is enough; of shorter runs it takes half of an item's."""
FEWEST = 5
"""Words of the shortest item that is sought inside a text; a shorter one must be all of it."""
PHRASE = 3
"""A run of words that stands in more items than that is a phrase that belongs to none of them."""
COMMON, FEW_ITEMS = 0.1, 10
"""What stands in more than this share of items, and in more than so many, is how such items are put: it counts for
nothing."""
TELLING = 0.3
"""Share of a run's words that must be uncommon, which is to stand in fewer items than COMMON: `which of the following
statements, if true, would most weaken the argument` is a way of asking, not an item."""
SHARE, FEWEST_RUNS = 0.5, 3
"""How much of an item's shorter runs a text must have, and how many at least."""
MASKED = 4
"""Words in a row of masked texts."""
FEWEST_MASKED = 10
"""Runs that an item of fewer counts as having when it is sought under other names."""

Split = Sequence[Sequence[str]]
Found = Iterator[tuple[int, int, float]]


class Finder(Protocol):
    """Looks items up."""

    def found(self, words: Coded) -> Found:
        """(text, item, share) for every pair in which the text has enough of the item."""


@dataclass(frozen=True)
class Rule:
    """What is looked up, and what finding it means."""

    kind: Kind
    size: int
    """Words in a row; 0: words in any order."""
    finder: Finder


@dataclass(frozen=True)
class Reader:
    """Rules that read words in the same way, the surest first."""

    coded: Callable[[Split], Coded]
    rules: tuple[Rule, ...]

    def found(self, texts: Split) -> Iterator[tuple[Rule, int, int, float]]:
        """(rule, text, item, share), rule by rule."""
        words = self.coded(texts)
        rows = {0: words, **words.rows(rule.size for rule in self.rules if rule.size)}
        for rule in self.rules:
            for text, item, share in rule.finder.found(rows[rule.size]):
                yield rule, text, item, share


def plain_rules(coded: Coded, distinct: "Flags", ngrams: Sequence[int]) -> tuple[Rule, ...]:
    """Names and numbers must agree: short items as a whole, then the longest runs first."""
    rules = _plain_rules(coded, distinct, ngrams)
    return tuple(sorted(rules, key=lambda rule: (KINDS.index(rule.kind), -rule.size)))


def _plain_rules(coded: Coded, distinct: "Flags", ngrams: Sequence[int]) -> Iterator[Rule]:
    lengths, common = coded.lengths(), commonplace(coded.count)
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


def renamed_rule(masked: Coded, distinct: "Flags", share: float) -> Rule:
    """Runs of words without names and numbers."""
    rows = masked.rows([MASKED])[MASKED]
    return Rule("renamed", MASKED, Runs(rows, distinct, Demand(most=PHRASE, share=share, least=FEWEST_MASKED)))


def reworded_rule(stems: Coded, distinct: "Flags", share: float) -> Rule:
    """Words without their endings, in any order; of a small set few are telling."""
    return Rule("reworded", 0, Bags(stems, distinct, max(PHRASE, round(COMMON * stems.count)), share))


def commonplace(count: int) -> int:
    """Items, of so many, in which something may stand that still tells one from another."""
    return max(FEW_ITEMS, round(COMMON * count))


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
        "reworded": "a test item in other words",
    }
    return words[kind]
