"""The visual quickstart's labelled data, written once and kept in `tasks/quickstart_visual`:
`python -m dsrl.quickstart.visual.testset`.

Test and training pictures are drawn from one seed, and no two are alike. Pre-training leaves all of them out.
"""

import argparse
import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dsrl.quickstart.visual.documents import mark, placed
from dsrl.quickstart.visual.pictures import Scene, scene
from dsrl.quickstart.visual.questions import LEVELS, Question, ask

FOLDER = "tasks/quickstart_visual"
SEED = 20261
TEST_ROWS = 400
GOLD_LEVELS = (1, 1, 2, 2, 3, 4)
"""Of the questions to start from: more easy ones, so that there is something to make harder."""
GOLD_ROWS = 480


@dataclass(frozen=True)
class Labelled:
    """A picture, a question about it, and so the answer."""

    scene: Scene
    question: Question

    @property
    def answer(self) -> int:
        return self.question.answer(self.scene.shapes)

    @cached_property
    def mark(self) -> str:
        return mark(self.scene)

    def row(self) -> dict[str, object]:
        """As `datasets` keeps pictures: the bytes of a PNG."""
        out = io.BytesIO()
        self.scene.draw().save(out, "PNG", optimize=True)
        return {
            "image": {"bytes": out.getvalue(), "path": None},
            "question": placed(self.question.text),
            "answer": str(self.answer),
            "level": self.question.level,
            "mark": self.mark,
        }


def distinct(rng: random.Random, rows: int, levels: Sequence[int], taken: set[str]) -> list[Labelled]:
    """So many new pictures, with a question each, the levels in turn; their marks are added to `taken`."""
    items: list[Labelled] = []
    while len(items) < rows:
        drawn = scene(rng)
        question = ask(rng, drawn.shapes, levels[len(items) % len(levels)])
        if question is not None and (found := mark(drawn)) not in taken:
            taken.add(found)
            items.append(Labelled(drawn, question))
    return items


def validation(rows: int, seed: int, taken: set[str]) -> list[Labelled]:
    """Pictures that the gate is measured on; their marks join `taken`, so that the model never sees them."""
    return distinct(random.Random(f"visual validation {seed}"), rows, LEVELS, taken)


def write(folder: Path) -> None:
    """Write `test.parquet` and `gold_train.parquet`."""
    rng, taken = random.Random(SEED), set[str]()
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "test.parquet", distinct(rng, TEST_ROWS, LEVELS, taken))
    _save(folder / "gold_train.parquet", distinct(rng, GOLD_ROWS, GOLD_LEVELS, taken))


def _save(path: Path, items: Iterable[Labelled]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([item.row() for item in items]), path)


def labelled(folder: Path) -> set[str]:
    """Marks of every picture in the folder's files: what a pre-training corpus must not hold."""
    from pyarrow import parquet

    files = sorted(folder.glob("*.parquet"))
    return {value for path in files for value in parquet.read_table(path, columns=["mark"])["mark"].to_pylist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help="where the two files go")
    write(parser.parse_args().folder)
