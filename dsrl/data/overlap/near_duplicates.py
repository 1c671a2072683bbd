"""Near-duplicate texts, found by MinHash signatures over word trigrams."""

from collections.abc import Iterator
from typing import Any

from dsrl.core.digest import digest, normalised

NUM_HASHES, NUM_BANDS = 128, 16
SHINGLE_WORDS = 3


class NearDuplicates:
    """MinHash index over the texts added so far; memory grows with their number."""

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._threshold, self._new_signature = threshold, RMinHash
        self._index: Any = RMinHashLSH(threshold=threshold, num_perm=NUM_HASHES, num_bands=NUM_BANDS)
        self._signatures: list[Any] = []

    def add_if_new(self, text: str) -> bool:
        """Add `text` unless a similar text is in the index. Returns whether it was added."""
        signature = self.signature(text)
        if next(self.find_similar(signature), None) is not None:
            return False
        self.add(signature)
        return True

    def signature(self, text: str) -> Any:
        signature = self._new_signature(num_perm=NUM_HASHES, seed=42)
        signature.update(shingles(text))
        return signature

    def find_similar(self, signature: Any) -> Iterator[tuple[int, float]]:
        """Yield (position in order of insertion, estimated Jaccard similarity) of texts at or above the threshold."""
        for position in sorted(self._index.query(signature)):
            similarity = signature.jaccard(self._signatures[position])
            if similarity >= self._threshold:
                yield position, similarity

    def add(self, signature: Any) -> None:
        self._index.insert(len(self._signatures), signature)
        self._signatures.append(signature)


def shingles(text: str) -> list[str]:
    """Word trigrams, or the digest of a text with fewer than three words."""
    words = normalised(text).split()
    ngrams = [" ".join(words[start : start + SHINGLE_WORDS]) for start in range(len(words) - SHINGLE_WORDS + 1)]
    return ngrams or [digest(text)]
