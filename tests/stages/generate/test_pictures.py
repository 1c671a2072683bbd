"""Images in requests to the teacher, with a server that decodes what it receives."""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dsrl.core.component import component
from dsrl.data.images import IMAGE, ImagePrompt, Pixels, Prompt, UnlabelledImages
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import Endpoint
from dsrl.models.rollout.protocols import Rollout
from dsrl.pipeline.context import Context
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate import Generate, MajorityVote
from dsrl.stages.rewrite import HarderVariants, PassBand, QualityJudge
from dsrl.stages.score import PassCount
from tests.llm.server import Json, serve
from tests.toys import context

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
TASK = Task(name="stripes", instruction="Count the stripes.", answer=Number(), pixels=Pixels(min_pixels=1))


def striped(folder: Path) -> Path:
    """Images of one, two and three stripes."""
    folder.mkdir()
    for count in (1, 2, 3):
        picture = Image.new("RGB", (10 * count, 8))
        for place, colour in enumerate(list(COLOURS.values())[:count]):
            picture.paste(colour, (10 * place, 0, 10 * place + 10, 8))
        picture.save(folder / f"{count}.png")
    return folder


def pictures(content: Any) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))) for url in urls]


def words(content: Any) -> str:
    return "".join(part.get("text", IMAGE) for part in content)


def stripes(picture: Image.Image) -> int:
    return picture.width // 10


def seeing(body: Json, choice: int) -> str:
    """Counts the stripes of the image that it receives, and asks about them."""
    content = body["messages"][-1]["content"]
    (picture,) = pictures(content)
    if "Write one new sample" not in words(content):
        return f"#### {stripes(picture)}"
    text = f"How many stripes are there, {['one', 'two', 'three'][stripes(picture) - 1]} colours or not?"
    return json.dumps({"input": text, "output": f"#### {stripes(picture)}"})


def written(folder: Path, answer: Callable[[Json, int], str], n: int = 3) -> tuple[PipelineState, list[Json]]:
    task = Task(
        name="s", instruction="Count.", answer=Number(), pixels=TASK.pixels, pictures=UnlabelledImages(path=str(folder))
    )
    where = context(folder.parent)
    with serve(answer=answer) as script:
        teacher = Endpoint(model="m", base_url=script.url, images=True)
        stage = Generate(teacher=teacher, n=n, verify=(MajorityVote(teacher=teacher, votes=3),), max_candidates=2 * n)
        found = stage(PipelineState(task=task), where)
    where.close()
    return found, script.bodies


def test_every_image_of_a_folder_gets_a_sample(tmp_path: Path) -> None:
    found, _ = written(striped(tmp_path / "pictures"), seeing)
    assert sorted(sample.answer for sample in found.samples) == ["1", "2", "3"]
    assert {sample.input.startswith(f"{IMAGE}\n") for sample in found.samples} == {True}
    assert {len(sample.images) for sample in found.samples} == {1}
    assert len({sample.images[0].digest for sample in found.samples}) == 3


def test_equal_words_about_different_images_are_different_samples(tmp_path: Path) -> None:
    def plain(body: Json, choice: int) -> str:
        said = seeing(body, choice)
        return said if said.startswith("#") else json.dumps({**json.loads(said), "input": "How many stripes?"})

    found, _ = written(striped(tmp_path / "pictures"), plain)
    assert sorted(sample.answer for sample in found.samples) == ["1", "2", "3"]


def test_a_broken_image_is_skipped_with_a_warning(tmp_path: Path) -> None:
    folder = striped(tmp_path / "pictures")
    (folder / "4.png").write_bytes(b"no picture")
    found, _ = written(folder, seeing)
    assert len(found.samples) == 3


@component("tests.test_pictures.RandomUnscored")
class RandomUnscored(Rollout):
    """A model whose pass rate depends on the text; it requires an image for every placeholder."""

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: Context
    ) -> list[list[Reply]]:
        assert all(isinstance(prompt, ImagePrompt) and len(prompt.images) == 1 for prompt in prompts)
        texts = [prompt.text for prompt in prompts if isinstance(prompt, ImagePrompt)]
        return [[self._reply("harder" in text, number) for number in range(count)] for text in texts]

    def _reply(self, hard: bool, number: int) -> Reply:
        return Reply(text="#### 2" if number % 4 or not hard else "#### 9", finish_reason="stop")


class Named(Model):
    def fingerprint(self) -> str:
        return self.name


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Of all stripes, harder: how many?", None),
        (f"{IMAGE} harder: how many?", None),
        ("<image 1> harder: how many?", None),
        (f"{IMAGE}{IMAGE} harder: how many?", "placeholders"),
        ("<image 2> harder: how many?", "placeholders"),
        ("How many stripes?", "same question"),
    ],
)
def test_variants_keep_the_image_and_prompts_hide_the_answer(tmp_path: Path, question: str, reason: str | None) -> None:
    where, folder = context(tmp_path), striped(tmp_path / "pictures")
    image = where.gallery(TASK).put((folder / "2.png").read_bytes())
    where.scratch = tmp_path
    seed = new_sample("stripes", f"{IMAGE}\nHow many stripes?", "2", "seed", images=(image,))
    counter = PassCount(rollout=RandomUnscored(), rollouts=16)
    kinds: Counter[str] = Counter()

    def answer(body: Json, choice: int) -> str:
        content = body["messages"][-1]["content"]
        assert [stripes(one) for one in pictures(content)] == [2]
        assert "#### 2" not in words(content)
        judged = "Rewritten question" in words(content)
        kinds["judge" if judged else "writer"] += 1
        return json.dumps({"score": 9, "reason": "more steps"} if judged else {"question": question})

    with serve(answer=answer) as script:
        teacher = Endpoint(model="m", base_url=script.url, images=True)
        verify = (QualityJudge(teacher=teacher), PassBand(counter=counter))
        stage = HarderVariants(teacher=teacher, counter=counter, verify=verify, attempts=1)
        found = stage(counter(PipelineState(task=TASK, base=Named(name="m", path="m"), samples=(seed,)), where), where)
    where.close()
    assert [one.reason for one in found.rejected] == ([reason] if reason else [])
    if reason is None:
        variant = found.samples[-1]
        assert (variant.images, variant.answer, variant.origin) == ((image,), "2", "harder")
        assert variant.input.count(IMAGE) == 1
        assert kinds == {"writer": 1, "judge": 1}
