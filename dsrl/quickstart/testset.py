"""Write the quickstart's labelled data, kept in `tasks/quickstart`: `python -m dsrl.quickstart.testset`.

Test and training stories are drawn from one seed and are all different. The pre-training corpus leaves them out.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from dsrl.core.digest import text_digest
from dsrl.quickstart.stories import LEVELS, Story, draw, parse

FOLDER = "tasks/quickstart"
SEED = 20260
TEST_ROWS = 400
GOLD_ROWS = 600
DEMOS = (
    "Omar has 10 boxes. Omar sells 3 again. How many boxes now?",
    "Mia has 7 stamps. Mia gets 4 more. Mia gives 2 away. How many stamps now?",
    "Lena has 5 shells. Lena finds 6 more. Lena loses 1 today. Lena buys 2 more. How many shells now?",
)
Drawn = TypeVar("Drawn")


def draw_distinct(
    draw_item: Callable[[int], Drawn | None], key: Callable[[Drawn], str], count: int, taken: set[str]
) -> list[Drawn]:
    """Draw `count` items whose keys are not in `taken`, and add their keys to it.

    `draw_item(number)` draws a candidate for item `number`; None, or a taken key, is drawn again.
    """
    items: list[Drawn] = []
    while len(items) < count:
        item = draw_item(len(items))
        if item is not None and (item_key := key(item)) not in taken:
            taken.add(item_key)
            items.append(item)
    return items


def draw_stories(rng: random.Random, count: int, taken: set[str]) -> list[Story]:
    """New stories, cycling through the levels."""
    return draw_distinct(
        lambda number: draw(rng, LEVELS[number % len(LEVELS)]), lambda story: text_digest(story.text), count, taken
    )


def write(folder: Path) -> None:
    """Write `demos.jsonl`, `test.jsonl` and `gold_train.jsonl`."""
    rng, demos = random.Random(SEED), [parse(text) for text in DEMOS]
    taken = {text_digest(text) for text in DEMOS}
    test, gold = draw_stories(rng, TEST_ROWS, taken), draw_stories(rng, GOLD_ROWS, taken)
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "demos.jsonl", ({"input": story.text, "output": story.solution} for story in demos))
    _save(folder / "test.jsonl", map(_row, test))
    _save(folder / "gold_train.jsonl", map(_row, gold))


def _row(story: Story) -> dict[str, object]:
    return {"question": story.text, "answer": str(story.answer), "level": len(story.changes)}


def _save(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def labelled_digests(folder: Path) -> set[str]:
    """Digests of all stories in the folder's files, which the pre-training corpus must leave out."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines())
    return {text_digest(row.get("question") or row["input"]) for row in map(json.loads, lines)}


def main(write_files: Callable[[Path], None], folder: str, description: str | None) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", type=Path, default=Path(folder), help="where to write the files")
    write_files(parser.parse_args().folder)


if __name__ == "__main__":
    main(write, FOLDER, __doc__)
