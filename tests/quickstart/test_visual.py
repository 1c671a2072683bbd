"""The visual quickstart's images, the reader of their shapes, and the offline teacher's replies about them."""

import base64
import io
import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet

from dsrl.core.resources import home
from dsrl.graders import Number
from dsrl.quickstart import OfflineTeacher
from dsrl.quickstart.stories import CannotDo
from dsrl.quickstart.visual.documents import answer_style, scene_documents, with_image_last
from dsrl.quickstart.visual.questions import ALL, LEVELS, draw_question, parse
from dsrl.quickstart.visual.reader import read_shapes
from dsrl.quickstart.visual.rules import harder_same, judge
from dsrl.quickstart.visual.scenes import Scene, draw_scene
from dsrl.quickstart.visual.testset import draw_labelled_scenes, labelled_digests

TASK = home() / "tasks" / "quickstart_visual"
ROWS = {"test": 400, "gold_train": 480}


def png(drawn: Scene) -> bytes:
    out = io.BytesIO()
    drawn.draw().save(out, "PNG")
    return out.getvalue()


def test_reader_finds_the_drawn_shapes() -> None:
    rng = random.Random(0)
    for _ in range(200):
        drawn = draw_scene(rng)
        assert Counter(read_shapes(png(drawn))) == Counter(drawn.shapes)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a", "open"),
        (png(Scene((250, 250, 250), ())), "no shapes"),
    ],
)
def test_reader_rejects_other_images_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(CannotDo, match=words):
        read_shapes(data)


def test_parse_inverts_question_text() -> None:
    for question in ALL:
        assert parse(with_image_last(question.text)) == question
    with pytest.raises(CannotDo):
        parse("How many purple shapes are there?")


def test_harder_question_keeps_the_answer_unless_it_slips() -> None:
    rng, found = random.Random(1), 0
    for number in range(200):
        shapes = draw_scene(rng).shapes
        question = draw_question(rng, shapes, LEVELS[number % 3])
        for slip in (False, True) if question else ():
            assert question is not None
            try:
                harder = harder_same(question, shapes, slip, rng)
            except CannotDo:
                continue
            found += 1
            assert harder.level > question.level
            assert abs(harder.answer(shapes) - question.answer(shapes)) == slip
            assert judge(question.text, harder.text, shapes)[0] >= 8
            assert judge(harder.text, question.text, shapes)[0] < 8
    assert found > 200


def test_judge_checks_that_named_things_are_in_the_image() -> None:
    drawn = next(one for one in iter(lambda: draw_scene(random.Random(3)), None))
    missing = next(question for question in ALL if question.level == 4 and 0 in question.counts(drawn.shapes))
    assert judge("How many circles are there?", missing.text, drawn.shapes)[0] < 8 + 1
    assert "isn't on the picture" in judge("How many circles are there?", missing.text, drawn.shapes)[1]


def asked(drawn: Scene, text: str, index: int = 0, url: str = "") -> str:
    url = url or f"data:image/png;base64,{base64.b64encode(png(drawn)).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    body = {"model": "offline-rules-v1", "seed": 0, "messages": [{"role": "user", "content": parts}]}
    return str(OfflineTeacher(wrong=0.0, unparsable=0.0).choice(body, index).content)


def test_teacher_reads_the_attached_image() -> None:
    rng, written = random.Random(5), 0
    form = 'Reply with JSON: {"question": "..."}'
    for _ in range(6):
        drawn = draw_scene(rng)
        question = draw_question(rng, drawn.shapes, 1)
        assert question is not None
        right = question.answer(drawn.shapes)
        assert Number().grade(asked(drawn, with_image_last(question.text)), str(right)).correct
        said = asked(drawn, f"# Task\nx\n\n# Question to make harder\n{question.text}\n\n{form}")
        if said != "None":
            written += 1
            assert parse(json.loads(said)["question"]).answer(drawn.shapes) == right
    assert written


def test_image_urls_are_rejected() -> None:
    with pytest.raises(ValueError, match="url"):
        asked(draw_scene(random.Random(0)), "How many circles are there?", url="https://example.org/a.png")


@pytest.mark.parametrize(("name", "count"), ROWS.items())
def test_every_labelled_row_has_the_right_answer(name: str, count: int) -> None:
    rows = parquet.read_table(TASK / f"{name}.parquet").to_pylist()
    assert len(rows) == count
    for row in rows[::10]:
        question = parse(row["question"])
        assert row["answer"] == str(question.answer(read_shapes(row["image"]["bytes"])))
        assert row["level"] == question.level


def test_images_are_distinct_and_excluded_from_the_corpus() -> None:
    taken = labelled_digests(TASK)
    assert len(taken) == sum(ROWS.values())
    again = draw_labelled_scenes(random.Random(20261), 3, LEVELS, set())
    assert {item.digest for item in again} <= taken
    seen = islice(scene_documents(random.Random(20261), 0.3, 0.4, 0.3, frozenset(taken)), 20)
    assert not {one.scene.digest() for one in seen} & taken


def test_documents_are_right() -> None:
    read_back = Counter[str]()
    for one in islice(scene_documents(random.Random(0), 0.2, 0.4, 0.3, frozenset()), 300):
        if "Name the" not in one.prompt:
            answer = parse(one.prompt).answer(one.scene.shapes)
            assert Number().correct_anywhere(one.answer, str(answer))
            read_back[answer_style(one.answer)] += 1
    assert min(read_back.values()) > 40


def test_shipped_images_have_the_expected_size(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    row = parquet.read_table(TASK / "test.parquet").slice(0, 1).to_pylist()[0]
    path.write_bytes(row["image"]["bytes"])
    with Image.open(path) as found:
        assert found.size == (48, 48)
        assert found.mode == "RGB"
