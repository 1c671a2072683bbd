"""Time to read a labelled data set with very many images, the first time and again.

    python benchmarks/images.py --count 100000 --data /tmp/images

Pictures are drawn once and kept: half of them fit as they are, a quarter too large, a quarter palettes. Prints seconds
and the process's peak memory (MB) of: the fingerprint of the data set, which is part of every key; the seeds, with all
pictures opened, resized and kept by content; and both again, as a second run has them.
"""

import argparse
import io
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from dsrl.data.images import Pixels
from dsrl.data.model import Model
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Store
from dsrl.stages.seeds import Seeds

PER_FOLDER = 1000


def draw(number: int, path: Path) -> str:
    """An image of a few shapes on noise, so that its file size is realistic."""
    rng = random.Random(number)
    side = 448 if number % 4 == 1 else 224
    picture = Image.effect_noise((side, side), 20).convert("RGB")
    pen, answer = ImageDraw.Draw(picture), rng.randint(1, 9)
    for _ in range(answer):
        x, y = rng.randint(0, side - 30), rng.randint(0, side - 30)
        pen.ellipse([x, y, x + 24, y + 24], fill=rng.choice(["red", "green", "blue"]))
    if number % 4 == 2:
        picture.convert("P").save(path)
    else:
        picture.save(path.with_suffix(".jpg") if number % 4 == 3 else path)
    return str(answer)


def prepare(folder: Path, count: int) -> Path:
    """The rows and their images, created if missing."""
    table = folder / f"rows-{count}.jsonl"
    if table.is_file():
        return table
    rows = []
    for number in range(count):
        place = folder / f"{number // PER_FOLDER:04}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number:06}.png"
        answer = draw(number, path)
        kept = path.with_suffix(".jpg") if number % 4 == 3 else path
        rows.append(
            {
                "question": f"How many dots are in picture {number}?",
                "answer": answer,
                "image": str(kept.relative_to(folder)),
            }
        )
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


def timed(name: str, work: Callable[[], Any], count: int) -> Any:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:32} {seconds:9.1f} s  {seconds / count * 1e6:9.0f} us each  peak {peak:6.0f} MB", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--count", type=int, default=100_000)
    arguments = parser.parse_args()
    table = prepare(arguments.data, arguments.count)
    source = Source(path=str(table), input="question", output="answer", images="image")
    task = Task(name="dots", instruction="Count.", answer=Number(), pixels=Pixels(min_pixels=1, max_pixels=100_000))
    with tempfile.TemporaryDirectory(dir=arguments.data) as scratch:
        where = Path(scratch)
        context = Context(
            run_dir=where,
            store=Store(where / "store"),
            reply_cache=ReplyCache(where / "calls"),
            progress=Progress(io.StringIO()),
        )
        stage, state = Seeds(source=source, drop_test_items=False), PipelineState(task=task, base=Model(name="any"))
        for run in ("first", "second"):
            timed(f"{run} run: fingerprint", source.fingerprint, arguments.count)
            found = timed(f"{run} run: seeds", lambda: stage(state, context), arguments.count)
            assert len(found.samples) == arguments.count, found.rejected[:3]
        context.close()


if __name__ == "__main__":
    main()
