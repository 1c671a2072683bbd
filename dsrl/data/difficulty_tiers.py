"""How hard test items are, as `dsrl difficulty` rated them: what it writes, and what splits the figures of a model."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.core.component import record
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from dsrl.data.source import Item

EASY, HARD = 950.0, 1050.0
UNRATED = "unrated"
TIERS = ("easy", "medium", "hard", UNRATED)


@record
class Rated:
    """One item: a row of `ratings.parquet`."""

    id: str
    input: str
    group: str | None = None
    """Its siblings share the rating."""
    rating: float | None
    """On the Elo scale, 1000 in the middle; None: unrated."""
    low: float | None
    high: float | None
    tier: str | None
    """easy, medium or hard."""
    wins: int
    """Battles in which it was the harder one."""
    ties: int
    losses: int


def tier(rating: float | None) -> str | None:
    """The paper's bins: easy up to 950, hard from 1050; None for an unrated item."""
    if rating is None or math.isnan(rating):
        return None
    return "easy" if rating <= EASY else "hard" if rating >= HARD else "medium"


def in_order(names: Iterable[str | None]) -> list[str]:
    """Names of subjects by the alphabet, tiers from easy to hard; each once."""
    return sorted({name for name in names if name}, key=lambda name: (TIERS.index(name) if name in TIERS else -1, name))


@dataclass(frozen=True)
class Tiers:
    """The tiers of rated items."""

    by_item: Mapping[str, str]
    by_group: Mapping[str, str]

    def of(self, item: "Item") -> str:
        """An item's own tier, or that of its siblings; `unrated` where neither is known."""
        own = self.by_item.get(item.id)
        return own or (self.by_group.get(item.group, UNRATED) if item.group else UNRATED)

    def of_all(self, items: Sequence["Item"], path: str) -> list[str]:
        """The tier of each item. Raises `UserError` where no item is known: the ratings are those of another set."""
        if not any(item.id in self.by_item or item.group in self.by_group for item in items):
            raise UserError(
                f"{path} rates none of the {len(items)} test items",
                got=f"ratings of {len(self.by_item)} other items",
                next_step="rate this test set: dsrl difficulty task=... teacher=..., with the same columns and pixels",
            )
        return [self.of(item) for item in items]


def read_tiers(path: Path) -> Tiers:
    """Out of a `ratings.parquet`. Raises `UserError` for a file that is none."""
    import pyarrow
    from pydantic import ValidationError

    from dsrl.core.parquet import read_table

    try:
        rows = read_table(path, Rated)
    except (OSError, pyarrow.ArrowInvalid, ValidationError) as error:
        raise UserError(
            f"{path} holds no ratings of items",
            got=str(error).partition("\n")[0],
            next_step="dsrl difficulty task=... teacher=... makes them: ratings.parquet in its entry of the store",
        ) from error
    found = {row.id: row.tier or UNRATED for row in rows}
    return Tiers(found, {row.group: found[row.id] for row in rows if row.group is not None})
