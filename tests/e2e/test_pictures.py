"""Images in a real vision-language model, tiny and untrained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dsrl.core.errors import UserError
from dsrl.data.images import Pixels, Prompt, make_prompt
from dsrl.data.model import Model, Sampling
from dsrl.data.sample import Image as Kept
from dsrl.models.rollout import TransformersRollout
from dsrl.pipeline.context import Context
from dsrl.stages.train.job import TrainingRow
from dsrl.stages.train.verl.rows import image_prompt_sizes, longest_prompt, write_table
from tests.e2e.tiny_vision import tiny_vision
from tests.stages.train.verl.test_worker import job
from tests.toys import context

pytestmark = pytest.mark.e2e
COLOURS = ("red", "green", "blue")
TOKENS = 36
"""Tokens of an image."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_vision(tmp_path_factory.mktemp("model"))


def store_images(where: Context) -> list[Kept]:
    files = []
    for colour in COLOURS:
        path = where.run_dir / f"{colour}.png"
        Image.new("RGB", (60, 40), colour).save(path)
        files.append(path.read_bytes())
    return [where.images.put(data, Pixels(min_pixels=1)) for data in files]


def sample_texts(
    model: Model, prompts: Sequence[Prompt], where: Context, count: int = 2, temperature: float = 1.0, **fields: int
) -> list[list[str | None]]:
    sampling = Sampling(temperature=temperature, max_tokens=8)
    replies = TransformersRollout(**fields).generate(model, prompts, sampling, count, where)
    return [[reply.text for reply in own] for own in replies]


def test_a_reply_depends_on_its_own_image_only(model: Model, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = context(tmp_path / "one"), context(tmp_path / "other")
    images = store_images(one)
    store_images(other)
    prompts: list[Prompt] = [make_prompt("<image>\nWhich colour?", [image]) for image in images]
    prompts += ["No picture, <image> or not?", make_prompt("<image>, then <image>: same?", images[:2])]
    together = sample_texts(model, prompts, one)
    alone = sample_texts(model, prompts[::-1], other, batch_size=1)
    assert together == alone[::-1]
    greedy = sample_texts(model, prompts, one, count=1, temperature=0.0)
    assert len({tuple(own) for own in greedy[:3]}) > 1, "the image changes the reply"
    assert sample_texts(model, prompts, one, count=4)[0][:2] == together[0], "more replies start with the same ones"
    one.close()
    other.close()


def test_a_prompt_whose_image_fills_the_context_is_an_error(model: Model, tmp_path: Path) -> None:
    where = context(tmp_path)
    image = store_images(where)[0]
    small = replace(model, max_length=TOKENS + 4)
    prompts = [make_prompt("<image>", [image]), make_prompt("<image>\nWhich colour is it?", [image])]
    found = TransformersRollout().generate(small, prompts, Sampling(temperature=0.0, max_tokens=8), 1, where)
    assert found[0][0].error is None
    assert str(TOKENS + 4) in str(found[1][0].error)
    where.close()


def test_rows_for_verl_contain_image_files_and_count_image_tokens(model: Model, tmp_path: Path) -> None:
    where = context(tmp_path)
    image = store_images(where)[0]
    rows = [
        TrainingRow(id="shown", prompt="<image>\nWhich colour?", images=(image.path,), answer="red"),
        TrainingRow(id="told", prompt="Which colour?", answer="red"),
    ]
    made = replace(job(tmp_path), model=model, images=str(where.images.folder))
    sizes = image_prompt_sizes(made, rows)
    assert sizes == {"shown": TOKENS + len("\nWhich colour?")}
    assert longest_prompt(rows, {"Which colour?": [1] * 13}, 256, 8, sizes) == sizes["shown"]
    write_table(tmp_path / "rows.parquet", rows, "train", Path(made.images))
    shown, told = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert shown["images"] == [{"bytes": where.images.path(image).read_bytes()}]
    assert shown["prompt"][0]["content"].count("<image>") == 1
    assert not told["images"]
    with pytest.raises(UserError, match="chat"):
        image_prompt_sizes(replace(made, model=replace(model, prompt_format="raw")), rows)
    where.close()
