"""Write the visual quickstart's labelled data, kept in `tasks/quickstart_visual`:
`python -m dsrl.quickstart.visual.testset`.

Test and training images are drawn from one seed and are all different. The pre-training corpus leaves them out.
"""

import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dsrl.quickstart.testset import draw_distinct, main
from dsrl.quickstart.visual.documents import with_image_last
from dsrl.quickstart.visual.questions import LEVELS, Question, draw_question
from dsrl.quickstart.visual.scenes import Scene, draw_scene

FOLDER = "tasks/quickstart_visual"
SEED = 20261
TEST_ROWS = 400
GOLD_LEVELS = (1, 1, 2, 2, 3, 4)
"""More easy questions than hard ones, so that there is something to make harder."""
GOLD_ROWS = 480


@dataclass(frozen=True)
class LabelledScene:
    scene: Scene
    question: Question

    @property
    def answer(self) -> int:
        return self.question.answer(self.scene.shapes)

    @cached_property
    def digest(self) -> str:
        return self.scene.digest()

    def row(self) -> dict[str, object]:
        """A row with the image as `datasets` stores it: the bytes of a PNG."""
        out = io.BytesIO()
        self.scene.draw().save(out, "PNG", optimize=True)
        return {
            "image": {"bytes": out.getvalue(), "path": None},
            "question": with_image_last(self.question.text),
            "answer": str(self.answer),
            "level": self.question.level,
            "mark": self.digest,
        }


def draw_labelled_scenes(rng: random.Random, count: int, levels: Sequence[int], taken: set[str]) -> list[LabelledScene]:
    """New images with a question each, cycling through the levels. Their digests are added to `taken`."""

    def draw_item(number: int) -> LabelledScene | None:
        scene = draw_scene(rng)
        question = draw_question(rng, scene.shapes, levels[number % len(levels)])
        return LabelledScene(scene, question) if question is not None else None

    return draw_distinct(draw_item, lambda item: item.digest, count, taken)


def validation_scenes(count: int, seed: int, taken: set[str]) -> list[LabelledScene]:
    """Draw validation images and add their digests to `taken`, so that the corpus leaves them out."""
    return draw_labelled_scenes(random.Random(f"visual validation {seed}"), count, LEVELS, taken)


def write(folder: Path) -> None:
    """Write `test.parquet` and `gold_train.parquet`."""
    rng, taken = random.Random(SEED), set[str]()
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "test.parquet", draw_labelled_scenes(rng, TEST_ROWS, LEVELS, taken))
    _save(folder / "gold_train.parquet", draw_labelled_scenes(rng, GOLD_ROWS, GOLD_LEVELS, taken))


def _save(path: Path, items: Iterable[LabelledScene]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([item.row() for item in items]), path)


def labelled_digests(folder: Path) -> set[str]:
    """Digests of all images in the folder's files, which the pre-training corpus must leave out."""
    from pyarrow import parquet

    files = sorted(folder.glob("*.parquet"))
    return {value for path in files for value in parquet.read_table(path, columns=["mark"])["mark"].to_pylist()}


if __name__ == "__main__":
    main(write, FOLDER, __doc__)
