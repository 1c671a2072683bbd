"""Difficulty ratings of test items, as `dsrl difficulty` writes them, and the tiers that split evaluations."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsrl.core.component import record
from dsrl.core.errors import UserError
from dsrl.data.source import Item

MAX_EASY, MIN_HARD = 950.0, 1050.0
UNRATED = "unrated"
TIERS = ("easy", "medium", "hard", UNRATED)


@record
class ItemRating:
    """A row of `ratings.parquet`."""

    id: str
    input: str
    group: str | None = None
    """Items of a group share the rating."""
    rating: float | None
    """On the Elo scale with mean 1000; None: unrated."""
    low: float | None
    high: float | None
    tier: str | None
    """easy, medium or hard."""
    wins: int
    """Battles in which this item was the harder one."""
    ties: int
    losses: int


def rating_tier(rating: float | None) -> str | None:
    """The paper's bins: easy up to 950, hard from 1050; None for an unrated item."""
    if rating is None or math.isnan(rating):
        return None
    return "easy" if rating <= MAX_EASY else "hard" if rating >= MIN_HARD else "medium"


def sort_tiers(names: Iterable[str | None]) -> list[str]:
    """Distinct names: subjects in alphabetical order, then tiers from easy to hard."""
    return sorted({name for name in names if name}, key=lambda name: (TIERS.index(name) if name in TIERS else -1, name))


@dataclass(frozen=True)
class DifficultyTiers:
    by_item: Mapping[str, str]
    by_group: Mapping[str, str]

    def tiers_of(self, items: Sequence[Item], path: str) -> list[str]:
        """Each item's tier, or its group's, else `unrated`. Raises `UserError` if no item is rated: the file then
        belongs to another test set."""
        if not any(item.id in self.by_item or item.group in self.by_group for item in items):
            raise UserError(
                f"{path} rates none of the {len(items)} test items",
                got=f"ratings of {len(self.by_item)} other items",
                next_step="rate this test set: dsrl difficulty task=... teacher=..., with the same columns and pixels",
            )
        return [
            self.by_item.get(item.id) or (self.by_group.get(item.group, UNRATED) if item.group else UNRATED)
            for item in items
        ]


def read_tiers(path: Path) -> DifficultyTiers:
    """Read a `ratings.parquet`. Raises `UserError` for any other file."""
    import pyarrow
    from pydantic import ValidationError

    from dsrl.core.parquet import read_table

    try:
        rows = read_table(path, ItemRating)
    except (OSError, pyarrow.ArrowInvalid, ValidationError) as error:
        raise UserError(
            f"{path} is not a file of difficulty ratings",
            got=str(error).partition("\n")[0],
            next_step="make one: dsrl difficulty task=... teacher=... writes ratings.parquet into its store entry",
        ) from error
    by_item = {row.id: row.tier or UNRATED for row in rows}
    return DifficultyTiers(by_item, {row.group: by_item[row.id] for row in rows if row.group is not None})
