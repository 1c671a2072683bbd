"""Which test items a text reveals, by a series of rules from certain to likely. docs/clean.md gives the figures behind
each threshold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from dsrl.data.overlap.matchers import NgramOverlap, NgramThreshold, WordOverlap, stem
from dsrl.data.overlap.tokenize import WORD, CodedTexts, MaskingCoder, WordCoder, normalise_word, words

if TYPE_CHECKING:
    from dsrl.data.overlap.tokenize import Mask

Kind = Literal["same", "whole", "run", "most", "renamed", "reworded"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Rules, the most certain first."""

LONG_NGRAM = 13
"""From this size on one shared n-gram is enough; of shorter ones a text must contain `MIN_SHARE` of the item's."""
MIN_ITEM_WORDS = 5
"""Items shorter than this are found only if they are the whole text."""
MAX_PHRASE_ITEMS = 3
"""An n-gram in more items than this is a common phrase and identifies none of them."""
COMMON_SHARE, COMMON_ITEMS = 0.1, 10
"""Words and n-grams in more than this share of items, and in more than this many, belong to the way the items are
worded and are ignored."""
MIN_UNCOMMON_SHARE = 0.3
"""Share of an n-gram's words that must be uncommon: `which of the following statements, if true, would most weaken the
argument` is a way of asking, not an item."""
MIN_SHARE, MIN_SHARED_NGRAMS = 0.5, 3
MASKED_NGRAM = 4
ASSUMED_MASKED_NGRAMS = 10
"""An item with fewer masked n-grams counts as having this many."""
MAX_LOOKALIKES = 0.02
"""A loose rule is disabled when it takes more than this share of items for another item: all are made from a few
templates."""
BATCH_SIZE = 4096
"""Texts compared at once."""

SplitTexts = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Overlap:
    """A test item that a text reveals."""

    text: int
    item: int
    kind: Kind
    size: int
    """n of the rule's n-grams; 0: whole texts or bags of words."""
    share: float
    """Share found of the item's n-grams, or of the weight of its words."""

    @property
    def rank(self) -> int:
        return rule_rank(self.kind)


class Matcher(Protocol):
    def find(self, words: CodedTexts) -> Iterator[tuple[int, int, float]]:
        """Yield (text, item, share)."""


@dataclass(frozen=True)
class OverlapRule:
    kind: Kind
    size: int
    """n of the n-grams; 0: single words in any order."""
    matcher: Matcher


@dataclass(frozen=True)
class RuleGroup:
    """Rules that encode words in the same way."""

    encode: Callable[[SplitTexts], CodedTexts]
    rules: tuple[OverlapRule, ...]

    def find(self, texts: SplitTexts) -> Iterator[tuple[OverlapRule, int, int, float]]:
        """Yield (rule, text, item, share), rule by rule."""
        coded = self.encode(texts)
        by_size = {0: coded, **coded.ngrams(rule.size for rule in self.rules if rule.size)}
        for rule in self.rules:
            for text, item, share in rule.matcher.find(by_size[rule.size]):
                yield rule, text, item, share


class OverlapIndex:
    """All items of a test set as sorted codes of their words and n-grams: a few bytes per word."""

    def __init__(
        self,
        items: Sequence[str],
        ngrams: Sequence[int] = (13, 8),
        renamed: float | None = MIN_SHARE,
        reworded: float | None = MIN_SHARE,
    ) -> None:
        """`renamed` is the minimum share of an item's masked n-grams, `reworded` that of its words' weight; None turns
        the rule off."""
        import numpy

        split = [words(item) for item in items]
        self._coder, masker, stems = WordCoder(normalise_word), MaskingCoder(split), WordCoder(stem)
        coded = self._coder.encode(split)
        self._by_content: dict[bytes, list[int]] = {}
        for item, content in enumerate(coded.contents()):
            self._by_content.setdefault(content, []).append(item)
        distinct = numpy.zeros(len(split), dtype=bool)
        distinct[[same[0] for same in self._by_content.values()]] = True
        self._by_content.pop(b"", None)
        self._groups = [RuleGroup(self._coder.encode, exact_rules(coded, distinct, ngrams))]
        self.disabled_rules: tuple[Kind, ...] = ()
        """Rules that were asked for but cannot tell the items of this set apart."""
        if renamed is not None:
            rule = renamed_rule(masker.encode(split), distinct, renamed)
            self._add_unless_ambiguous(RuleGroup(masker.encode, (rule,)), split, distinct)
        if reworded is not None:
            rule = reworded_rule(stems.encode(split), distinct, reworded)
            self._add_unless_ambiguous(RuleGroup(stems.encode, (rule,)), split, distinct)

    def _add_unless_ambiguous(self, group: RuleGroup, items: SplitTexts, distinct: "Mask") -> None:
        known = {(text, item) for rule, text, item, _ in self._find(items)}
        pairs = ((text, item) for _, text, item, _ in group.find(items) if text != item)
        lookalikes = {item for text, item in pairs if distinct[text] and distinct[item] and (text, item) not in known}
        if len(lookalikes) > MAX_LOOKALIKES * len(items):
            self.disabled_rules += tuple(rule.kind for rule in group.rules)
        else:
            self._groups.append(group)

    def find_overlaps(self, texts: Sequence[str]) -> Iterator[Overlap]:
        """Yield each (text, item) pair once, by its most certain rule, in the order of texts."""
        for start in range(0, len(texts), BATCH_SIZE):
            split = [words(text) for text in texts[start : start + BATCH_SIZE]]
            found: dict[tuple[int, int], Overlap] = {}
            for text, content in enumerate(self._coder.encode(split).contents()):
                for item in self._by_content.get(content, ()):
                    found[text, item] = Overlap(start + text, item, "same", 0, 1.0)
            for rule, text, item, share in self._find(split):
                found.setdefault((text, item), Overlap(start + text, item, rule.kind, rule.size, share))
            yield from (found[pair] for pair in sorted(found))

    def _find(self, split: SplitTexts) -> Iterator[tuple[OverlapRule, int, int, float]]:
        for group in self._groups:
            yield from group.find(split)


def exact_rules(coded: CodedTexts, distinct: "Mask", ngrams: Sequence[int]) -> tuple[OverlapRule, ...]:
    """Rules under which names and numbers must agree: whole short items first, then the longest n-grams first."""
    lengths, common = coded.lengths(), max(COMMON_ITEMS, round(COMMON_SHARE * coded.num_texts))
    long = min((size for size in ngrams if size >= LONG_NGRAM), default=LONG_NGRAM)
    short = sorted({int(length) for length in lengths if MIN_ITEM_WORDS <= length < long})
    uncommon = coded.document_frequency(distinct) <= common
    phrase = NgramThreshold(max_items=MAX_PHRASE_ITEMS)
    rules = []
    for size, grams in coded.ngrams([*short, *ngrams]).items():
        telling = grams.select(coded.count_in_ngrams(uncommon, size) >= MIN_UNCOMMON_SHARE * size)
        if size in short:
            whole = telling.select(lengths[telling.owners] == size)
            rules.append(OverlapRule("whole", size, NgramOverlap(whole, distinct, phrase)))
        if size in ngrams and size >= LONG_NGRAM:
            rules.append(OverlapRule("run", size, NgramOverlap(telling, distinct, phrase)))
        elif size in ngrams:
            threshold = NgramThreshold(max_items=common, min_share=MIN_SHARE, min_count=MIN_SHARED_NGRAMS)
            rules.append(OverlapRule("most", size, NgramOverlap(grams, distinct, threshold)))
    return tuple(sorted(rules, key=lambda rule: (rule_rank(rule.kind), -rule.size)))


def renamed_rule(masked: CodedTexts, distinct: "Mask", min_share: float) -> OverlapRule:
    """Find items under other names and numbers, by n-grams of masked words."""
    threshold = NgramThreshold(max_items=MAX_PHRASE_ITEMS, min_share=min_share, assumed_min=ASSUMED_MASKED_NGRAMS)
    grams = masked.ngrams([MASKED_NGRAM])[MASKED_NGRAM]
    return OverlapRule("renamed", MASKED_NGRAM, NgramOverlap(grams, distinct, threshold))


def reworded_rule(stems: CodedTexts, distinct: "Mask", min_share: float) -> OverlapRule:
    """Find items in other words, by their stems in any order."""
    max_items = max(MAX_PHRASE_ITEMS, round(COMMON_SHARE * stems.num_texts))
    return OverlapRule("reworded", 0, WordOverlap(stems, distinct, max_items, min_share))


def rule_rank(kind: str) -> int:
    """0 is the most certain rule."""
    return KINDS.index(kind)


def rejection_reason(kind: str, size: int) -> str:
    """The countable reason that is stored with a rejected sample."""
    reasons = {
        "same": "the same as a test item",
        "whole": "a whole test item",
        "run": f"{size} words of a test item",
        "most": "most of a test item",
        "renamed": "a test item but for names and numbers",
        "reworded": "a test item in other words",
    }
    return reasons[kind]


def longest_shared_run(text: str, other: str) -> str:
    """The longest run of words that occurs in both, as `text` writes it; empty if there is none."""
    matcher, spans = _align(text, other)
    run = matcher.find_longest_match()
    return text[spans[run.a][0] : spans[run.a + run.size - 1][1]] if run.size else ""


def split_shared(text: str, other: str) -> list[tuple[str, bool]]:
    """`text` in pieces, each with whether its words also occur, in this order, in `other`."""
    matcher, spans = _align(text, other)
    pieces: list[tuple[str, bool]] = []
    end = 0
    for run in matcher.get_matching_blocks():
        if run.size:
            start, stop = spans[run.a][0], spans[run.a + run.size - 1][1]
            pieces += [(text[end:start], False), (text[start:stop], True)]
            end = stop
    return [piece for piece in (*pieces, (text[end:], False)) if piece[0]]


def _align(text: str, other: str) -> "tuple[SequenceMatcher[str], list[tuple[int, int]]]":
    """A matcher over normalised words, and the span of each word in `text`."""
    found = list(WORD.finditer(text))
    ours, theirs = [normalise_word(match[0]) for match in found], [normalise_word(word) for word in words(other)]
    return SequenceMatcher(None, ours, theirs, autojunk=False), [match.span() for match in found]
