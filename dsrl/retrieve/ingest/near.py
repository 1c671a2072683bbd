"""Documents that say nearly the same as an earlier one, found by MinHash signatures of their word triples."""

from typing import Any

from dsrl.digest import digest, normalised
from dsrl.errors import UserError

NUM_HASHES, NUM_BANDS = 128, 16
WORDS = 3


class NearDuplicates:
    """Remembers a signature of every document; memory grows with their number."""

    def __init__(self, threshold: float) -> None:
        try:
            from rensa import RMinHash, RMinHashLSH
        except ImportError as error:
            raise UserError(
                "retriever.ingest.near_duplicates needs the package rensa",
                next_step="pip install 'dsrl[near]', or leave near_duplicates: null",
            ) from error
        self._threshold, self._signature = threshold, RMinHash
        self._index: Any = RMinHashLSH(threshold=threshold, num_perm=NUM_HASHES, num_bands=NUM_BANDS)
        self._kept: list[Any] = []

    def new(self, text: str) -> bool:
        """Whether no document before is nearly the same; if so it is remembered."""
        signature = self._signature(num_perm=NUM_HASHES, seed=42)
        signature.update(shingles(text))
        if any(signature.jaccard(self._kept[place]) >= self._threshold for place in self._index.query(signature)):
            return False
        self._index.insert(len(self._kept), signature)
        self._kept.append(signature)
        return True


def shingles(text: str) -> list[str]:
    """Every three words in a row; the text itself where it has fewer."""
    words = normalised(text).split()
    return [" ".join(words[place : place + WORDS]) for place in range(len(words) - WORDS + 1)] or [digest(text)]
