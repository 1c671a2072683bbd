import json
from pathlib import Path

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.core.parquet import read_table
from dsrl.data.difficulty_tiers import ItemRating
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import Endpoint
from dsrl.pipeline.runner import run_stages
from dsrl.pipeline.state import PipelineState
from dsrl.quickstart import OfflineTeacher
from dsrl.stages.difficulty import Difficulty
from dsrl.stages.difficulty.stage import Battle
from tests.llm.server import Json, serve
from tests.toys import context


def state(folder: Path, texts: list[str]) -> PipelineState:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps({"q": text, "a": "1"}) + "\n" for text in texts))
    source = Source(path=str(path), input="q", output="a") if texts else None
    task = Task(name="t", instruction="Read counting stories: how many are left?", answer=Number(), test=source)
    return PipelineState(task=task)


def story(changes: int) -> str:
    return " ".join(["Ada has 9 pens.", *["Ada buys 2 more."] * changes, "How many pens now?"])


def test_ratings_order_stories_by_their_number_of_steps(tmp_path: Path) -> None:
    where = context(tmp_path)
    texts = [story(changes) for changes in range(1, 9)]
    teacher = Endpoint(model="offline-rules-v1", server=OfflineTeacher(busy=0.0), concurrency=8)
    after = run_stages({"difficulty": Difficulty(teacher=teacher, bootstraps=10)}, state(tmp_path, texts), where)
    rated = read_table(after.files["difficulty/ratings.parquet"], ItemRating)
    fought = read_table(after.files["difficulty/battles.parquet"], Battle)
    assert [row.input for row in sorted(rated, key=lambda row: row.rating or 0)] == texts
    assert (rated[0].tier, rated[-1].tier, rated[0].losses, rated[-1].wins) == ("easy", "hard", 7, 7)
    assert len(fought) == after.figures["battles"] == 28
    assert all(where.reply_cache.get(*split(battle.call)) is not None for battle in fought)
    assert after.figures["undecided"] == 0
    where.close()


def test_one_item_per_group_is_rated(tmp_path: Path) -> None:
    rows = [
        {
            "q": story(changes).replace("pens", "cups" if version else "pens"),
            "a": "1",
            "problem": changes,
            "version": version,
        }
        for changes in range(1, 5)
        for version in (0, 1)
    ]
    for subject, version in ((None, 0), ("1", 1)):
        texts = [row["q"] for row in rows if row["version"] == version]
        folder = tmp_path / str(subject)
        folder.mkdir()
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        where = context(folder)
        source = Source(path=str(folder / "test.jsonl"), input="q", output="a", group="problem", subject="version")
        task = Task(name="t", instruction="Read counting stories: how many are left?", answer=Number(), test=source)
        teacher = Endpoint(model="offline-rules-v1", server=OfflineTeacher(busy=0.0), concurrency=8)
        stage = Difficulty(teacher=teacher, bootstraps=2, subject=subject)
        after = run_stages({"difficulty": stage}, PipelineState(task=task), where)
        rated = read_table(after.files["difficulty/ratings.parquet"], ItemRating)
        assert [row.input for row in rated] == texts
        assert [row.group for row in rated] == ["1", "2", "3", "4"]
        where.close()
    where = context(folder)
    with pytest.raises(UserError, match=r"difficulty\.subject"):
        Difficulty(teacher=teacher, subject="2")(PipelineState(task=task), where)
    where.close()


def split(call: str) -> tuple[str, int]:
    digest, _, index = call.rpartition(":")
    return digest, int(index)


def test_unreadable_judgements_leave_an_item_unrated(tmp_path: Path) -> None:
    def answer(body: Json, choice: int) -> str:
        prompt = body["messages"][0]["content"]
        if "lost" in prompt:
            return "Both are nice."
        return json.dumps({"harder": "first" if "# First problem\nhard" in prompt else "second", "reason": "!"})

    where = context(tmp_path)
    where.scratch = tmp_path
    with serve(answer=answer) as script:
        stage = Difficulty(teacher=Endpoint(model="m", base_url=script.url), bootstraps=5)
        after = stage(state(tmp_path, ["hard", "easy", "lost"]), where)
    rated = {row.input: row for row in read_table(tmp_path / "ratings.parquet", ItemRating)}
    assert (rated["hard"].tier, rated["easy"].tier, rated["lost"].tier) == ("hard", "easy", None)
    assert rated["lost"].rating is None
    assert (after.figures["undecided"], after.figures["unrated"]) == (2, 1)
    where.close()


def test_too_few_items_are_refused_and_no_judgement_fails(tmp_path: Path) -> None:
    where = context(tmp_path)
    with serve(answer=lambda body, choice: "hm") as script:
        stage = Difficulty(teacher=Endpoint(model="m", base_url=script.url))
        for texts, words in (([], "no test set"), (["one"], "two items")):
            with pytest.raises(UserError, match=words):
                stage(state(tmp_path, texts), where)
        with pytest.raises(StageFailed, match="no battle was decided"):
            stage(state(tmp_path, ["one", "two"]), where)
    where.close()
