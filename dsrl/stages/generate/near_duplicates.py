"""Candidates that say nearly the same as a sample that is there: they are no news, and not worth their votes."""

import dataclasses
from collections.abc import Iterable

from dsrl.core.digest import text_digest
from dsrl.data.overlap.near_duplicates import NearDuplicates
from dsrl.data.sample import Provenance, Rejected, Sample

REASON = "near-duplicate"


class Near:
    """The samples accepted so far, by what they say.

    A candidate is looked at twice: before its votes, against those settled by then, which may be any number of those
    before it; and when its turn comes, against all of them. The second look finds all that the first one finds, and
    both leave the same record, so it is only what is paid that depends on arrival.
    """

    def __init__(self, threshold: float | None, samples: Iterable[Sample] = ()) -> None:
        """`threshold`: least share of common word triples; None: only equal inputs are duplicates."""
        self._index = None if threshold is None else NearDuplicates(threshold)
        self._ids: list[str] = []
        self._equal: set[str] = set()
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        """What follows is compared with this one, too, unless it has pictures: words about another picture may be the
        same."""
        if self._index is not None and not sample.images:
            self._index.add(self._index.signature(sample.input))
            self._ids.append(sample.id)
            self._equal.add(text_digest(sample.input))

    def refusal(self, stage: str, text: str | None, parent_id: str | None, provenance: Provenance) -> Rejected | None:
        """The record of a candidate that is nearly one of these; equal ones are somebody else's business, and a rewrite
        may resemble the sample that it was made from."""
        if self._index is None or text is None or text_digest(text) in self._equal:
            return None
        for place, similarity in self._index.find_similar(self._index.signature(text)):
            if self._ids[place] != parent_id:
                return Rejected(
                    stage=stage,
                    reason=REASON,
                    detail=f"{similarity:.2f} alike: sample {self._ids[place]}",
                    input=text,
                    parent_id=parent_id,
                    provenance=dataclasses.replace(provenance, calls=provenance.calls[:1]),
                )
        return None
