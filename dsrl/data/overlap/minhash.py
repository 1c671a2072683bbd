"""Texts that say nearly the same as an earlier one, found by MinHash signatures of their word triples."""

from collections.abc import Iterator
from typing import Any

from dsrl.core.digest import digest, normalised

NUM_HASHES, NUM_BANDS = 128, 16
WORDS = 3


class NearDuplicates:
    """Remembers a signature of every text; memory grows with their number."""

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._threshold, self._signature = threshold, RMinHash
        self._index: Any = RMinHashLSH(threshold=threshold, num_perm=NUM_HASHES, num_bands=NUM_BANDS)
        self._kept: list[Any] = []

    def new(self, text: str) -> bool:
        """Whether no text before is nearly the same; if so it is remembered."""
        signature = self.signature(text)
        if next(self.alike(signature), None) is not None:
            return False
        self.remember(signature)
        return True

    def signature(self, text: str) -> Any:
        """What texts are compared by."""
        signature = self._signature(num_perm=NUM_HASHES, seed=42)
        signature.update(shingles(text))
        return signature

    def alike(self, signature: Any) -> Iterator[tuple[int, float]]:
        """Places of texts that are nearly the same, in the order in which they were remembered, and how near."""
        for place in sorted(self._index.query(signature)):
            similarity = signature.jaccard(self._kept[place])
            if similarity >= self._threshold:
                yield place, similarity

    def remember(self, signature: Any) -> None:
        """Compare what follows with this, too."""
        self._index.insert(len(self._kept), signature)
        self._kept.append(signature)


def shingles(text: str) -> list[str]:
    """Every three words in a row; the text itself where it has fewer."""
    words = normalised(text).split()
    return [" ".join(words[place : place + WORDS]) for place in range(len(words) - WORDS + 1)] or [digest(text)]
