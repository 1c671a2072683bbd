"""Test items that a text gives away: all rules, from sure to likely, on many texts at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsrl.data.overlap.bag_of_words import stem
from dsrl.data.overlap.rules import SHARE, Kind, Reader, Rule, Split, plain_rules, rank, renamed_rule, reworded_rule
from dsrl.data.overlap.tokenize import Coder, Masker, plain, words

if TYPE_CHECKING:
    from dsrl.data.overlap.tokenize import Flags

ALIKE = 0.02
"""Share of items of which another one is the same but for names and numbers, or in other words, and in no surer way,
from which on such a rule says nothing: all items are made by a few patterns."""
AT_ONCE = 4096
"""Texts that are looked at together."""


@dataclass(frozen=True)
class Hit:
    """An item that a text gives away."""

    text: int
    item: int
    kind: Kind
    size: int
    """Words in a row that the rule looks at; 0: all of them."""
    share: float
    """Of the item's runs of that size, or of the weight of its words, those found."""

    @property
    def rank(self) -> int:
        """0: nothing is surer."""
        return rank(self.kind)


class Items:
    """All items of a test set, as sorted codes of their words and runs of words: a few bytes a word."""

    def __init__(
        self,
        items: Sequence[str],
        ngrams: Sequence[int] = (13, 8),
        renamed: float | None = SHARE,
        reworded: float | None = SHARE,
    ) -> None:
        """`ngrams`: words in a row; `renamed`: share of an item's masked runs, `reworded`: of the weight of its words;
        None: that rule isn't applied."""
        split = [words(item) for item in items]
        coder, masker, stems = Coder(plain), Masker(split), Coder(stem)
        coded = coder.coded(split)
        self._same: dict[bytes, list[int]] = {}
        for item, content in enumerate(coded.contents()):
            self._same.setdefault(content, []).append(item)
        distinct = _flags(len(split), [places[0] for places in self._same.values()])
        self._same.pop(b"", None)
        self._coder = coder
        self._readers = [Reader(coder.coded, plain_rules(coded, distinct, ngrams))]
        self.silent: tuple[Kind, ...] = ()
        """Rules that were asked for and say nothing of this set."""
        if renamed is not None:
            self._add(Reader(masker.coded, (renamed_rule(masker.coded(split), distinct, renamed),)), split, distinct)
        if reworded is not None:
            self._add(Reader(stems.coded, (reworded_rule(stems.coded(split), distinct, reworded),)), split, distinct)

    def _add(self, reader: Reader, items: Split, distinct: "Flags") -> None:
        """One more rule, if it tells the items from each other as well as those that are there."""
        known = {(text, item) for rule, text, item, _ in self._read(items)}
        pairs = ((text, item) for _, text, item, _ in reader.found(items) if text != item)
        alike = {item for text, item in pairs if distinct[text] and distinct[item] and (text, item) not in known}
        if len(alike) > ALIKE * len(items):
            self.silent += tuple(rule.kind for rule in reader.rules)
        else:
            self._readers.append(reader)

    def hits(self, texts: Sequence[str]) -> Iterator[Hit]:
        """Every pair of a text and an item that it gives away, once, by its surest rule; texts in their order."""
        for start in range(0, len(texts), AT_ONCE):
            split = [words(text) for text in texts[start : start + AT_ONCE]]
            found = {(text, item): Hit(start + text, item, "same", 0, 1.0) for text, item in self._equal(split)}
            for rule, text, item, share in self._read(split):
                found.setdefault((text, item), Hit(start + text, item, rule.kind, rule.size, share))
            yield from (found[pair] for pair in sorted(found))

    def _equal(self, split: Split) -> Iterator[tuple[int, int]]:
        for text, content in enumerate(self._coder.coded(split).contents()):
            yield from ((text, item) for item in self._same.get(content, ()))

    def _read(self, split: Split) -> Iterator[tuple[Rule, int, int, float]]:
        for reader in self._readers:
            yield from reader.found(split)


def _flags(count: int, places: Sequence[int]) -> "Flags":
    import numpy

    flags = numpy.zeros(count, dtype=bool)
    flags[list(places)] = True
    return flags
