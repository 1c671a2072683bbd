"""Which items each word, or run of words, stands in."""

from typing import TYPE_CHECKING

from dsrl.data.overlap.tokenize import Coded

if TYPE_CHECKING:
    from dsrl.data.overlap.tokenize import Codes, Flags, Numbers


class Postings:
    """Codes in order, each with the items that have it."""

    def __init__(self, rows: Coded) -> None:
        """`rows`: of the items, each pair of a code and its owner once."""
        import numpy

        self.codes, self.place, self.counts = numpy.unique(rows.codes, return_inverse=True, return_counts=True)
        """`place`: where in `codes` each of the rows stands; `counts`: how many items have each code."""
        self._first = numpy.cumsum(self.counts) - self.counts
        self._owners = rows.owners[numpy.argsort(rows.codes, kind="stable")]

    def find(self, codes: "Codes") -> "tuple[Numbers, Flags]":
        """The place of each of these codes, and whether it is there at all."""
        import numpy

        if not len(self.codes):
            return numpy.zeros(len(codes), dtype=numpy.int64), numpy.zeros(len(codes), dtype=bool)
        place = numpy.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        return place, self.codes[place] == codes

    def items(self, places: "Numbers") -> "Numbers":
        """The items of all these places, one after the other, `counts` of each."""
        import numpy

        first, counts = self._first[places], self.counts[places]
        within: Numbers = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
        return self._owners[within + numpy.repeat(first, counts)]


def once(rows: Coded) -> Coded:
    """Each pair of a code and an owner once, by owner and then code."""
    import numpy

    order = numpy.lexsort((rows.codes, rows.owners))
    codes, owners = rows.codes[order], rows.owners[order]
    new = numpy.ones(len(codes), dtype=bool)
    new[1:] = (codes[1:] != codes[:-1]) | (owners[1:] != owners[:-1])
    return Coded(codes[new], owners[new], rows.count)
