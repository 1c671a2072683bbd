"""What counts as a duplicate of an earlier sample: equal content, nearly equal words, or the generator's own test."""

import dataclasses
from collections.abc import Iterable
from typing import Protocol

from dsrl.core.digest import text_digest
from dsrl.data.overlap.near_duplicates import NearDuplicates
from dsrl.data.sample import Rejectable, Rejected, Sample

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near-duplicate"


class NoveltyTest(Protocol):
    """A generator's own test of whether an input is new, such as ROUGE-L against a pool."""

    def fault(self, text: str) -> str | None:
        """The rejection reason of an input that is not new enough, else None."""

    def add(self, text: str) -> None:
        """Add an accepted input to the pool."""


class DuplicateFilter:
    """Compares candidates with the samples accepted so far.

    Near-duplicates are looked for twice. `near_duplicate_of` runs before the verifiers, against whatever is accepted by
    then, and saves their cost; `check` runs when the candidate's turn comes, against all earlier samples. The second
    test finds everything that the first one finds and leaves the same record, so the result does not depend on the
    order in which replies arrive.
    """

    def __init__(
        self, threshold: float | None = None, novelty: NoveltyTest | None = None, samples: Iterable[Sample] = ()
    ) -> None:
        """`threshold` is the least Jaccard similarity of word triples that makes a near-duplicate; with None only equal
        content is a duplicate."""
        self._index = None if threshold is None else NearDuplicates(threshold)
        self._indexed_ids: list[str] = []
        self._indexed_texts: set[str] = set()
        self._content: set[str] = set()
        self._novelty = novelty
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        """Compare later candidates with this sample, too. Samples with images are compared by equal content only,
        because the same words may ask about another image."""
        self._content.add(sample.content_key)
        if self._index is not None and not sample.images:
            self._index.add(self._index.signature(sample.input))
            self._indexed_ids.append(sample.id)
            self._indexed_texts.add(text_digest(sample.input))
        if self._novelty is not None:
            self._novelty.add(sample.input)

    def check(self, outcome: Sample | Rejected, stage: str) -> Rejected | None:
        """The rejection of an outcome that duplicates an accepted sample, else None. A candidate that a verifier
        rejected is a near-duplicate first: whether the verifiers saw it depends on arrival."""
        if isinstance(outcome, Sample):
            if outcome.content_key in self._content:
                return Rejected.of(outcome, stage, DUPLICATE, "the same input as an earlier sample")
            if self._novelty is not None and (fault := self._novelty.fault(outcome.input)):
                return Rejected.of(outcome, stage, fault, "too like an earlier sample")
        return None if outcome.input is None else self.near_duplicate_of(outcome, stage)  # type: ignore[arg-type]

    def near_duplicate_of(self, candidate: Rejectable, stage: str) -> Rejected | None:
        """The rejection of a candidate that nearly equals an accepted sample, else None. A rewrite may resemble its own
        parent, and equal texts are left to `check`."""
        if self._index is None or candidate.images or text_digest(candidate.input) in self._indexed_texts:
            return None
        for place, similarity in self._index.find_similar(self._index.signature(candidate.input)):
            if self._indexed_ids[place] != candidate.parent_id:
                record = Rejected.of(
                    candidate, stage, NEAR_DUPLICATE, f"{similarity:.2f} alike: sample {self._indexed_ids[place]}"
                )
                provenance = dataclasses.replace(record.provenance, calls=record.provenance.calls[:1])
                # The same record whether or not the verifiers saw the candidate.
                return dataclasses.replace(record, answer=None, votes=None, provenance=provenance)
        return None
