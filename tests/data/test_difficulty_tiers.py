from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.core.parquet import write_table
from dsrl.data.difficulty_tiers import ItemRating, read_tiers
from dsrl.data.source import Item


def rating(text: str, tier: str | None, group: str | None = None) -> ItemRating:
    item = Item(input=text, answer="1")
    return ItemRating(
        id=item.id, input=text, group=group, rating=None, low=None, high=None, tier=tier, wins=0, ties=0, losses=0
    )


def write_ratings(folder: Path, *rows: ItemRating) -> str:
    path = folder / "ratings.parquet"
    write_table(path, rows, ItemRating)
    return str(path)


def test_item_has_its_own_tier_or_its_groups(tmp_path: Path) -> None:
    path = write_ratings(tmp_path, rating("a", "easy"), rating("b", "hard", "g"), rating("c", None))
    items = [
        Item(input=text, answer="1", group=group) for text, group in (("a", None), ("b", "g"), ("B", "g"), ("c", None))
    ]
    assert read_tiers(Path(path)).tiers_of([*items, Item(input="d", answer="1")], path) == [
        "easy", "hard", "hard", "unrated", "unrated",
    ]  # fmt: skip


def test_ratings_of_other_items_and_other_files_are_rejected(tmp_path: Path) -> None:
    tiers = read_tiers(Path(write_ratings(tmp_path, rating("a", "easy"))))
    with pytest.raises(UserError, match="1 test items"):
        tiers.tiers_of([Item(input="z", answer="1")], "x")
    (tmp_path / "text.parquet").write_text("no table")
    for name in ("text.parquet", "nowhere.parquet"):
        with pytest.raises(UserError, match=name):
            read_tiers(tmp_path / name)
