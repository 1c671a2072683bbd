"""The quickstart's labelled data, written once and kept in `tasks/quickstart`: `python -m dsrl.quickstart.testset`.

Test and training stories are drawn from one seed and share no text. Pre-training leaves all of them out.
"""

import argparse
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

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


def distinct(rng: random.Random, rows: int, taken: set[str]) -> list[Story]:
    """So many new stories, the levels in turn; their digests are added to `taken`."""
    stories: list[Story] = []
    while len(stories) < rows:
        story = draw(rng, LEVELS[len(stories) % len(LEVELS)])
        if (mark := text_digest(story.text)) not in taken:
            taken.add(mark)
            stories.append(story)
    return stories


def write(folder: Path) -> None:
    """Write `demos.jsonl`, `test.jsonl` and `gold_train.jsonl`."""
    rng, demos = random.Random(SEED), [parse(text) for text in DEMOS]
    taken = {text_digest(text) for text in DEMOS}
    test, gold = distinct(rng, TEST_ROWS, taken), distinct(rng, GOLD_ROWS, taken)
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "demos.jsonl", ({"input": story.text, "output": story.solution} for story in demos))
    _save(folder / "test.jsonl", map(_row, test))
    _save(folder / "gold_train.jsonl", map(_row, gold))


def _row(story: Story) -> dict[str, object]:
    return {"question": story.text, "answer": str(story.answer), "level": len(story.changes)}


def _save(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def labelled(folder: Path) -> set[str]:
    """Digests of every story in the folder's files: what a pre-training corpus must not hold."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines())
    return {text_digest(row.get("question") or row["input"]) for row in map(json.loads, lines)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help="where the three files go")
    write(parser.parse_args().folder)
